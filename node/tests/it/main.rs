//! The volunteer over real plans, real Parquet and real runner processes.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;
mod hostile;
#[path = "../../../network/tests/support/log.rs"]
mod log;
mod twins;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use common::{Node, Shard, Task, World, config, read_task, shard, source, sum_task};
use conun_executor::{BlockReaderExec, canonical};
use conun_node::LiarMode;
use conun_storage::{CodeSpec, erasure};
use conun_types::{
    Answer, Capability, Cid, Clock, Failure, InputBlock, Lease, LeaseId, LeaseKind, MemoryClass, NodeKey, OsRng,
    Outcome, Recovery, Source, SystemClock, TaskEnvelope, TaskOffer, Volume, Vote, WorkUnits,
    eip712::Domain,
    port::{CallError, Network, OfferReply, Volunteer},
    profile,
    task::outputs_root,
    wire::{BlockError, ControlReply, ControlRequest, Pointer, WriteBlock},
};
use datafusion::physical_plan::{ExecutionPlan, Partitioning, limit::GlobalLimitExec};

fn vote(answer: Answer) -> Vote {
    match answer.outcome {
        Outcome::Done(vote) => vote,
        Outcome::Failed(failure) => panic!("{failure}"),
    }
}

fn failure(answer: Answer) -> Failure {
    match answer.outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Done(vote) => panic!("{vote:?}"),
    }
}

fn as_input(vote: &Vote) -> InputBlock {
    let block = vote.outputs[0];
    InputBlock { cid: block.cid, volume: Volume { rows: block.rows, bytes: block.bytes } }
}

async fn with_shard(world: &World, liar: Option<LiarMode>) -> (Node, Shard, Task) {
    let node = world.node(liar);
    let shard = shard(300);
    world.put(&node, &shard.bytes).await;
    let task = sum_task(&shard, &[&node]);
    (node, shard, task)
}

#[tokio::test]
async fn an_honest_node_votes_signs_and_serves() {
    let world = World::new();
    let (node, _, task) = with_shard(&world, None).await;
    let (offer, answer) = world.run(&node, &task).await;
    assert!(answer.complaints.is_empty());
    let vote = vote(answer);
    vote.receipt.check(&offer.order.order, &Domain::default()).unwrap();
    let receipt = &vote.receipt.receipt;
    let output = Volume { rows: receipt.rows, bytes: receipt.bytes };
    assert_eq!(receipt.outputs_root, outputs_root(&vote.outputs));
    assert_eq!(receipt.inputs_root, task.envelope.inputs_root());
    assert_eq!(receipt.units, WorkUnits::of(task.envelope.input_volume(), output));
    assert_eq!((receipt.profile, receipt.rows), (profile::hash(), 3));

    // The block: for bearers of the capability only.
    let cid = vote.outputs[0].cid;
    let bytes = world.read(&node, cid, Some(offer.capability)).await.unwrap();
    let (_, batches) = canonical::decode(&bytes).unwrap();
    assert_eq!(batches[0].num_rows(), 3);
    // Who cannot open it does not even learn that it is there.
    let wrong = Some(Capability([9; 16]));
    for (cid, capability) in [(cid, None), (cid, wrong), (Cid::raw(b"nothing"), None)] {
        let missing = world.read(&node, cid, capability).await.unwrap_err();
        assert!(matches!(missing, CallError::Block { error: BlockError::NotFound, .. }), "{missing}");
    }
    assert!(world.read(&node, task.envelope.shards[0].cid, None).await.is_ok(), "tables are public");
    let hello = node.volunteer.hello();
    assert!(hello.volunteer && hello.store_used > 0 && hello.running == 0 && hello.cores == 2);
}

#[tokio::test]
async fn replicas_agree_and_the_next_stage_reads_from_either() {
    let world = World::new();
    let (first, shard, _) = with_shard(&world, None).await;
    let second = world.node(None);
    let task = sum_task(&shard, &[&first]);
    let (offer, answer) = world.run(&first, &task).await;
    let (_, other) = world.run(&second, &task).await;
    let (answer, other) = (vote(answer), vote(other));
    assert_eq!(answer.outputs, other.outputs, "the second fetched the shard from the first");

    let input = as_input(&answer);
    let found = source(input.cid, input.volume.bytes, &[&first], Some(offer.capability));
    let schema = canonical::decode(&world.read(&first, input.cid, Some(offer.capability)).await.unwrap()).unwrap().0;
    let third = world.node(None);
    let (_, read) = world.run(&third, &read_task(schema.clone(), input, found)).await;
    assert_eq!(vote(read).outputs[0].cid, input.cid, "reading and writing a canonical block changes nothing");

    // Without the capability nobody reads the block: no stranger, not the node that made it, nor one that fetched it.
    let unopened = || read_task(schema.clone(), input, source(input.cid, input.volume.bytes, &[&first], None));
    for node in [&world.node(None), &first, &third] {
        let (_, denied) = world.run(node, &unopened()).await;
        assert_eq!(failure(denied), Failure::InputMissing(input.cid));
    }
}

#[tokio::test]
async fn an_input_that_is_not_to_be_had_ends_a_task_that_has_not_come_to_it() {
    let world = World::new();
    let (node, _, task) = with_shard(&world, None).await;
    let gone = world.node(None);
    let (offer, answer) = world.run(&node, &task).await;
    let here = as_input(&vote(answer));
    let schema = canonical::decode(&world.read(&node, here.cid, Some(offer.capability)).await.unwrap()).unwrap().0;
    let there = InputBlock { cid: Cid::raw(b"gone"), ..here };
    let found = |block: &InputBlock, holder| source(block.cid, block.volume.bytes, &[holder], Some(offer.capability));
    let sources = vec![found(&here, &node), found(&there, &gone)];
    let partitions = vec![vec![here, there]];
    let reader = BlockReaderExec::try_new(schema, partitions, Partitioning::UnknownPartitioning(1)).unwrap();
    // The first block has all the rows that it takes.
    let first = GlobalLimitExec::new(Arc::new(reader), 0, Some(1));
    let task = Task::new(&(Arc::new(first) as Arc<dyn ExecutionPlan>), Vec::new(), vec![here, there], sources);
    let (_, answer) = world.run(&node, &task).await;
    assert_eq!(failure(answer), Failure::InputMissing(there.cid));
}

#[tokio::test]
async fn what_was_not_ordered_is_not_run() {
    let world = World::new();
    let (node, shard, task) = with_shard(&world, None).await;
    let me = world.coordinator.id();
    // Another envelope than the one that was ordered.
    let other = TaskEnvelope { task: 7, ..task.envelope.clone() };
    let other = Task::of(other, task.sources.clone());
    let offer = world.offer(&node, &task);
    let refused = world.try_offer(&node, &other, &offer).await.unwrap_err();
    assert!(matches!(&refused, CallError::Refused { reason, .. } if reason.contains("ordered")), "{refused}");
    assert_eq!(node.volunteer.hello().running, 0);
    // Nor where nobody looked at it beforehand.
    let again = world.offer(&node, &task);
    assert_eq!(node.volunteer.offer(me, &again).await, OfferReply::Accept);
    let refused = failure(node.volunteer.run(me, again, other.bytes.clone()).await);
    assert!(matches!(&refused, Failure::Refused(why) if why.contains("ordered")), "{refused}");
    // The same order again.
    assert!(matches!(node.volunteer.offer(me, &offer).await, OfferReply::Refused(why) if why.contains("before")));
    // A stranger with the order of another.
    let stranger = NodeKey::generate(&OsRng);
    let theirs = world.offer(&node, &task);
    assert!(matches!(node.volunteer.offer(stranger.id(), &theirs).await, OfferReply::Breach(_)));
    // Another profile inside than outside.
    let disguised = TaskEnvelope { profile: [7; 32], ..task.envelope.clone() };
    let disguised = Task::of(disguised, task.sources.clone());
    let offer = TaskOffer { profile: profile::hash(), ..world.offer(&node, &disguised) };
    let refused = world.try_offer(&node, &disguised, &offer).await.unwrap_err();
    assert!(matches!(&refused, CallError::Refused { reason, .. } if reason.contains("profile")), "{refused}");
    // Run without an offer.
    let unoffered = world.offer(&node, &task);
    let refused = failure(node.volunteer.run(me, unoffered, task.bytes.clone()).await);
    assert!(matches!(refused, Failure::Refused(_)));
    // A released offer.
    let released = world.offer(&node, &task);
    assert_eq!(node.volunteer.offer(me, &released).await, OfferReply::Accept);
    assert_eq!(node.volunteer.hello().running, 1);
    node.volunteer.release(me, &released);
    assert_eq!(node.volunteer.hello().running, 0);
    // The node is well.
    assert!(matches!(world.run(&node, &sum_task(&shard, &[])).await.1.outcome, Outcome::Done(_)));
}

#[tokio::test]
async fn holders_are_asked_in_order_and_wrong_bytes_are_told() {
    let world = World::new();
    let (good, shard, _) = with_shard(&world, None).await;
    let (corrupt, _, _) = with_shard(&world, Some(LiarMode::CorruptBlock)).await;
    let gone = world.node(None);
    let task = sum_task(&shard, &[&gone, &corrupt, &good]);
    let runner = world.node(None);
    let (_, answer) = world.run(&runner, &task).await;
    assert_eq!(answer.complaints.len(), 1);
    assert_eq!((answer.complaints[0].peer, answer.complaints[0].cid), (corrupt.key.id(), shard.input.cid));
    vote(answer);

    let alone = world.node(None);
    let (_, answer) = world.run(&alone, &sum_task(&shard, &[&corrupt])).await;
    assert_eq!(answer.complaints.len(), 1, "complaints come with failures too");
    assert_eq!(failure(answer), Failure::InputMissing(shard.input.cid));
}

#[tokio::test]
async fn the_next_holder_is_asked_beside_one_that_says_nothing() {
    let world = World::new();
    let (good, shard, _) = with_shard(&world, None).await;
    let silent = world.node(None);
    world.wire.silent.lock().unwrap().insert(silent.key.id());
    let (_, answer) = world.run(&world.node(None), &sum_task(&shard, &[&silent, &good])).await;
    vote(answer);
    assert_eq!(world.wire.hedged.load(Ordering::SeqCst), 1, "the first was not given up before");
}

#[tokio::test]
async fn a_lost_shard_is_decoded_from_its_group() {
    let world = World::new();
    let (first, second) = (world.node(None), world.node(None));
    let (shard, other) = (shard(300), shard(200));
    let code = erasure::code(CodeSpec::new(2, 1).unwrap()).unwrap();
    let parity = code.encode(&[shard.bytes.clone(), other.bytes.clone()]).unwrap().remove(0);
    world.put(&first, &other.bytes).await;
    let parity_cid = world.put(&second, &parity).await;
    let (len, padded_len) = (shard.input.volume.bytes, parity.len() as u64);
    let lost = Source { cid: shard.input.cid, len, holders: Vec::new(), recovery: None };
    let kept = source(other.input.cid, other.input.volume.bytes, &[&first], None);
    let members = vec![lost.clone(), kept, source(parity_cid, padded_len, &[&second], None)];
    let recovery = Recovery { data: 2, parity: 1, padded_len, index: 0, members };
    let mut task = sum_task(&shard, &[]);
    task.sources = vec![Source { recovery: Some(recovery.clone()), ..lost }];
    let node = world.node(None);
    vote(world.run(&node, &task).await.1);

    // Also while the one who holds it says nothing.
    let silent = world.node(None);
    world.wire.silent.lock().unwrap().insert(silent.key.id());
    let held = source(shard.input.cid, len, &[&silent], None);
    task.sources = vec![Source { recovery: Some(recovery), ..held }];
    assert_eq!(world.wire.hedged.load(Ordering::SeqCst), 0);
    vote(world.run(&world.node(None), &task).await.1);
    assert_eq!(world.wire.hedged.load(Ordering::SeqCst), 2, "both others were asked beside it");
}

#[tokio::test]
async fn results_and_capabilities_survive_a_restart() {
    let world = World::new();
    let (node, _, task) = with_shard(&world, None).await;
    let (offer, answer) = world.run(&node, &task).await;
    let cid = vote(answer).outputs[0].cid;
    let Node { service, volunteer, key, folder } = node;
    world.wire.join(key.id(), world.node(None).volunteer);
    drop((service, volunteer));
    let again = world.start(config(&folder), key, folder);
    assert!(world.read(&again, cid, Some(offer.capability)).await.is_ok());
    assert!(world.read(&again, cid, None).await.is_err());
}

#[tokio::test]
async fn blocks_go_when_their_lease_ends() {
    let world = World::new();
    let (node, _, task) = with_shard(&world, None).await;
    let mut offer = world.offer(&node, &task);
    offer.lease.expires = SystemClock.unix_seconds() + 1;
    let cid = vote(world.run_offer(&node, &task, &offer).await).outputs[0].cid;
    assert!(world.read(&node, cid, Some(offer.capability)).await.is_ok());
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if world.read(&node, cid, Some(offer.capability)).await.is_err() {
            return;
        }
    }
    panic!("the block outlived its lease");
}

#[tokio::test]
async fn a_cancelled_task_frees_its_slot_and_its_runner() {
    let world = World::new();
    let (node, shard, task) = with_shard(&world, Some(LiarMode::Stall)).await;
    let (_, honest_task) = (shard, &task);
    let stalled = tokio::time::timeout(Duration::from_millis(200), world.run(&node, honest_task)).await;
    assert!(stalled.is_err(), "it accepts and never answers");
    assert_eq!(node.volunteer.hello().running, 0);
}

#[tokio::test]
async fn too_little_time_is_a_node_failure() {
    let world = World::new();
    let (node, _, task) = with_shard(&world, None).await;
    let offer = TaskOffer { timeout_ms: 0, ..world.offer(&node, &task) };
    assert!(matches!(failure(world.run_offer(&node, &task, &offer).await), Failure::Node(_)));
    vote(world.run(&node, &task).await.1);
}

#[tokio::test]
async fn busy_when_full_and_two_coordinators_share() {
    let world = World::new();
    let node = world.node_with(|config| config.cores = 1);
    let shard = shard(30);
    let task = sum_task(&shard, &[]);
    let me = world.coordinator.id();
    let other = NodeKey::generate(&OsRng);
    let first = world.offer(&node, &task);
    assert_eq!(node.volunteer.offer(me, &first).await, OfferReply::Accept);
    let theirs = world.offer_by(&other, &node, &task);
    assert!(matches!(node.volunteer.offer(other.id(), &theirs).await, OfferReply::Busy { .. }));
    node.volunteer.release(me, &first);
    let second = world.offer(&node, &task);
    assert!(matches!(node.volunteer.offer(me, &second).await, OfferReply::Busy { .. }), "the other is next");
    assert_eq!(node.volunteer.offer(other.id(), &theirs).await, OfferReply::Accept);
}

#[tokio::test]
async fn only_welcome_coordinators_order_and_store() {
    let world = World::new();
    let friend = NodeKey::generate(&OsRng).id();
    let node = world.node_with(|config| config.allow = vec![friend]);
    let shard = shard(30);
    let task = sum_task(&shard, &[]);
    let me = world.coordinator.id();
    let offer = world.offer(&node, &task);
    assert!(matches!(node.volunteer.offer(me, &offer).await, OfferReply::Refused(_)));
    let lease = Lease { id: LeaseId::named("t"), kind: LeaseKind::Table, expires: SystemClock.unix_seconds() + 60 };
    let request = WriteBlock { cid: shard.input.cid, len: shard.bytes.len() as u64, lease };
    assert_eq!(node.volunteer.may_write(me, &request).await, Err(BlockError::Denied));
    assert_eq!(node.volunteer.write_block(me, request.clone(), shard.bytes.clone()).await, Err(BlockError::Denied));
    assert!(node.volunteer.write_block(friend, request, shard.bytes.clone()).await.is_ok());
    let pointer = Pointer::sign(&world.coordinator, "t", 1, None);
    let put = node.volunteer.control(me, ControlRequest::PutPointer(pointer)).await;
    assert!(matches!(put, ControlReply::Refused(_)));
}

#[tokio::test]
async fn control_questions_are_answered() {
    let world = World::new();
    let (node, shard, _) = with_shard(&world, None).await;
    let link = world.link(world.coordinator.id());
    let ask = async |request| link.control(&node.addr(), request).await.unwrap();
    let (known, unknown) = (shard.input.cid, Cid::raw(b"unknown"));
    assert_eq!(ask(ControlRequest::Has(vec![known, unknown])).await, ControlReply::Has(vec![true, false]));
    assert!(matches!(ask(ControlRequest::Hello).await, ControlReply::Hello(hello) if hello.volunteer));
    let pointer = Pointer::sign(&world.coordinator, "flights", 1, Some(known));
    assert_eq!(ask(ControlRequest::PutPointer(pointer.clone())).await, ControlReply::Done);
    let forged = Pointer { version: 2, ..pointer.clone() };
    assert!(matches!(ask(ControlRequest::PutPointer(forged)).await, ControlReply::Refused(_)));
    assert_eq!(ask(ControlRequest::Pointers).await, ControlReply::Pointers(vec![pointer]));
    let lease =
        Lease { id: LeaseId::named("table"), kind: LeaseKind::Table, expires: SystemClock.unix_seconds() + 900 };
    let renewed = ask(ControlRequest::Renew { cids: vec![known, unknown], lease }).await;
    assert_eq!(renewed, ControlReply::Has(vec![true, false]));
    assert_eq!(ask(ControlRequest::EndLease(lease.id)).await, ControlReply::Done);
    assert_eq!(ask(ControlRequest::Has(vec![known])).await, ControlReply::Has(vec![false]));
}

#[tokio::test]
async fn memory_and_size_are_checked_before_anything_runs() {
    let world = World::new();
    let node = world.node_with(|config| config.memory = MemoryClass::Small);
    let shard = shard(30);
    let mut task = sum_task(&shard, &[]);
    task.envelope.memory = MemoryClass::Medium;
    let task = Task::of(task.envelope, task.sources);
    let reply = node.volunteer.offer(world.coordinator.id(), &world.offer(&node, &task)).await;
    assert!(matches!(reply, OfferReply::Refused(why) if why.contains("memory")));
    let absurd = WriteBlock {
        cid: shard.input.cid,
        len: u64::MAX,
        lease: Lease { id: LeaseId::named("t"), kind: LeaseKind::Table, expires: SystemClock.unix_seconds() + 60 },
    };
    assert!(node.volunteer.may_write(world.coordinator.id(), &absurd).await.is_err());
    assert!(node.volunteer.write_block(world.coordinator.id(), absurd, Bytes::from_static(b"x")).await.is_err());
    let _: Arc<dyn Volunteer> = node.volunteer;
}
