//! `conun show`: one table, its columns, and the nodes that hold it.

use conun_storage::TableInfo;
use conun_types::Result;

use crate::{args::Named, context::Context, human, print};

/// Prints one table.
pub(crate) async fn run(args: Named, context: &Context) -> Result<()> {
    let table = context.client(&args.listing.connect).await?.table(&args.table).await?;
    if args.listing.json {
        return print::json(&table);
    }
    print::line(&head(&table))?;
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
