//! The desk where offers are decided: who may order what, whose turn it is, what was ordered before.
//!
//! What no honest coordinator offers (a forged order, a nonce used twice, absurd sizes) is a breach, which the network counts
//! against its sender; everything else that does not fit is a refusal and costs nothing.
//!
//! Pure: time and identities are arguments, decisions are values. Slots go to whoever holds fewest; among equals, to
//! whoever was served longest ago. A coordinator that was turned away keeps its turn for [`TURN`].

use std::{collections::HashMap, time::Duration};

use conun_types::{
    MemoryClass, NodeId, TaskOffer, TaskOrder,
    eip712::Domain,
    lease::LeaseKind,
    port::OfferReply,
    profile,
    task::MAX_ENVELOPE,
    wire::{MAX_BLOCK, MAX_LIST},
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
    /// The accepted orders, by nonce.
    seen: HashMap<u64, Seen>,
    turned_away: Option<Duration>,
    last_served: u64,
}

/// An order that was accepted.
#[derive(Debug)]
struct Seen {
    /// Its `hashStruct`: whether the nonce comes back with the same order or with another one.
    hash: [u8; 32],
    /// Unix seconds after which the order is void anyway.
    deadline: u64,
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
        if let Err(declined) = self.check(&from, offer, now.as_secs()) {
            return declined;
        }
        self.forget(now);
        if !self.coordinators.contains_key(&from) && self.coordinators.len() >= MAX_COORDINATORS {
            return OfferReply::Busy { retry_after: RETRY_AFTER };
        }
        let order = &offer.order.order;
        let Ok(hash) = order.struct_hash() else { return OfferReply::Breach("the order cannot be signed".into()) };
        if let Some(seen) = self.coordinators.get(&from).and_then(|c| c.seen.get(&order.nonce)) {
            return match seen.hash == hash {
                // Harmless, and what is left of a lost answer: whoever asks again with the very same order does not cheat.
                true => OfferReply::Refused("this order was accepted before".into()),
                // Nonces are drawn from 2^53: honest ones do not meet among the few that are remembered.
                false => OfferReply::Breach("the nonce of this order was used for another one".into()),
            };
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
        coordinator.seen.insert(order.nonce, Seen { hash, deadline: order.deadline });
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

    /// Whether an offer of `from` could be taken at `now` (Unix seconds) if there is room.
    ///
    /// # Errors
    /// What is to be answered instead, with the reason.
    pub fn check(&self, from: &NodeId, offer: &TaskOffer, now: u64) -> Result<(), OfferReply> {
        self.no_breach(from, offer).map_err(|reason| OfferReply::Breach(reason.to_owned()))?;
        self.fits(from, offer, now).map_err(|reason| OfferReply::Refused(reason.to_owned()))
    }

    /// What holds for every offer of an honest coordinator, whatever it knows of this node. It knows the domain: nodes tell
    /// it in each `Hello`, and who works in another one offers them nothing.
    fn no_breach(&self, from: &NodeId, offer: &TaskOffer) -> Result<(), &'static str> {
        let requester = offer.order.requester(&self.terms.domain);
        first_broken([
            (offer.order.order.provider == self.terms.id, "the order is for another node"),
            (requester.is_ok_and(|r| r == *from), "the order is not signed by you"),
            (offer.envelope_len <= MAX_ENVELOPE as u64, "the task is too large"),
            (offer.sources.len() <= MAX_LIST, "too many inputs"),
            (offer.sources.iter().all(|source| source.len <= MAX_BLOCK), "an input is larger than any block"),
        ])
    }

    /// What an honest coordinator may be wrong about: settings of this node, and clocks.
    fn fits(&self, from: &NodeId, offer: &TaskOffer, now: u64) -> Result<(), &'static str> {
        let (terms, order) = (&self.terms, &offer.order.order);
        first_broken([
            (terms.welcome(from), "this node serves other coordinators"),
            (offer.profile == profile::hash(), "this node runs another execution profile"),
            (order.deadline > now, "the order's deadline has passed"),
            (order.deadline <= now.saturating_add(LONGEST_DEADLINE), "the order's deadline is too far away"),
            (offer.memory <= terms.memory, "this node has not that much memory"),
            (offer.lease.kind == LeaseKind::Job, "a task's blocks need a job's lease"),
            (offer.lease.expires > now, "the lease is over"),
        ])
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
            coordinator.seen.retain(|_, seen| seen.deadline > now.as_secs());
        }
        self.coordinators.retain(|_, c| {
            let waits = c.turned_away.is_some_and(|since| now.saturating_sub(since) < TURN);
            waits || !c.open.is_empty() || !c.seen.is_empty()
        });
    }
}

/// The reason of the first rule that does not hold.
fn first_broken<const N: usize>(rules: [(bool, &'static str); N]) -> Result<(), &'static str> {
    rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, reason)| Err(reason))
}

#[cfg(test)]
mod tests {
    use conun_types::{AccountId, Amount, Capability, Cid, JobId, Lease, LeaseId, NodeKey, OsRng, SignedOrder, Source};

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

    fn breach(reply: OfferReply, why: &str) {
        let OfferReply::Breach(reason) = &reply else { panic!("{reply:?}, expected a breach: {why}") };
        assert!(reason.contains(why), "{reason} should say {why}");
    }

    #[test]
    fn what_no_honest_coordinator_offers_is_a_breach() {
        let world = World::new();
        let (me, good) = (world.requester.id(), world.offer(&world.requester, 1));
        let mut desk = world.desk(2, vec![]);
        breach(desk.offer(world.other.id(), &good, NOW), "not signed by you");
        let forge = |change: fn(&mut TaskOffer)| {
            let mut forged = good.clone();
            change(&mut forged);
            forged
        };
        breach(desk.offer(me, &forge(|o| o.order.order.price = Amount(9)), NOW), "not signed by you");
        breach(desk.offer(me, &forge(|o| o.order.order.task_cid = Cid::raw(b"x")), NOW), "not signed by you");
        let elsewhere = TaskOrder { provider: world.other.id(), ..good.order.order.clone() };
        let elsewhere = SignedOrder::sign(elsewhere, &Domain::default(), &world.requester).unwrap();
        breach(desk.offer(me, &TaskOffer { order: elsewhere, ..good.clone() }, NOW), "another node");
        breach(desk.offer(me, &forge(|o| o.envelope_len = MAX_ENVELOPE as u64 + 1), NOW), "too large");
        let source = Source { cid: Cid::raw(b"s"), len: 1, holders: Vec::new(), recovery: None };
        let huge = Source { len: MAX_BLOCK + 1, ..source.clone() };
        breach(desk.offer(me, &TaskOffer { sources: vec![source.clone(), huge], ..good.clone() }, NOW), "larger");
        let many = vec![source; MAX_LIST + 1];
        breach(desk.offer(me, &TaskOffer { sources: many, ..good.clone() }, NOW), "too many inputs");
        // Whom the node does not serve may not do so either.
        breach(
            world.desk(2, vec![world.other.id()]).offer(me, &forge(|o| o.envelope_len = u64::MAX), NOW),
            "too large",
        );
        assert_eq!(desk.running(), 0);
        assert_eq!(desk.offer(me, &good, NOW), OfferReply::Accept);
    }

    #[test]
    fn a_nonce_is_good_for_one_order() {
        let world = World::new();
        let (me, first) = (world.requester.id(), world.offer(&world.requester, 7));
        let mut desk = world.desk(1, vec![]);
        let reused = |change: fn(&mut TaskOrder)| {
            let mut order = first.order.order.clone();
            change(&mut order);
            TaskOffer {
                order: SignedOrder::sign(order, &Domain::default(), &world.requester).unwrap(),
                ..first.clone()
            }
        };
        let (task, job) = (reused(|o| o.task_cid = Cid::raw(b"other")), reused(|o| o.job = JobId([1; 16])));
        let later = reused(|o| o.deadline += 1);
        assert_eq!(desk.offer(me, &first, NOW), OfferReply::Accept);
        for other in [&task, &job, &later] {
            breach(desk.offer(me, other, NOW), "nonce");
        }
        // The very same order again, also with other words about where its inputs are, is no breach.
        refused(desk.offer(me, &first, NOW), "before");
        refused(desk.offer(me, &TaskOffer { timeout_ms: 5, ..first.clone() }, NOW), "before");
        desk.close(&me, &first.order.order);
        breach(desk.offer(me, &task, NOW), "nonce");
        // Nonces are a coordinator's own: another one may draw the same. Who was told to come back used none up.
        let theirs = world.offer(&world.other, 7);
        assert_eq!(desk.offer(world.other.id(), &theirs, NOW), OfferReply::Accept);
        let busy = world.offer(&world.requester, 8);
        assert!(matches!(desk.offer(me, &busy, NOW), OfferReply::Busy { .. }));
        desk.close(&world.other.id(), &theirs.order.order);
        assert_eq!(desk.offer(me, &TaskOffer { timeout_ms: 5, ..busy }, NOW), OfferReply::Accept);
    }

    #[test]
    fn offers_that_do_not_fit_are_refused_with_the_reason() {
        let world = World::new();
        let (me, good) = (world.requester.id(), world.offer(&world.requester, 1));
        let mut desk = world.desk(2, vec![]);
        refused(desk.offer(me, &TaskOffer { profile: [0; 32], ..good.clone() }, NOW), "profile");
        refused(desk.offer(me, &TaskOffer { memory: MemoryClass::Large, ..good.clone() }, NOW), "memory");
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
