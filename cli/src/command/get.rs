//! `conun get`: a table as Parquet files, one a data shard.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use conun_types::{Error, Result};

use crate::{args::Get, context::Context, human, output::Target, print};

/// Downloads every shard, checks it, and writes it as `TABLE-00000.parquet` and so on.
pub(crate) async fn run(args: Get, context: &Context) -> Result<()> {
    let client = context.client(&args.listing.connect).await?;
    let shards = client.shards(&args.table).await?;
    std::fs::create_dir_all(&args.dir)
        .map_err(|e| Error::from(e).context(format!("cannot create {}", args.dir.display())))?;
    let mut files = Vec::new();
    for shard in &shards {
        let path = args.dir.join(format!("{}-{:05}.parquet", args.table, shard.index));
        write(&path, &client.shard(&args.table, shard).await?)?;
        files.push(path);
    }
    let (rows, bytes) = (shards.iter().map(|s| s.rows).sum(), shards.iter().map(|s| s.len).sum());
    report(&args, &files, rows, bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut target = Target::file(path)?;
    target.write_all(bytes).map_err(|e| Error::from(e).context(format!("cannot write {}", path.display())))?;
    target.complete()
}

fn report(args: &Get, files: &[PathBuf], rows: u64, bytes: u64) -> Result<()> {
    if args.listing.json {
        return print::json(&serde_json::json!({
            "table": args.table, "files": files, "rows": rows, "bytes": bytes,
        }));
    }
    let (rows, files) = (human::plural(rows, "row"), human::plural(files.len() as u64, "file"));
    print::line(&format!("{rows}, {} in {files} in {}", human::bytes(bytes), args.dir.display()))
}
