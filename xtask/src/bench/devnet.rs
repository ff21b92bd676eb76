//! A devnet for the time of a bench: up with the tables stored, and down whatever happens.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::TABLES;
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
pub(super) struct Devnet {
    conun: PathBuf,
    dir: PathBuf,
    status: Status,
}

impl Devnet {
    /// Starts `nodes` volunteers and a coordinator under `scratch`, and puts the tables of `data`.
    pub(super) fn up(bin: &Path, scratch: &Path, nodes: usize, port: u16, data: &Path) -> Result<Self> {
        let (conun, dir) = (bin.join("conun"), scratch.join("devnet"));
        let mut up = Command::new(&conun);
        up.args(["devnet", "up", "--detach", "--nodes", &nodes.to_string(), "--port", &port.to_string(), "--dir"])
            .arg(&dir);
        must(&mut up)?;
        let started = status(&conun, &dir).map(|status| Self { conun: conun.clone(), dir: dir.clone(), status });
        let devnet = started.inspect_err(|_| down(&conun, &dir))?;
        for table in TABLES {
            let mut put = devnet.conun();
            put.args(["put", table]).arg(data.join(format!("{table}.parquet"))).args(["--connect", devnet.url()]);
            must(&mut put)?;
        }
        Ok(devnet)
    }

    /// The `conun` command.
    pub(super) fn conun(&self) -> Command {
        Command::new(&self.conun)
    }

    /// The coordinator's address.
    pub(super) fn url(&self) -> &str {
        &self.status.coordinator.url
    }

    /// The coordinator's and the nodes' processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        let nodes = self.status.nodes.iter().map(|node| node.pid);
        std::iter::once(self.status.coordinator.pid).chain(nodes).collect()
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
    if let Err(error) = must(Command::new(conun).args(["devnet", "down", "--dir"]).arg(dir)) {
        eprintln!("the devnet in {} may still run: {error}", dir.display());
    }
}
