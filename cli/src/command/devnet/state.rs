//! `devnet.json`: which processes make up the network, kept so that any later command finds them.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use conun_storage::durable::{self, Durability};
use conun_types::{Address, Error, NodeId, Result};
use serde::{Deserialize, Serialize};

use crate::{process::ProcessId, service::Ready};

/// Format of the file.
const FORMAT: u32 = 1;

/// A devnet as it was last started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    format: u32,
    /// Port that was asked for; 0: any free one.
    pub(super) port: u16,
    /// Number of nodes, which the next `up` takes over.
    pub(super) size: u32,
    pub(super) coordinators: Vec<Member>,
    pub(super) nodes: Vec<Member>,
    /// Where work is paid, if it is; the next `up` takes it over.
    #[serde(default)]
    pub(super) chain: Option<ChainState>,
}

/// The chain of a devnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChainState {
    /// As `--chain` named it.
    pub(super) chain: String,
    /// The escrow.
    pub(super) escrow: Address,
}

/// One process of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) index: u32,
    pub(super) id: NodeId,
    pub(super) process: ProcessId,
    /// Multiaddress for peers.
    pub(super) address: String,
    /// URL for clients, of a coordinator.
    pub(super) url: Option<String>,
}

impl Member {
    pub(super) fn new(index: u32, ready: &Ready, process: ProcessId) -> Self {
        Self { index, id: ready.id, process, address: ready.address.clone(), url: ready.url.clone() }
    }
}

impl State {
    pub(super) fn new(port: u16, size: u32) -> Self {
        Self { format: FORMAT, port, size, coordinators: Vec::new(), nodes: Vec::new(), chain: None }
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("devnet.json")
    }

    /// The state in `dir`, if there is a devnet.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>> {
        let path = Self::path(dir);
        let named = |e: String| Error::data(format!("{} is damaged: {e}", path.display()));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(Error::from(error).context(path.display())),
        };
        let state: Self = serde_json::from_slice(&bytes).map_err(|e| named(e.to_string()))?;
        if state.format != FORMAT {
            return Err(Error::usage(format!(
                "{} has format {}, this build reads {FORMAT}",
                path.display(),
                state.format
            ))
            .with_hint("use the version of conun that wrote it, or another folder"));
        }
        Ok(Some(state))
    }

    pub(super) fn save(&self, dir: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| Error::internal(e.to_string()))?;
        let path = Self::path(dir);
        durable::replace(&path, &json, Durability::Durable).map_err(|e| Error::from(e).context(path.display()))
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.coordinators.iter().chain(&self.nodes)
    }

    pub(super) fn is_running(&self) -> bool {
        self.members().any(|m| m.process.is_alive())
    }
}

/// Keeps two commands from changing the same devnet at once.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("devnet.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| Error::from(e).context(format!("cannot use {}", dir.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::usage(format!("another devnet command is at work in {}", dir.display()))
                .with_hint("wait for it"))
        }
        Err(TryLockError::Error(error)) => Err(Error::from(error).context(path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_round_trip_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), None);
        let state = State::new(7400, 6);
        state.save(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), Some(state));
        std::fs::write(State::path(dir.path()), "{").unwrap();
        assert!(State::load(dir.path()).unwrap_err().message.contains("devnet.json"));
    }

    #[test]
    fn one_command_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        assert!(lock(dir.path()).is_err());
        drop(first);
        assert!(lock(dir.path()).is_ok());
    }
}
