//! A devnet for the time of a bench or a test: up with tables stored, and down whatever happens.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::Result;
use crate::ci::must;

/// `conun devnet status --json`.
#[derive(Debug, Deserialize)]
struct Status {
    coordinator: Coordinator,
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Coordinator {
    url: String,
    pid: u32,
}

#[derive(Debug, Deserialize)]
struct Node {
    pid: u32,
}

/// A running devnet; dropping it stops its processes.
pub(crate) struct Devnet {
    conun: PathBuf,
    dir: PathBuf,
    status: Status,
}

impl Devnet {
    /// Starts `nodes` volunteers and a coordinator on a free port, in folder `dir`, and puts `tables`: names and files.
    pub(crate) fn up(bin: &Path, dir: &Path, nodes: usize, tables: &[(&str, PathBuf)]) -> Result<Self> {
        let devnet = Self::up_with(bin, dir, nodes, &[])?;
        devnet.put(tables, &[])?;
        Ok(devnet)
    }

    /// As [`Devnet::up`], without tables, with more arguments for `devnet up`.
    pub(crate) fn up_with(bin: &Path, dir: &Path, nodes: usize, flags: &[String]) -> Result<Self> {
        let (conun, dir) = (bin.join("conun"), dir.to_owned());
        let mut up = Command::new(&conun);
        up.args(["devnet", "up", "--detach", "--port", "0", "--nodes", &nodes.to_string(), "--dir"]).arg(&dir);
        must(up.args(flags).stdout(Stdio::null()))?;
        let started = status(&conun, &dir).map(|status| Self { conun: conun.clone(), dir: dir.clone(), status });
        started.inspect_err(|_| down(&conun, &dir))
    }

    /// Stores `tables`: names and files.
    pub(crate) fn put(&self, tables: &[(&str, PathBuf)], flags: &[&str]) -> Result<()> {
        for (table, path) in tables {
            let mut put = self.conun();
            put.args(["put", table]).arg(path).args(flags).args(["--connect", self.url()]);
            let output = put.output()?;
            if !output.status.success() {
                return Err(format!("put {table}: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
            }
        }
        Ok(())
    }

    /// The `conun` command.
    pub(crate) fn conun(&self) -> Command {
        Command::new(&self.conun)
    }

    /// The coordinator's address.
    pub(crate) fn url(&self) -> &str {
        &self.status.coordinator.url
    }

    /// The coordinator's process.
    pub(crate) fn coordinator(&self) -> u32 {
        self.status.coordinator.pid
    }

    /// The nodes' processes.
    pub(crate) fn nodes(&self) -> Vec<u32> {
        self.status.nodes.iter().map(|node| node.pid).collect()
    }

    /// The coordinator's and the nodes' processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        std::iter::once(self.status.coordinator.pid).chain(self.nodes()).collect()
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        down(&self.conun, &self.dir);
    }
}

fn status(conun: &Path, dir: &Path) -> Result<Status> {
    let output = Command::new(conun).args(["devnet", "status", "--json", "--dir"]).arg(dir).output()?;
    if !output.status.success() {
        return Err(format!("devnet status: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn down(conun: &Path, dir: &Path) {
    if let Err(error) = must(Command::new(conun).args(["devnet", "down", "--dir"]).arg(dir).stdout(Stdio::null())) {
        eprintln!("the devnet in {} may still run: {error}", dir.display());
    }
}
