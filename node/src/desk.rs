//! The desk where offers are decided: who may order what, whose turn it is, what was ordered before.
//!
//! Pure: time and identities are arguments, decisions are values. Slots go to whoever holds fewest; among equals, to
//! whoever was served longest ago. A coordinator that was turned away keeps its turn for [`TURN`].

use std::{collections::HashMap, time::Duration};

use conun_types::{
    MemoryClass, NodeId, TaskOffer, TaskOrder, eip712::Domain, lease::LeaseKind, port::OfferReply, profile,
    task::MAX_ENVELOPE, wire::MAX_LIST,
};

/// When a coordinator that was turned away should ask again.
const RETRY_AFTER: Duration = Duration::from_millis(40);
/// How long one that was turned away is waited for.
const TURN: Duration = Duration::from_millis(400);
/// Orders that end later are refused: their nonces would have to be remembered that long.
const LONGEST_DEADLINE: u64 = 3600;
/// Orders of one coordinator that are remembered at once.
const MAX_ORDERS: usize = 1 << 16;
/// Coordinators that are remembered at once.
const MAX_COORDINATORS: usize = 1 << 10;

/// What the desk must know of its node.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The node.
    pub id: NodeId,
    /// Tasks at once.
    pub cores: usize,
    /// Largest memory class.
    pub memory: MemoryClass,
    /// Coordinators that may order; empty means all.
    pub allow: Vec<NodeId>,
    /// In which orders are signed.
    pub domain: Domain,
}

impl Terms {
    /// Whether `from` may order and store here.
    #[must_use]
    pub fn welcome(&self, from: &NodeId) -> bool {
        self.allow.is_empty() || self.allow.contains(from)
    }
}

/// The desk.
#[derive(Debug)]
pub struct Desk {
    terms: Terms,
    coordinators: HashMap<NodeId, Coordinator>,
    /// Counts acceptances: a clock that no host can turn.
    served: u64,
}

#[derive(Debug, Default)]
struct Coordinator {
    /// Orders whose slot is held.
    open: Vec<u64>,
    /// Nonces that were accepted, with the deadline after which the order is void anyway.
    seen: HashMap<u64, u64>,
    turned_away: Option<Duration>,
    last_served: u64,
}

impl Desk {
    /// A desk on `terms`.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self { terms, coordinators: HashMap::new(), served: 0 }
    }

    /// What it works on.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Tasks whose slot is held.
    #[must_use]
    pub fn running(&self) -> usize {
        self.coordinators.values().map(|c| c.open.len()).sum()
    }

    /// Decides about an offer of `from` at `now` (since the Unix epoch). An accepted one holds a slot until
    /// [`Desk::close`].
    pub fn offer(&mut self, from: NodeId, offer: &TaskOffer, now: Duration) -> OfferReply {
        if let Err(reason) = self.check(&from, offer, now.as_secs()) {
            return OfferReply::Refused(reason);
        }
        self.forget(now);
        if !self.coordinators.contains_key(&from) && self.coordinators.len() >= MAX_COORDINATORS {
            return OfferReply::Busy { retry_after: RETRY_AFTER };
        }
        let order = &offer.order.order;
        if self.coordinators.get(&from).is_some_and(|c| c.seen.contains_key(&order.nonce)) {
            return OfferReply::Refused("this order was accepted before".into());
        }
        let turn = self.is_turn(&from, now);
        let coordinator = self.coordinators.entry(from).or_default();
        if !turn || coordinator.seen.len() >= MAX_ORDERS {
            coordinator.turned_away = Some(now);
            return OfferReply::Busy { retry_after: RETRY_AFTER };
        }
        self.served += 1;
        coordinator.last_served = self.served;
        coordinator.turned_away = None;
        coordinator.open.push(order.nonce);
        coordinator.seen.insert(order.nonce, order.deadline);
        OfferReply::Accept
    }

    /// Whether `from` holds a slot for `order`.
    #[must_use]
    pub fn is_open(&self, from: &NodeId, order: &TaskOrder) -> bool {
        self.coordinators.get(from).is_some_and(|c| c.open.contains(&order.nonce))
    }

    /// Frees the slot of an accepted order.
    pub fn close(&mut self, from: &NodeId, order: &TaskOrder) {
        if let Some(coordinator) = self.coordinators.get_mut(from) {
            coordinator.open.retain(|nonce| *nonce != order.nonce);
        }
    }

    /// Whether an offer of `from` could be taken at `now` (Unix seconds) if there is room; else why not.
    ///
    /// # Errors
    /// The reason, for the coordinator.
    pub fn check(&self, from: &NodeId, offer: &TaskOffer, now: u64) -> Result<(), String> {
        let (terms, order) = (&self.terms, &offer.order.order);
        let requester = offer.order.requester(&terms.domain);
        let rules = [
            (terms.welcome(from), "this node serves other coordinators"),
            (order.provider == terms.id, "the order is for another node"),
            (requester.is_ok_and(|r| r == *from), "the order is not signed by you"),
            (offer.profile == profile::hash(), "this node runs another execution profile"),
            (order.deadline > now, "the order's deadline has passed"),
            (order.deadline <= now.saturating_add(LONGEST_DEADLINE), "the order's deadline is too far away"),
            (offer.envelope_len <= MAX_ENVELOPE as u64, "the task is too large"),
            (offer.memory <= terms.memory, "this node has not that much memory"),
            (offer.sources.len() <= MAX_LIST, "too many inputs"),
            (offer.lease.kind == LeaseKind::Job, "a task's blocks need a job's lease"),
            (offer.lease.expires > now, "the lease is over"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, reason)| Err(reason.to_owned()))
    }

    /// Whether a slot is free that no other waiting coordinator has a better claim to.
    fn is_turn(&self, from: &NodeId, now: Duration) -> bool {
        let claim = |c: &Coordinator| (c.open.len(), c.last_served);
        let own = self.coordinators.get(from).map_or((0, 0), claim);
        let waits = |c: &Coordinator| c.turned_away.is_some_and(|since| now.saturating_sub(since) < TURN);
        let others = self.coordinators.iter().filter(|(id, _)| *id != from);
        let before = others.filter(|(_, c)| waits(c) && claim(c) < own).count();
        self.running() + before < self.terms.cores
    }

    /// Orders whose deadline has passed cannot be replayed: their nonces need not be remembered.
    fn forget(&mut self, now: Duration) {
        for coordinator in self.coordinators.values_mut() {
            coordinator.seen.retain(|_, deadline| *deadline > now.as_secs());
        }
        self.coordinators.retain(|_, c| {
            let waits = c.turned_away.is_some_and(|since| now.saturating_sub(since) < TURN);
            waits || !c.open.is_empty() || !c.seen.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use conun_types::{AccountId, Amount, Capability, Cid, JobId, Lease, LeaseId, NodeKey, OsRng, SignedOrder};

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    struct World {
        node: NodeKey,
        requester: NodeKey,
        other: NodeKey,
    }

    impl World {
        fn new() -> Self {
            let key = || NodeKey::generate(&OsRng);
            Self { node: key(), requester: key(), other: key() }
        }

        fn desk(&self, cores: usize, allow: Vec<NodeId>) -> Desk {
            let id = self.node.id();
            Desk::new(Terms { id, cores, memory: MemoryClass::Medium, allow, domain: Domain::default() })
        }

        fn offer(&self, by: &NodeKey, nonce: u64) -> TaskOffer {
            self.offer_with(by, nonce, NOW.as_secs() + 60)
        }

        fn offer_with(&self, by: &NodeKey, nonce: u64, deadline: u64) -> TaskOffer {
            let task_cid = Cid::raw(b"task");
            let order = TaskOrder {
                job: JobId([0; 16]),
                task_cid,
                provider: self.node.id(),
                nonce,
                account: AccountId::default(),
                price: Amount::ZERO,
                deadline,
            };
            TaskOffer {
                order: SignedOrder::sign(order, &Domain::default(), by).unwrap(),
                envelope_len: 10,
                profile: profile::hash(),
                memory: MemoryClass::Small,
                timeout_ms: 1000,
                sources: Vec::new(),
                capability: Capability([0; 16]),
                lease: Lease { id: LeaseId::named("j"), kind: LeaseKind::Job, expires: NOW.as_secs() + 600 },
            }
        }
    }

    fn refused(reply: OfferReply, why: &str) {
        let OfferReply::Refused(reason) = &reply else { panic!("{reply:?}, expected a refusal: {why}") };
        assert!(reason.contains(why), "{reason} should say {why}");
    }

    #[test]
    fn offers_that_do_not_fit_are_refused_with_the_reason() {
        let world = World::new();
        let (me, good) = (world.requester.id(), world.offer(&world.requester, 1));
        let mut desk = world.desk(2, vec![]);
        refused(desk.offer(world.other.id(), &good, NOW), "not signed by you");
        let mut forged = good.clone();
        forged.order.order.price = Amount(9);
        refused(desk.offer(me, &forged, NOW), "not signed by you");
        let mut elsewhere = good.clone();
        elsewhere.order.order.provider = world.other.id();
        refused(desk.offer(me, &elsewhere, NOW), "another node");
        refused(desk.offer(me, &TaskOffer { profile: [0; 32], ..good.clone() }, NOW), "profile");
        refused(desk.offer(me, &TaskOffer { memory: MemoryClass::Large, ..good.clone() }, NOW), "memory");
        refused(desk.offer(me, &TaskOffer { envelope_len: u64::MAX, ..good.clone() }, NOW), "too large");
        refused(desk.offer(me, &world.offer_with(&world.requester, 1, NOW.as_secs()), NOW), "passed");
        refused(desk.offer(me, &world.offer_with(&world.requester, 1, u64::MAX), NOW), "far away");
        let pin = Lease { kind: LeaseKind::Pin, ..good.lease };
        refused(desk.offer(me, &TaskOffer { lease: pin, ..good.clone() }, NOW), "lease");
        refused(world.desk(2, vec![world.other.id()]).offer(me, &good, NOW), "other coordinators");
        assert_eq!(desk.running(), 0);
        assert_eq!(world.desk(2, vec![me]).offer(me, &good, NOW), OfferReply::Accept);
    }

    #[test]
    fn an_order_is_filled_once() {
        let world = World::new();
        let (me, offer) = (world.requester.id(), world.offer(&world.requester, 7));
        let mut desk = world.desk(2, vec![]);
        assert_eq!(desk.offer(me, &offer, NOW), OfferReply::Accept);
        assert!(desk.is_open(&me, &offer.order.order) && desk.running() == 1);
        desk.close(&me, &offer.order.order);
        assert!(!desk.is_open(&me, &offer.order.order) && desk.running() == 0);
        refused(desk.offer(me, &offer, NOW), "before");
        // After its deadline the order itself is void.
        refused(desk.offer(me, &offer, NOW + Duration::from_secs(61)), "passed");
    }

    #[test]
    fn full_is_busy_and_a_refused_turn_may_be_repeated() {
        let world = World::new();
        let me = world.requester.id();
        let mut desk = world.desk(1, vec![]);
        let (first, second) = (world.offer(&world.requester, 1), world.offer(&world.requester, 2));
        assert_eq!(desk.offer(me, &first, NOW), OfferReply::Accept);
        assert!(matches!(desk.offer(me, &second, NOW), OfferReply::Busy { .. }));
        desk.close(&me, &first.order.order);
        assert_eq!(desk.offer(me, &second, NOW), OfferReply::Accept);
    }

    #[test]
    fn two_coordinators_share_one_slot_by_turns() {
        let world = World::new();
        let (a, b) = (world.requester.id(), world.other.id());
        let mut desk = world.desk(1, vec![]);
        let mut served = Vec::new();
        let mut holder: Option<(NodeId, TaskOffer)> = None;
        let mut now = NOW;
        for nonce in 0..20 {
            // A always asks first; both ask again at once when the slot is free.
            for (id, key) in [(a, &world.requester), (b, &world.other)] {
                let offer = world.offer(key, nonce);
                if desk.offer(id, &offer, now) == OfferReply::Accept {
                    served.push(id);
                    holder = Some((id, offer));
                }
            }
            let (id, offer) = holder.take().expect("somebody is served in each round");
            desk.close(&id, &offer.order.order);
            now += Duration::from_millis(10);
        }
        let of_a = served.iter().filter(|id| **id == a).count();
        assert_eq!((of_a, served.len()), (10, 20));
    }

    #[test]
    fn a_coordinator_that_left_loses_its_turn() {
        let world = World::new();
        let (a, b) = (world.requester.id(), world.other.id());
        let mut desk = world.desk(1, vec![]);
        let first = world.offer(&world.requester, 1);
        assert_eq!(desk.offer(a, &first, NOW), OfferReply::Accept);
        assert!(matches!(desk.offer(b, &world.offer(&world.other, 1), NOW), OfferReply::Busy { .. }));
        desk.close(&a, &first.order.order);
        let again = world.offer(&world.requester, 2);
        assert!(matches!(desk.offer(a, &again, NOW), OfferReply::Busy { .. }), "B is next");
        assert_eq!(desk.offer(a, &again, NOW + TURN), OfferReply::Accept);
    }
}
