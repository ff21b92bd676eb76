//! Where to look for peers. [`Bootstrap`] knows a fixed list and what connected peers tell; a distributed hash table
//! or a registry on a chain can stand in its place. It decides whom to dial; the host dials and keeps the waits.

use std::{collections::HashMap, sync::Mutex};

use conun_types::{NodeId, PeerAddr, Result};

use crate::{gate::lock, ids};

/// Somebody to dial.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Who it should be; none: whoever answers.
    pub id: Option<NodeId>,
    /// Where: multiaddresses without `/p2p/…`.
    pub addrs: Vec<String>,
}

/// A source of peers to dial.
pub trait Discovery: Send + Sync + 'static {
    /// Whom to be connected to. Asked again and again; those connected already are skipped by the caller.
    fn candidates(&self) -> Vec<Candidate>;

    /// A connected peer named another one. It may lie: nothing follows from it but a dial.
    fn learnt(&self, peer: PeerAddr);

    /// A dial of `candidate` failed, for the `times`-th time in a row.
    fn failed(&self, candidate: &Candidate, times: u32);
}

/// A fixed list of first peers, which are dialled for ever, and the peers that they name, which are given up after a
/// few failures.
pub struct Bootstrap {
    fixed: Vec<Candidate>,
    learnt: Mutex<HashMap<NodeId, PeerAddr>>,
}

impl Bootstrap {
    /// Most peers remembered from what others say.
    const MOST: usize = 1024;
    /// Failures after which such a peer is forgotten (until it is named again).
    const GIVE_UP: u32 = 3;

    /// Reads the list.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Usage`] naming the first address that cannot be read.
    pub fn new(addrs: &[String]) -> Result<Self> {
        let candidate = |text: &String| {
            let (id, addr) = ids::parse_addr(text)?;
            Ok(Candidate { id, addrs: vec![addr.to_string()] })
        };
        let fixed = addrs.iter().map(candidate).collect::<Result<_>>()?;
        Ok(Self { fixed, learnt: Mutex::default() })
    }
}

impl Discovery for Bootstrap {
    fn candidates(&self) -> Vec<Candidate> {
        let learnt = lock(&self.learnt);
        let learnt = learnt.values().map(|peer| Candidate { id: Some(peer.id), addrs: peer.addrs.clone() });
        self.fixed.iter().cloned().chain(learnt).collect()
    }

    fn learnt(&self, peer: PeerAddr) {
        let addrs: Vec<String> = ids::dialable(&peer).into_iter().map(|addr| addr.to_string()).collect();
        if addrs.is_empty() {
            return;
        }
        let mut learnt = lock(&self.learnt);
        // The first word counts until it has proved wrong: a liar must not be able to overwrite a good address.
        if learnt.len() < Self::MOST {
            learnt.entry(peer.id).or_insert(PeerAddr { id: peer.id, addrs });
        }
    }

    fn failed(&self, candidate: &Candidate, times: u32) {
        if let Some(id) = candidate.id.filter(|_| times >= Self::GIVE_UP) {
            lock(&self.learnt).remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use conun_types::{NodeKey, OsRng};

    use super::*;

    #[test]
    fn fixed_peers_stay_and_named_ones_are_given_up() -> Result<()> {
        let fixed = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", NodeKey::generate(&OsRng).id());
        let list = Bootstrap::new(&[fixed, "/ip4/127.0.0.1/tcp/2".to_owned()])?;
        let named = PeerAddr { id: NodeKey::generate(&OsRng).id(), addrs: vec!["/ip4/127.0.0.1/tcp/3".to_owned()] };
        list.learnt(named.clone());
        list.learnt(PeerAddr { id: NodeKey::generate(&OsRng).id(), addrs: vec!["/dns/evil/udp/1".to_owned()] });
        assert_eq!(list.candidates().len(), 3);
        for candidate in list.candidates() {
            list.failed(&candidate, 1);
        }
        assert_eq!(list.candidates().len(), 3);
        for candidate in list.candidates() {
            list.failed(&candidate, Bootstrap::GIVE_UP);
        }
        assert_eq!(list.candidates().len(), 2);
        assert!(Bootstrap::new(&["nonsense".to_owned()]).is_err());
        Ok(())
    }
}
