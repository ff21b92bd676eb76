//! Who is connected, where it listens, and what it last said of itself. A table; the driver and the greeter write it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError, RwLock},
};

use conun_types::{
    NodeId, PeerAddr,
    wire::{Hello, PROTOCOL_VERSION},
};
use tokio::sync::watch;

use crate::{
    gate::lock,
    ids::MAX_ADDRS,
    server::PeerList,
    wire::{MAX_PEERS, Protocol},
};

#[derive(Default)]
struct Entry {
    /// Where we reached it; none where it came to us.
    dialled: Option<String>,
    /// Where it says that it listens.
    listens: Vec<String>,
    /// Protocols that it says it speaks, once it said so.
    speaks: Option<Vec<Protocol>>,
    hello: Option<Hello>,
}

impl Entry {
    fn addr(&self, id: NodeId) -> PeerAddr {
        let mut addrs: Vec<String> = self.dialled.iter().cloned().collect();
        addrs.extend(self.listens.iter().filter(|a| Some(*a) != self.dialled.as_ref()).cloned());
        addrs.truncate(MAX_ADDRS);
        PeerAddr { id, addrs }
    }

    fn volunteers(&self) -> Option<&Hello> {
        self.hello.as_ref().filter(|hello| hello.volunteer && hello.version == PROTOCOL_VERSION)
    }
}

/// The connected peers. As large as the limit on connections lets it become.
pub(crate) struct PeerTable {
    entries: Mutex<HashMap<NodeId, Entry>>,
    listening: RwLock<Vec<String>>,
    changes: watch::Sender<()>,
}

impl PeerTable {
    pub(crate) fn new() -> Self {
        Self { entries: Mutex::default(), listening: RwLock::default(), changes: watch::Sender::new(()) }
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<NodeId, Entry>) -> T) -> T {
        let result = change(&mut lock(&self.entries));
        self.changes.send_replace(());
        result
    }

    /// A connection to `id` was made, by us at `dialled` or by it.
    pub(crate) fn connected(&self, id: NodeId, dialled: Option<String>) {
        self.change(|entries| {
            let entry = entries.entry(id).or_default();
            entry.dialled = dialled.or(entry.dialled.take());
        });
    }

    /// The last connection to `id` is gone.
    pub(crate) fn disconnected(&self, id: &NodeId) {
        self.change(|entries| entries.remove(id));
    }

    /// What `id` says of its addresses and protocols.
    pub(crate) fn identified(&self, id: &NodeId, listens: Vec<String>, speaks: Vec<Protocol>) {
        self.change(|entries| {
            if let Some(entry) = entries.get_mut(id) {
                entry.listens = listens;
                entry.speaks = Some(speaks);
            }
        });
    }

    /// What `id` answered to `Hello`; none where it did not.
    pub(crate) fn greeted(&self, id: &NodeId, hello: Option<Hello>) {
        self.change(|entries| {
            if let Some(entry) = entries.get_mut(id) {
                entry.hello = hello;
            }
        });
    }

    /// Our own addresses.
    pub(crate) fn listening(&self) -> Vec<String> {
        self.listening.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins (`on`) or stops listening at `addr`.
    pub(crate) fn listen(&self, addr: String, on: bool) {
        let mut listening = self.listening.write().unwrap_or_else(PoisonError::into_inner);
        listening.retain(|known| *known != addr);
        if on {
            listening.push(addr);
        }
    }

    /// Whether `id` is connected.
    pub(crate) fn has(&self, id: &NodeId) -> bool {
        lock(&self.entries).contains_key(id)
    }

    /// Number of connected peers.
    pub(crate) fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// False where `id` is known not to speak `protocol`.
    pub(crate) fn may_speak(&self, id: &NodeId, protocol: Protocol) -> bool {
        lock(&self.entries).get(id).and_then(|e| e.speaks.as_ref()).is_none_or(|speaks| speaks.contains(&protocol))
    }

    /// Where `id` is found.
    pub(crate) fn addr(&self, id: &NodeId) -> Option<PeerAddr> {
        lock(&self.entries).get(id).map(|entry| entry.addr(*id))
    }

    /// The volunteers, in the order of their ids.
    pub(crate) fn volunteers(&self) -> Vec<(PeerAddr, Hello)> {
        let entries = lock(&self.entries);
        let list = entries.iter().filter_map(|(id, e)| e.volunteers().map(|h| (e.addr(*id), h.clone())));
        let mut list: Vec<_> = list.collect();
        list.sort_by_key(|(peer, _)| peer.id);
        list
    }

    /// Tells of every change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

impl PeerList for PeerTable {
    fn known_to(&self, asker: NodeId) -> Vec<PeerAddr> {
        let entries = lock(&self.entries);
        let peers = entries.iter().filter(|(id, e)| **id != asker && !(e.listens.is_empty() && e.dialled.is_none()));
        peers.map(|(id, entry)| entry.addr(*id)).take(MAX_PEERS).collect()
    }
}

#[cfg(test)]
mod tests {
    use conun_types::{NodeKey, OsRng, port::Volunteer};

    use super::*;
    use crate::ClientOnly;

    fn id() -> NodeId {
        NodeKey::generate(&OsRng).id()
    }

    #[test]
    fn only_greeting_volunteers_of_this_version_count() {
        let table = PeerTable::new();
        let [node, other, silent] = [(); 3].map(|()| id());
        for id in [node, other, silent] {
            table.connected(id, Some("/ip4/127.0.0.1/tcp/1".to_owned()));
        }
        let hello = Hello { volunteer: true, ..ClientOnly::default().hello() };
        table.greeted(&node, Some(hello.clone()));
        table.greeted(&other, Some(Hello { version: 2, ..hello.clone() }));
        table.greeted(&id(), Some(hello));
        let ids: Vec<_> = table.volunteers().into_iter().map(|(peer, _)| peer.id).collect();
        assert_eq!(ids, [node]);
        table.disconnected(&node);
        assert!(table.volunteers().is_empty());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn askers_hear_of_others_that_can_be_reached() {
        let table = PeerTable::new();
        let [asker, listens, hidden] = [(); 3].map(|()| id());
        for id in [asker, listens, hidden] {
            table.connected(id, None);
        }
        for id in [asker, listens] {
            table.identified(&id, vec!["/ip4/127.0.0.1/tcp/2".to_owned()], vec![Protocol::Control]);
        }
        let known: Vec<_> = table.known_to(asker).into_iter().map(|peer| peer.id).collect();
        assert_eq!(known, [listens]);
        assert!(table.may_speak(&listens, Protocol::Control) && !table.may_speak(&listens, Protocol::Task));
        assert!(table.may_speak(&hidden, Protocol::Task), "not known to lack it");
    }
}
