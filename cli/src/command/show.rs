//! `conun show`: one table, its columns, and the nodes that hold it.

use conun_storage::TableInfo;
use conun_types::{Amount, Result};
use serde::Serialize;

use crate::{args::Named, context::Context, human, print};

/// Prints one table.
pub(crate) async fn run(args: Named, context: &Context) -> Result<()> {
    let client = context.client(&args.listing.connect).await?;
    let table = client.table(&args.table).await?;
    // What it would cost to keep: only where the coordinator pays at all.
    let a_day = match client.status().await?.domain.chain_id {
        0 => None,
        _ => Some(Amount(client.account().await?.byte_day.0.saturating_mul(u128::from(table.stored_bytes)))),
    };
    if args.listing.json {
        return print::json(&Report { table, tokens_a_day: a_day });
    }
    print::line(&head(&table))?;
    if let Some(a_day) = a_day {
        print::line(&format!("keeping   {a_day} tokens a day at the coordinator's price (not settled yet)\n"))?;
    }
    let columns = table.columns.iter().map(|c| {
        let null = if c.nullable { "" } else { "not null" };
        vec![c.name.clone(), c.kind.clone(), null.to_owned()]
    });
    print::table(&["column", "type", ""], &columns.collect::<Vec<_>>())?;
    let holders = table.holders.iter().map(|h| {
        let online = if h.online { "online" } else { "offline" };
        vec![h.node.to_string(), h.shards.to_string(), human::bytes(h.bytes), online.to_owned()]
    });
    print::line("")?;
    print::table(&["held by", ">shards", ">bytes", ""], &holders.collect::<Vec<_>>())?;
    table.warnings.iter().for_each(|warning| print::tell(&format!("warning: {warning}")));
    Ok(())
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    table: TableInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_a_day: Option<Amount>,
}

fn head(table: &TableInfo) -> String {
    format!(
        "table     {}, version {}\nrows      {}\nbytes     {}, stored as {} (x{:.2})\n\
         code      {}, {} data shards and {} parity shards in {} groups\nmanifest  {}\nowner     {}\nreadable  {}\n",
        table.name,
        table.version,
        human::count(table.rows),
        human::bytes(table.bytes),
        human::bytes(table.stored_bytes),
        table.expansion,
        table.code,
        table.shards,
        table.parity,
        table.groups,
        table.manifest,
        table.owner,
        if table.available { "yes" } else { "no: too many holders are offline" },
    )
}
