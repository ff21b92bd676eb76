//! The contenders: how each is given a query, and which processes its cost lies in.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{TABLES, compare_dir};
use crate::devnet::Devnet;

/// Something that answers SQL over the TPC-H tables with CSV on stdout.
pub(super) enum Contender<'a> {
    /// A default DataFusion session (`benches/src/bin/plain_datafusion.rs`).
    Plain { bin: &'a Path, data: &'a Path },
    /// `conun sql` without a network.
    Embedded { bin: &'a Path, data: &'a Path },
    /// DuckDB's Python package (`benches/compare/duckdb_sql.py`).
    DuckDb { data: &'a Path },
    /// `conun sql --connect` to a devnet of volunteers.
    Network { devnet: &'a Devnet, verify: &'static str },
}

/// Every contender that can run here; the first is the one that ratios refer to.
pub(super) fn all<'a>(bin: &'a Path, data: &'a Path, devnet: Option<&'a Devnet>) -> Vec<Contender<'a>> {
    let mut all = vec![Contender::Plain { bin, data }, Contender::Embedded { bin, data }];
    if duckdb_is_there() {
        all.push(Contender::DuckDb { data });
    }
    let modes = ["off", "audit", "quorum"];
    all.extend(devnet.into_iter().flat_map(|devnet| modes.map(|verify| Contender::Network { devnet, verify })));
    all
}

pub(crate) fn python() -> String {
    std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

pub(crate) fn duckdb_is_there() -> bool {
    let mut import = Command::new(python());
    import.args(["-c", "import duckdb"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    import.status().is_ok_and(|status| status.success())
}

impl Contender<'_> {
    /// Its name in the report.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Contender::Plain { .. } => "datafusion",
            Contender::Embedded { .. } => "conun embedded",
            Contender::DuckDb { .. } => "duckdb",
            Contender::Network { verify: "off", .. } => "conun devnet off",
            Contender::Network { verify: "audit", .. } => "conun devnet audit",
            Contender::Network { .. } => "conun devnet quorum",
        }
    }

    /// The SQL script to hand over: who has no catalog is told the tables first.
    pub(super) fn script(&self, sql: &str) -> String {
        match self {
            Contender::Plain { data, .. } | Contender::Embedded { data, .. } => {
                let tables = files(data).map(|(table, path)| {
                    format!("create external table {table} stored as parquet location '{}';\n", path.display())
                });
                tables.collect::<String>() + sql
            }
            Contender::DuckDb { data } => {
                let views = files(data).map(|(table, path)| {
                    format!("create view {table} as select * from read_parquet('{}');\n", path.display())
                });
                views.collect::<String>() + sql
            }
            Contender::Network { .. } => sql.to_owned(),
        }
    }

    /// The command that answers `script` on stdout.
    pub(super) fn command(&self, script: &Path) -> Command {
        match self {
            Contender::Plain { bin, .. } => {
                let mut command = Command::new(bin.join("plain-datafusion"));
                command.arg(script);
                command
            }
            Contender::Embedded { bin, .. } => {
                let mut command = Command::new(bin.join("conun"));
                command.args(["sql", "--local", "--quiet", "--format", "csv", "-f"]).arg(script);
                command.env_remove("CONUN_CONNECT");
                command
            }
            Contender::DuckDb { .. } => {
                let mut command = Command::new(python());
                command.arg(compare_dir().join("duckdb_sql.py")).arg(script);
                command
            }
            Contender::Network { devnet, verify } => {
                let mut command = devnet.conun();
                command
                    .args(["sql", "--quiet", "--format", "csv", "--no-cache", "--connect", devnet.url()])
                    .args(["--verify", verify, "-f"])
                    .arg(script);
                command
            }
        }
    }

    /// Processes beside the command that work for it.
    pub(super) fn watched(&self) -> Vec<u32> {
        match self {
            Contender::Network { devnet, .. } => devnet.pids(),
            _ => Vec::new(),
        }
    }
}

fn files(data: &Path) -> impl Iterator<Item = (&'static str, PathBuf)> {
    TABLES.into_iter().map(|table| (table, data.join(format!("{table}.parquet"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_name_their_tables() {
        let (bin, data) = (Path::new("bin"), Path::new("data"));
        let plain = Contender::Plain { bin, data }.script("select 1;");
        assert!(plain.contains("create external table lineitem stored as parquet location 'data/lineitem.parquet';"));
        assert!(plain.ends_with("select 1;"));
        assert_eq!(plain, Contender::Embedded { bin, data }.script("select 1;"), "the same work for both");
        assert!(Contender::DuckDb { data }.script("select 1;").contains("read_parquet('data/part.parquet')"));
    }
}
