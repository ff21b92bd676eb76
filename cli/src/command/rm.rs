//! `conun rm`: removes a table.

use conun_types::Result;

use crate::{args::Named, context::Context, print};

/// Removes the table; its blocks go when their leases end.
pub(crate) async fn run(args: Named, context: &Context) -> Result<()> {
    context.client(&args.listing.connect).await?.remove(&args.table).await?;
    match args.listing.json {
        true => print::json(&serde_json::json!({ "removed": args.table })),
        false => print::line(&format!("removed table {}", args.table)),
    }
}
