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
    let files: Vec<PathBuf> =
        shards.iter().map(|s| args.dir.join(format!("{}-{:05}.parquet", args.table, s.index))).collect();
    refuse_others(&args, &files)?;
    for (shard, path) in shards.iter().zip(&files) {
        write(path, &client.shard(&args.table, shard).await?)?;
    }
    let (rows, bytes) = (shards.iter().map(|s| s.rows).sum(), shards.iter().map(|s| s.len).sum());
    report(&args, &files, rows, bytes)
}

/// Beside shards of an earlier version, who reads the whole folder would read a table that never was.
fn refuse_others(args: &Get, files: &[PathBuf]) -> Result<()> {
    let is_shard = |name: &str| {
        let number = name.strip_prefix(&format!("{}-", args.table)).and_then(|rest| rest.strip_suffix(".parquet"));
        number.is_some_and(|number| number.len() >= 5 && number.bytes().all(|b| b.is_ascii_digit()))
    };
    for file in std::fs::read_dir(&args.dir)? {
        let path = file?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_shard) && !files.contains(&path) {
            let text = format!("{} is of another version of table '{}'", path.display(), args.table);
            return Err(Error::data(text).with_hint("remove it, or name another folder"));
        }
    }
    Ok(())
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
