//! Coordinators that offer what no honest one does, over real sockets: each is told why, warned of by name and shut out;
//! nothing runs, and an honest coordinator is served on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use conun_network::{ClientOnly, Host, HostConfig, Timing};
use conun_node::{NodeConfig, NodeService};
use conun_types::{
    Answer, Cid, Clock, InputBlock, InputShard, JobId, MemoryClass, NodeKey, OsRng, OutputSpec, PeerAddr, SignedOrder,
    SystemClock, TaskEnvelope, TaskOffer, TaskOrder, Volume,
    eip712::Domain,
    lease::{Lease, LeaseId, LeaseKind},
    port::{CallError, Network, Volunteer},
    task::MAX_BLOCKS,
    wire::{ControlRequest, MAX_BLOCK, WriteBlock},
};

use super::{
    common::{Node, Task, World, config, shard, sum_task},
    log, vote,
};
/// A node that listens, and a task that it can run.
struct Target {
    world: World,
    node: Node,
    host: Arc<Host>,
    task: Task,
}

async fn host(key: &NodeKey, service: Arc<dyn Volunteer>) -> Arc<Host> {
    // Whom it shuts out does not come back before the test is over.
    let timing = Timing { ban: Duration::from_secs(600), ..Timing::default() };
    Host::start(HostConfig { timing, ..HostConfig::default() }, key, service).await.unwrap()
}

/// A coordinator on a socket of its own.
struct Peer {
    key: NodeKey,
    host: Arc<Host>,
}

impl Peer {
    async fn new() -> Self {
        let key = NodeKey::generate(&OsRng);
        let host = host(&key, Arc::new(ClientOnly::default())).await;
        Self { key, host }
    }

    async fn run(&self, target: &Target, offer: &TaskOffer, envelope: &Bytes) -> Result<Answer, CallError> {
        self.host.run_task(&target.addr(), offer.clone(), envelope.clone()).await
    }
}

impl Target {
    async fn new() -> Self {
        log::capture();
        let folder = tempfile::tempdir().unwrap();
        let key = NodeKey::generate(&OsRng);
        let config = NodeConfig { memory: MemoryClass::Medium, ..config(&folder) };
        let service = NodeService::start(config, key.clone()).unwrap();
        let volunteer = service.volunteer();
        let host = host(&key, volunteer.clone()).await;
        service.attach(host.clone());
        let (world, shard) = (World::new(), shard(300));
        let lease =
            Lease { id: LeaseId::named("t"), kind: LeaseKind::Table, expires: SystemClock.unix_seconds() + 600 };
        let request = WriteBlock { cid: shard.input.cid, len: shard.bytes.len() as u64, lease };
        volunteer.write_block(world.coordinator.id(), request, shard.bytes.clone()).await.unwrap();
        let task = sum_task(&shard, &[]);
        Self { world, node: Node { service, volunteer, key, folder }, host, task }
    }

    fn addr(&self) -> PeerAddr {
        self.host.local_addr()
    }

    /// An offer of `task` by `peer`, as it should be.
    fn offer(&self, peer: &Peer, task: &Task) -> TaskOffer {
        self.world.offer_by(&peer.key, &self.node, task)
    }

    /// The task with another envelope, ordered as it is.
    fn task_with(&self, change: impl FnOnce(&mut TaskEnvelope)) -> Task {
        let mut envelope = self.task.envelope.clone();
        change(&mut envelope);
        Task::of(envelope, self.task.sources.clone())
    }

    /// The peer hears `reason`, is named in a warning of it, and gets no answer to what it asks next.
    async fn assert_shut_out(&self, peer: &Peer, told: Result<Answer, CallError>, reason: &str) {
        let refused = |told: &Result<Answer, CallError>| matches!(told, Err(CallError::Refused { reason: why, .. }) if why.contains(reason));
        assert!(refused(&told), "'{reason}' was expected: {told:?}");
        let began = Instant::now();
        // It may be quicker than the node, which lets it read why first.
        while peer.host.control(&self.addr(), ControlRequest::Hello).await.is_ok() {
            assert!(began.elapsed() < Duration::from_secs(20), "{reason}: it is still served");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let next = peer.run(self, &self.offer(peer, &self.task), &self.task.bytes).await;
        assert!(matches!(next, Err(CallError::Unreachable { .. })), "{reason}: {next:?}");
        let name = peer.host.local_id().to_string();
        assert!(log::warned(&[&name, reason]), "no warning names {name} and '{reason}'");
        assert_eq!(self.node.volunteer.hello().running, 0, "{reason}: its place is given back");
    }
}

/// `offer` with another order, signed by `key`.
fn reordered(offer: TaskOffer, key: &NodeKey, change: impl FnOnce(&mut TaskOrder)) -> TaskOffer {
    let mut order = offer.order.order.clone();
    change(&mut order);
    TaskOffer { order: SignedOrder::sign(order, &Domain::default(), key).unwrap(), ..offer }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_and_stolen_orders_shut_their_sender_out() {
    let target = Target::new().await;
    let honest = Peer::new().await;
    let bytes = &target.task.bytes;

    let forger = Peer::new().await;
    let mut forged = target.offer(&forger, &target.task);
    forged.order.order.deadline += 1;
    let told = forger.run(&target, &forged, bytes).await;
    target.assert_shut_out(&forger, told, "not signed by you").await;

    let thief = Peer::new().await;
    let stolen = target.offer(&honest, &target.task);
    let told = thief.run(&target, &stolen, bytes).await;
    target.assert_shut_out(&thief, told, "not signed by you").await;
    // Its owner may still use it.
    vote(honest.run(&target, &stolen, bytes).await.unwrap());

    let misled = Peer::new().await;
    let elsewhere = reordered(target.offer(&misled, &target.task), &misled.key, |o| o.provider = honest.key.id());
    let told = misled.run(&target, &elsewhere, bytes).await;
    target.assert_shut_out(&misled, told, "for another node").await;

    vote(honest.run(&target, &target.offer(&honest, &target.task), bytes).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nonce_for_another_task_shuts_its_sender_out_and_a_repeated_order_does_not() {
    let target = Target::new().await;
    let peer = Peer::new().await;
    let first = target.offer(&peer, &target.task);
    vote(peer.run(&target, &first, &target.task.bytes).await.unwrap());

    // As after an answer that was lost on its way.
    for _ in 0..3 {
        let again = peer.run(&target, &first, &target.task.bytes).await;
        assert!(
            matches!(&again, Err(CallError::Refused { reason, .. }) if reason.contains("accepted before")),
            "{again:?}"
        );
    }
    vote(peer.run(&target, &target.offer(&peer, &target.task), &target.task.bytes).await.unwrap());
    assert!(!log::warned(&[&peer.host.local_id().to_string()]));

    let other = target.task_with(|envelope| envelope.task = 7);
    let nonce = first.order.order.nonce;
    let replayed = reordered(target.offer(&peer, &other), &peer.key, |order| order.nonce = nonce);
    let told = peer.run(&target, &replayed, &other.bytes).await;
    target.assert_shut_out(&peer, told, "used for another one").await;

    let honest = Peer::new().await;
    vote(honest.run(&target, &target.offer(&honest, &target.task), &target.task.bytes).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envelopes_that_do_not_belong_to_their_order_shut_their_sender_out() {
    let target = Target::new().await;
    let honest = Peer::new().await;
    let another_job = target.task_with(|envelope| envelope.job = JobId([2; 16]));
    let cases = [
        // Ordered as it is, under the number of another job.
        (&another_job, another_job.bytes.clone(), "not the one that was offered"),
        // Other bytes than those that were ordered.
        (&target.task, another_job.bytes.clone(), "not the one that was ordered"),
    ];
    for (ordered, sent, reason) in cases {
        let hostile = Peer::new().await;
        let offer = TaskOffer { envelope_len: sent.len() as u64, ..target.offer(&hostile, ordered) };
        let offer = reordered(offer, &hostile.key, |order| order.job = target.task.envelope.job);
        let told = hostile.run(&target, &offer, &sent).await;
        target.assert_shut_out(&hostile, told, reason).await;
    }
    let garbage = Bytes::from_static(b"no envelope at all");
    let hostile = Peer::new().await;
    let offer = TaskOffer { envelope_len: garbage.len() as u64, ..target.offer(&hostile, &target.task) };
    let offer = reordered(offer, &hostile.key, |order| order.task_cid = Cid::raw(&garbage));
    let told = hostile.run(&target, &offer, &garbage).await;
    target.assert_shut_out(&hostile, told, "malformed").await;

    vote(honest.run(&target, &target.offer(&honest, &target.task), &target.task.bytes).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_counts_shut_their_sender_out() {
    let target = Target::new().await;
    let honest = Peer::new().await;
    let absurd = |volume: Volume| move |e: &mut TaskEnvelope| e.shards[0].volume = volume;
    let input = InputBlock { cid: Cid::raw(b"x"), volume: Volume { rows: 1, bytes: 1 } };
    let tasks = [
        (target.task_with(absurd(Volume { rows: u64::MAX, bytes: 1 })), "than there can be"),
        (target.task_with(absurd(Volume { rows: 1, bytes: u64::MAX })), "than there can be"),
        (target.task_with(|e| e.output = OutputSpec::Hash(u32::MAX)), "than there can be"),
        (target.task_with(|e| e.blocks = vec![input; MAX_BLOCKS + 1]), "inputs"),
        (
            target.task_with(|e| e.shards = vec![InputShard { cid: input.cid, volume: input.volume }; MAX_BLOCKS + 1]),
            "inputs",
        ),
    ];
    for (task, reason) in &tasks {
        let hostile = Peer::new().await;
        let told = hostile.run(&target, &target.offer(&hostile, task), &task.bytes).await;
        target.assert_shut_out(&hostile, told, reason).await;
    }
    let hostile = Peer::new().await;
    let mut offer = target.offer(&hostile, &target.task);
    offer.sources[0].len = MAX_BLOCK + 1;
    let told = hostile.run(&target, &offer, &target.task.bytes).await;
    target.assert_shut_out(&hostile, told, "larger than any block").await;

    vote(honest.run(&target, &target.offer(&honest, &target.task), &target.task.bytes).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordinary_refusals_cost_nothing() {
    let target = Target::new().await;
    let peer = Peer::new().await;
    let good = target.offer(&peer, &target.task);
    let expired = reordered(good.clone(), &peer.key, |order| order.deadline = 1);
    let refusals = [
        (TaskOffer { profile: [7; 32], ..good.clone() }, "profile"),
        (TaskOffer { memory: MemoryClass::Large, ..good.clone() }, "memory"),
        (expired, "passed"),
    ];
    for (offer, reason) in refusals {
        let told = peer.run(&target, &offer, &target.task.bytes).await;
        assert!(matches!(&told, Err(CallError::Refused { reason: why, .. }) if why.contains(reason)), "{told:?}");
    }
    // A task in a format that this node does not know yet.
    let newer = target.task_with(|envelope| envelope.version += 1);
    let answer = peer.run(&target, &target.offer(&peer, &newer), &newer.bytes).await.unwrap();
    assert!(super::failure(answer).to_string().contains("task format 2"));
    vote(peer.run(&target, &good, &target.task.bytes).await.unwrap());
    assert!(!log::warned(&[&peer.host.local_id().to_string()]));
}
