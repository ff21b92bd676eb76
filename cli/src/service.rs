//! What long-running commands share: the line that tells of readiness, and when to stop.

use std::io::Read;

use conun_types::{Error, NodeId, PeerAddr, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::print;

/// What a process says once it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// `node` or `coordinator`.
    pub(crate) ready: String,
    /// Who it is.
    pub(crate) id: NodeId,
    /// Multiaddress for peers, with its `/p2p/` part.
    pub(crate) address: String,
    /// URL for clients, of a coordinator.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) url: Option<String>,
    /// The process.
    pub(crate) pid: u32,
}

impl Ready {
    pub(crate) fn new(what: &str, peer: &PeerAddr, url: Option<String>) -> Self {
        let address = peer.addrs.first().map(|addr| format!("{addr}/p2p/{}", peer.id)).unwrap_or_default();
        Self { ready: what.to_owned(), id: peer.id, address, url, pid: std::process::id() }
    }

    /// Prints the line, as JSON or for people.
    pub(crate) fn announce(&self, json: bool) -> Result<()> {
        if json {
            return print::json_line(self);
        }
        let url = self.url.as_ref().map(|url| format!(" at {url}")).unwrap_or_default();
        print::line(&format!("ready: {}{url}, for peers {}", self.ready, self.address))
    }
}

/// Waits for SIGTERM or Ctrl-C, or for the end of stdin where the process must not outlive its parent.
pub(crate) async fn until_told_to_stop(die_with_parent: bool) -> Result<()> {
    let mut signals = Signals::new()?;
    let orphaned = async {
        match die_with_parent {
            true => drop(end_of_stdin().await),
            false => std::future::pending().await,
        }
    };
    tokio::select! {
        () = signals.next() => {}
        () = orphaned => {}
    }
    Ok(())
}

/// SIGTERM and SIGINT, from the moment it is made.
pub(crate) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let failed = |e: std::io::Error| Error::internal(format!("cannot listen for signals: {e}"));
            Ok(Self {
                terminate: signal(SignalKind::terminate()).map_err(failed)?,
                interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// The next request to stop.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        drop(tokio::signal::ctrl_c().await);
    }
}

/// A thread of its own: a blocked read cannot be taken back, and must not keep a runtime from ending.
fn end_of_stdin() -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let mut bytes = [0u8; 256];
        while matches!(std::io::stdin().lock().read(&mut bytes), Ok(n) if n > 0) {}
        let _ = ended.send(());
    });
    end
}
