//! `conun tables`: lists tables.

use conun_storage::TableInfo;
use conun_types::Result;

use crate::{args::Listing, context::Context, human, print};

/// Prints every table.
pub(crate) async fn run(args: Listing, context: &Context) -> Result<()> {
    let tables = context.client(&args.connect).await?.tables().await?;
    if args.json {
        return print::json(&serde_json::json!({ "tables": tables }));
    }
    let headers = ["table", ">rows", ">bytes", ">stored", "code", ">shards", ">version"];
    print::table(&headers, &tables.iter().map(row).collect::<Vec<_>>())
}

fn row(table: &TableInfo) -> Vec<String> {
    vec![
        table.name.clone(),
        human::count(table.rows),
        human::bytes(table.bytes),
        human::bytes(table.stored_bytes),
        table.code.clone(),
        format!("{}+{}", table.shards, table.parity),
        table.version.to_string(),
    ]
}
