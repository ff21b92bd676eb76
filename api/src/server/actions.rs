//! Conun's own actions: from a name and a JSON body to JSON answers.

use std::sync::Arc;

use arrow_flight::Action;
use conun_engine::{Engine, JobRecord};
use conun_storage::tables::ShardRef;
use conun_types::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};

use super::flight_sql::ticket;
use crate::message::{Block, Column, Name, ShardRow, SqlReply, SqlRequest, Status, VolunteerRow, action};

/// JSON documents (of evidence: blocks), one a Flight result.
type Bodies = Vec<Vec<u8>>;

/// Runs one action.
pub(super) async fn run(engine: &Arc<Engine>, request: Action) -> Result<Bodies> {
    let body = request.body.as_ref();
    let tables = engine.tables();
    match request.r#type.as_str() {
        action::STATUS => one(&status(engine)),
        action::TABLES => many(tables.list()),
        action::SHOW => one(&tables.info(&named(body)?).await?),
        action::RM => nothing(tables.remove(&named(body)?).await?),
        action::SHARDS => many(shards(engine, &named(body)?)?),
        action::PIN => nothing(tables.pin(parse::<Block>(body)?.cid).await?),
        action::UNPIN => nothing(tables.unpin(parse::<Block>(body)?.cid).await?),
        action::PINS => many(tables.pins().into_iter().map(|cid| Block { cid })),
        action::SQL => one(&submit(engine, parse(body)?).await?),
        action::JOBS => many(newest_first(engine.jobs())),
        action::JOB => one(&engine.job(&named(body)?)?),
        action::CANCEL => one(&engine.cancel(&named(body)?)?),
        action::RECEIPTS => many(engine.receipts(&named(body)?)?),
        action::SEAL => one(&engine.seal(&named(body)?)?),
        action::EVIDENCE => Ok(engine.evidence(&named(body)?)?.into_iter().map(Vec::from).collect()),
        action::ACCOUNT => one(&engine.pay_status().await?),
        action::SETTLE => many(engine.settle().await?),
        other => Err(Error::usage(format!("unknown action '{other}'"))),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| Error::usage(format!("malformed request: {e}")))
}

fn named(body: &[u8]) -> Result<String> {
    Ok(parse::<Name>(body)?.name)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::internal(format!("an answer cannot be encoded: {e}")))
}

fn one(value: &impl Serialize) -> Result<Bodies> {
    Ok(vec![json(value)?])
}

fn many<T: Serialize>(values: impl IntoIterator<Item = T>) -> Result<Bodies> {
    values.into_iter().map(|value| json(&value)).collect()
}

fn nothing((): ()) -> Result<Bodies> {
    Ok(Vec::new())
}

fn status(engine: &Engine) -> Status {
    let volunteer = |(peer, hello): (conun_types::PeerAddr, conun_types::wire::Hello)| VolunteerRow {
        id: peer.id,
        addrs: peer.addrs,
        agent: hello.agent,
        cores: hello.cores,
        running: hello.running,
        store_quota: hello.store_quota,
        store_used: hello.store_used,
    };
    Status {
        agent: concat!("conun ", env!("CARGO_PKG_VERSION")).to_owned(),
        id: engine.id(),
        domain: engine.domain(),
        volunteers: engine.volunteers().into_iter().map(volunteer).collect(),
    }
}

fn shards(engine: &Engine, table: &str) -> Result<Vec<ShardRow>> {
    let table = engine.tables().table(table)?;
    let row = |(index, shard): (u64, &ShardRef)| ShardRow { index, cid: shard.cid, len: shard.len, rows: shard.rows };
    Ok((0..).zip(table.shards()).map(row).collect())
}

async fn submit(engine: &Arc<Engine>, request: SqlRequest) -> Result<SqlReply> {
    let job = engine.submit(&request.sql, &request.options).await?;
    let column = |field: &Arc<arrow::datatypes::Field>| Column {
        name: field.name().clone(),
        data_type: field.data_type().to_string(),
        nullable: field.is_nullable(),
    };
    let schema = job.schema.fields().iter().map(column).collect();
    Ok(SqlReply { job: job.id, ticket: hex::encode(ticket(job.id)), schema })
}

fn newest_first(mut jobs: Vec<JobRecord>) -> Vec<JobRecord> {
    jobs.sort_by_key(|job| std::cmp::Reverse(job.id));
    jobs
}
