//! Hosts over real sockets on loopback: finding each other, blocks, tasks, faults.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use bytes::Bytes;
use conun_network::{Host, HostConfig};
use conun_types::{
    Cid, ErrorKind, NodeKey, OsRng, Outcome, PeerAddr,
    port::{CallError, Network, OfferReply},
    wire::{BlockError, ControlReply, ControlRequest, ReadBlock, WriteBlock},
};
use futures::future::join_all;
use proptest::prelude::*;
use support::{Fake, block, config, coordinator, misbehaved, node, offer, unreachable, until, write_of};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_coordinator_meets_a_volunteer() {
    let fake = Fake::new();
    let node = node(&fake, &[]).await;
    let coordinator = coordinator(&[&node]).await;
    coordinator.wait_for(1, SOON).await.unwrap();
    let (peer, hello) = coordinator.volunteers().remove(0);
    assert_eq!(peer.id, node.local_id());
    assert_eq!(peer.addrs, node.local_addr().addrs);
    assert!(hello.volunteer && hello.cores == 2);
    until("the coordinator greets", || node.connected() == 1).await;
    assert!(node.volunteers().is_empty(), "a coordinator is no volunteer");

    let has = ControlRequest::Has(vec![Cid::raw(b"a")]);
    assert_eq!(coordinator.control(&peer, has).await.unwrap(), ControlReply::Has(vec![false]));
    let refused = coordinator.control(&peer, ControlRequest::EndLease(support::lease().id)).await;
    assert!(matches!(refused, Err(CallError::Refused { reason, .. }) if reason == "not in this test"));
    unreachable(node.control(&node.local_addr(), ControlRequest::Hello).await);
}

#[tokio::test]
async fn volunteers_find_each_other_through_one_bootstrap() {
    let fakes = [Fake::new(), Fake::new(), Fake::new()];
    let first = node(&fakes[0], &[]).await;
    let second = node(&fakes[1], &[&first]).await;
    let third = node(&fakes[2], &[&first]).await;
    for host in [&first, &second, &third] {
        host.wait_for(2, SOON).await.unwrap();
    }
    let coordinator = coordinator(&[&third]).await;
    coordinator.wait_for(3, SOON).await.unwrap();
}

#[tokio::test]
async fn a_dead_volunteer_is_dropped_and_one_that_comes_back_is_found() {
    let fake = Fake::new();
    let host = node(&fake, &[]).await;
    let again = HostConfig { listen: host.local_addr().addrs, ..config(&[]) };
    let coordinator = coordinator(&[&host]).await;
    coordinator.wait_for(1, SOON).await.unwrap();
    host.shutdown().await;
    let gone = Instant::now();
    until("the dead one is dropped", || coordinator.volunteers().is_empty()).await;
    assert!(gone.elapsed() < Duration::from_secs(2));
    let error = coordinator.wait_for(1, Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let _host = Host::start(again, &fake.key, Arc::clone(&fake) as _).await.unwrap();
    coordinator.wait_for(1, SOON).await.unwrap();
}

#[tokio::test]
async fn wrong_addresses_are_usage_errors() {
    let host = node(&Fake::new(), &[]).await;
    let key = NodeKey::generate(&OsRng);
    let taken = HostConfig { listen: host.local_addr().addrs, ..HostConfig::default() };
    let wrong = HostConfig { listen: vec!["127.0.0.1:1".to_owned()], ..HostConfig::default() };
    let lost = HostConfig { bootstrap: vec!["/ip4/127.0.0.1".to_owned()], ..HostConfig::default() };
    for (config, part) in [(taken, "in use"), (wrong, "not an address"), (lost, "not an address")] {
        let error = Host::start(config, &key, Fake::new()).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Usage);
        assert!(error.message.contains(part) && error.hint.is_some(), "{error}");
    }
}

#[tokio::test]
async fn another_peer_at_the_address_is_not_taken_for_the_right_one() {
    let host = node(&Fake::new(), &[]).await;
    let coordinator = coordinator(&[]).await;
    let wrong = PeerAddr { id: NodeKey::generate(&OsRng).id(), addrs: host.local_addr().addrs };
    let result = coordinator.control(&wrong, ControlRequest::Hello).await;
    assert!(
        matches!(&result, Err(CallError::Unreachable { reason, .. }) if reason.contains("another peer")),
        "{result:?}"
    );
    let nobody = PeerAddr { id: wrong.id, addrs: vec!["/ip4/127.0.0.1/tcp/1".to_owned()] };
    unreachable(coordinator.control(&nobody, ControlRequest::Hello).await);
    unreachable(coordinator.control(&PeerAddr { addrs: Vec::new(), ..nobody }, ControlRequest::Hello).await);
}

#[tokio::test]
async fn blocks_are_written_and_read() {
    let fake = Fake::new();
    let (host, coordinator) = (node(&fake, &[]).await, coordinator(&[]).await);
    let peer = host.local_addr();
    for len in [0, 1, 16 << 10, 100_000, 5 << 20] {
        let data = Bytes::from(block(len));
        coordinator.write_block(&peer, write_of(&data), data.clone()).await.unwrap();
        let got = coordinator.read_block(&peer, ReadBlock::whole(Cid::raw(&data), None)).await.unwrap();
        assert!(got == data, "{len} bytes");
    }
    let missing = coordinator.read_block(&peer, ReadBlock::whole(Cid::raw(b"?"), None)).await;
    assert!(matches!(missing, Err(CallError::Block { error: BlockError::NotFound, .. })), "{missing:?}");
    let large = Bytes::from(vec![0; 65 << 20]);
    let full = coordinator.write_block(&peer, write_of(&large), large).await;
    assert!(matches!(full, Err(CallError::Block { error: BlockError::QuotaExceeded, .. })), "{full:?}");
    let wrong = WriteBlock { len: 3, ..write_of(b"four") };
    assert!(coordinator.write_block(&peer, wrong, Bytes::from_static(b"four")).await.is_err());
}

#[test]
fn ranges_over_the_wire_are_slices() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let fake = Fake::new();
    let data = Bytes::from(block(300_000));
    let cid = fake.keep(data.clone());
    let (host, coordinator) = runtime.block_on(async { (node(&fake, &[]).await, coordinator(&[]).await) });
    let peer = host.local_addr();
    proptest!(ProptestConfig::with_cases(100), |(offset in 0u64..320_000, len in 0u64..320_000)| {
        let request = ReadBlock { cid, offset, len, capability: None };
        let got = runtime.block_on(coordinator.read_block(&peer, request)).unwrap();
        let start = (offset as usize).min(data.len());
        let end = ((offset + len) as usize).min(data.len());
        prop_assert_eq!(got, data.slice(start..end));
    });
}

#[tokio::test]
async fn wrong_bytes_are_caught_whatever_is_asked() {
    let fake = Fake::new();
    let (host, coordinator) = (node(&fake, &[]).await, coordinator(&[]).await);
    for len in [10, 16 << 10, 100_000, 3 << 20] {
        let truth = block(len);
        let cid = Cid::raw(&truth);
        let mut flipped = truth.clone();
        flipped[len / 2] ^= 1;
        let longer = [&truth[..], b"x"].concat();
        for lie in [flipped, longer, truth[..len - 1].to_vec(), Vec::new()] {
            fake.keep_as(cid, lie);
            let peer = host.local_addr();
            misbehaved(coordinator.read_block(&peer, ReadBlock::whole(cid, None)).await);
            misbehaved(coordinator.read_block(&peer, ReadBlock { cid, offset: 1, len: 5, capability: None }).await);
        }
        fake.keep_as(cid, truth);
        coordinator.read_block(&host.local_addr(), ReadBlock::whole(cid, None)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_requests_loses_none() {
    let fake = Fake::new();
    let cids: Vec<_> = (0..400usize).map(|i| fake.keep(block(i * 100))).collect();
    let host = node(&fake, &[]).await;
    let coordinators = [coordinator(&[]).await, coordinator(&[]).await];
    let peer = host.local_addr();
    let reads = coordinators.iter().flat_map(|c| cids.iter().map(move |cid| (c, *cid)));
    let reads = reads.map(|(c, cid)| c.read_block(&peer, ReadBlock::whole(cid, None)));
    for result in join_all(reads).await {
        result.unwrap();
    }
}

#[tokio::test]
async fn tasks_are_offered_and_run() {
    let fake = Fake::new();
    let (host, coordinator) = (node(&fake, &[]).await, coordinator(&[]).await);
    let peer = host.local_addr();
    for len in [0, 5, 3 << 20] {
        let envelope = Bytes::from(block(len));
        fake.takes(Duration::from_millis(250));
        let offer = offer(&envelope, SOON);
        let answer = coordinator.run_task(&peer, offer.clone(), envelope.clone()).await.unwrap();
        assert_eq!(answer, support::answer(&fake.key, &offer, &envelope));
    }
    fake.answers(OfferReply::Busy { retry_after: Duration::from_millis(70) });
    let busy = coordinator.run_task(&peer, offer(b"x", SOON), Bytes::from_static(b"x")).await;
    assert!(matches!(busy, Err(CallError::Busy { retry_after, .. }) if retry_after == Duration::from_millis(70)));
    fake.answers(OfferReply::Refused("no\nthanks".to_owned()));
    let refused = coordinator.run_task(&peer, offer(b"x", SOON), Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(CallError::Refused { reason, .. }) if reason == "no thanks"));
    assert_eq!((fake.started.load(SeqCst), fake.running(), fake.released.load(SeqCst)), (3, 0, 0));
    // A coordinator takes none.
    let refused = host.run_task(&coordinator.local_addr(), offer(b"x", SOON), Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(CallError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn dropping_the_call_cancels_the_task() {
    let fake = Fake::new();
    fake.takes(Duration::from_secs(600));
    let (host, coordinator) = (node(&fake, &[]).await, coordinator(&[]).await);
    let peer = host.local_addr();
    let call = {
        let coordinator = Arc::clone(&coordinator);
        tokio::spawn(
            async move { coordinator.run_task(&peer, offer(b"x", SOON * 100), Bytes::from_static(b"x")).await },
        )
    };
    until("the task runs", || fake.running() == 1).await;
    call.abort();
    until("the task is dropped", || fake.running() == 0).await;
    assert_eq!(fake.released.load(SeqCst), 0, "a task that ran gives its place back itself");
}

#[tokio::test]
async fn late_is_late_and_gone_is_gone() {
    let fake = Fake::new();
    fake.takes(Duration::from_secs(600));
    let (host, coordinator) = (node(&fake, &[]).await, coordinator(&[]).await);
    let peer = host.local_addr();
    let late = coordinator.run_task(&peer, offer(b"x", Duration::from_millis(100)), Bytes::from_static(b"x")).await;
    assert!(matches!(late, Err(CallError::TimedOut(_))), "{late:?}");
    until("the node stops too", || fake.running() == 0).await;

    let call = coordinator.run_task(&peer, offer(b"x", SOON * 100), Bytes::from_static(b"x"));
    let kill = async {
        until("the task runs", || fake.running() == 1).await;
        host.shutdown().await;
    };
    let (gone, ()) = tokio::join!(call, kill);
    unreachable(gone);
    assert_eq!(fake.running(), 0, "shutting down drops what runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_coordinators_share_two_nodes() {
    let fakes = [Fake::new(), Fake::new()];
    let nodes = [node(&fakes[0], &[]).await, node(&fakes[1], &[]).await];
    let coordinators = [coordinator(&[&nodes[0]]).await, coordinator(&[&nodes[1]]).await];
    fakes.iter().for_each(|fake| fake.takes(Duration::from_millis(20)));
    for coordinator in &coordinators {
        for host in &nodes {
            let peer = host.local_addr();
            let tasks = (0..40usize).map(|i| {
                let (envelope, peer) = (Bytes::from(block(i * 1000)), &peer);
                async move { coordinator.run_task(peer, offer(&envelope, SOON), envelope).await }
            });
            for answer in join_all(tasks).await {
                assert!(matches!(answer.unwrap().outcome, Outcome::Done(_)));
            }
        }
    }
    assert!(fakes.iter().all(|fake| fake.running() == 0 && fake.started.load(SeqCst) == 80));
}
