//! A dataframe job on a network of volunteers, from a coordinator inside this program: the nodes serve it beside any
//! other. Start a network with the flights table, then give the example the addresses of its nodes:
//!
//! ```text
//! conun devnet up --dir net --detach
//! conun put flights sql-examples/nycflights13/data/flights.parquet --connect http://127.0.0.1:7400
//! cargo run --release -p conun-cli --example dataframe -- $(conun devnet status --dir net --json | jq -r '.nodes[].address')
//! ```

use std::{path::Path, sync::Arc, time::Duration};

use arrow::record_batch::RecordBatch;
use conun_engine::{Engine, EngineConfig};
use conun_network::{ClientOnly, Host, HostConfig};
use conun_storage::Tables;
use conun_types::{Error, NodeKey, OsRng, Result, SystemClock};
use datafusion::{functions_aggregate::expr_fn::avg, prelude::col};

/// The five carriers with the longest mean delay, as the network answers, and who verified it.
///
/// # Errors
/// Where no node answers, or none knows a table `flights`.
pub(crate) async fn slowest_carriers(nodes: &[String], dir: &Path) -> Result<(Vec<RecordBatch>, String)> {
    let key = NodeKey::generate(&OsRng);
    let config = HostConfig { bootstrap: nodes.to_vec(), ..HostConfig::default() };
    let host = Host::start(config, &key, Arc::new(ClientOnly::default())).await?;
    host.wait_for(nodes.len(), Duration::from_secs(10)).await?;
    let (clock, rng) = (Arc::new(SystemClock), Arc::new(OsRng));
    let tables = Tables::open(dir, key.clone(), Arc::clone(&host) as _, clock.clone(), rng.clone()).await?;
    // The table is somebody else's: it is believed because several nodes keep the owner's signed pointer to it.
    tables.recover().await?;
    let engine = Engine::start(EngineConfig::new(dir.join("jobs")), key, host, tables, clock, rng, None)?;

    let answer = slowest(&engine).await.map_err(|e| Error::data(e.strip_backtrace()))?;
    let verified = engine.jobs().pop().map(|job| job.verified).unwrap_or_default();
    Ok((answer, verified))
}

async fn slowest(engine: &Arc<Engine>) -> datafusion::error::Result<Vec<RecordBatch>> {
    let flights = engine.session().table("flights").await?;
    let delays = flights.aggregate(vec![col("carrier")], vec![avg(col("dep_delay")).alias("delay")])?;
    delays.sort(vec![col("delay").sort(false, false)])?.limit(0, Some(5))?.collect().await
}

#[tokio::main]
async fn main() -> Result<()> {
    let nodes: Vec<String> = std::env::args().skip(1).collect();
    let dir = tempfile::tempdir()?;
    let (answer, verified) = slowest_carriers(&nodes, dir.path()).await?;
    let table = arrow::util::pretty::pretty_format_batches(&answer).map_err(|e| Error::internal(e.to_string()))?;
    println!("{table}\nverified: {verified}");
    Ok(())
}
