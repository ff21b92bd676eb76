//! `conun put`: local files become a table on the network.

use conun_api::message::{PutRequest, PutUpdate};
use conun_storage::{CodeSpec, TableInfo, source::Input};
use conun_types::Result;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{args::Put, context::Context, human, print};

/// Reads the files, uploads them, and prints what was stored.
pub(crate) async fn run(args: Put, context: &Context) -> Result<()> {
    // Mistakes on this side are found before anybody is bothered.
    args.code.as_deref().map(str::parse::<CodeSpec>).transpose()?;
    let input = Input::open(&args.paths)?;
    let client = context.client(&args.connect).await?;
    let request = PutRequest { code: args.code.clone(), shard_size: Some(args.shard_size.0) };
    let bar = progress_bar(args.json);
    let tell = |update: &PutUpdate<TableInfo>| {
        if let PutUpdate::Progress { rows, shards, bytes } = update {
            let stored = human::bytes(*bytes);
            bar.set_message(format!("{}, {shards} shards, {stored} stored", human::plural(*rows, "row")));
        }
    };
    let table = client.put(&args.table, &request, input.schema(), input.stream(), tell).await;
    bar.finish_and_clear();
    report(&table?, args.json)
}

fn progress_bar(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

fn report(table: &TableInfo, json: bool) -> Result<()> {
    table.warnings.iter().for_each(|warning| print::tell(&format!("warning: {warning}")));
    if json {
        return print::json(table);
    }
    print::line(&format!(
        "table {} version {}: {}, {} in {} shards, code {}, {} on the nodes (x{:.2})",
        table.name,
        table.version,
        human::plural(table.rows, "row"),
        human::bytes(table.bytes),
        table.shards,
        table.code,
        human::bytes(table.stored_bytes),
        table.expansion,
    ))
}
