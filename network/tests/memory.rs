//! The network in memory behaves as the one over sockets.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use conun_network::{ClientOnly, MemoryNet};
use conun_types::{
    Cid, NodeKey, OsRng,
    port::{CallError, Network, OfferReply},
    wire::{BlockError, ControlReply, ControlRequest, ReadBlock},
};
use support::{Fake, block, misbehaved, offer, timing, unreachable, until, write_of};

struct Net {
    net: MemoryNet,
    fake: Arc<Fake>,
    node: Arc<dyn Network>,
    coordinator: Arc<dyn Network>,
}

fn net() -> Net {
    let net = MemoryNet::with_timing(timing());
    let fake = Fake::new();
    let node = net.join(&fake.key, "node", Arc::clone(&fake) as _);
    let coordinator = net.join(&NodeKey::generate(&OsRng), "coordinator", Arc::new(ClientOnly::default()));
    Net { net, fake, node, coordinator }
}

#[tokio::test]
async fn members_know_each_other_while_they_are_online() {
    let Net { net, node, coordinator, .. } = net();
    assert!(node.volunteers().is_empty());
    assert_eq!(coordinator.volunteers()[0].0, node.local_addr());
    let peers = coordinator.control(&node.local_addr(), ControlRequest::Peers).await.unwrap();
    assert_eq!(peers, ControlReply::Peers(Vec::new()), "nobody but the asker");
    net.set_offline(node.local_id(), true);
    assert!(coordinator.volunteers().is_empty());
    unreachable(coordinator.control(&node.local_addr(), ControlRequest::Hello).await);
    net.set_offline(node.local_id(), false);
    coordinator.control(&node.local_addr(), ControlRequest::Hello).await.unwrap();
}

#[tokio::test]
async fn blocks_are_verified() {
    let Net { fake, node, coordinator, .. } = net();
    let peer = node.local_addr();
    let data = Bytes::from(block(2 << 20));
    coordinator.write_block(&peer, write_of(&data), data.clone()).await.unwrap();
    let range = ReadBlock { cid: Cid::raw(&data), offset: 1_000_000, len: 50_000, capability: None };
    assert_eq!(coordinator.read_block(&peer, range).await.unwrap(), data.slice(1_000_000..1_050_000));
    let missing = coordinator.read_block(&peer, ReadBlock::whole(Cid::raw(b"?"), None)).await;
    assert!(matches!(missing, Err(CallError::Block { error: BlockError::NotFound, .. })), "{missing:?}");
    fake.keep_as(Cid::raw(&data), block(2 << 19));
    misbehaved(coordinator.read_block(&peer, ReadBlock::whole(Cid::raw(&data), None)).await);
}

#[tokio::test]
async fn tasks_run_are_refused_and_cancelled() {
    let Net { fake, node, coordinator, .. } = net();
    let peer = node.local_addr();
    let envelope = Bytes::from(block(1 << 20));
    let offer = offer(&envelope, Duration::from_secs(60));
    let answer = coordinator.run_task(&peer, offer.clone(), envelope.clone()).await.unwrap();
    assert_eq!(answer, support::answer(&fake.key, &offer, &envelope));
    fake.takes(Duration::from_secs(600));
    {
        let call = coordinator.run_task(&peer, offer.clone(), envelope.clone());
        tokio::select! {
            result = call => panic!("{result:?}"),
            () = until("the task runs", || fake.running() == 1) => {}
        }
    }
    until("the task is dropped", || fake.running() == 0).await;
    fake.answers(OfferReply::Busy { retry_after: Duration::from_secs(1) });
    assert!(matches!(coordinator.run_task(&peer, offer, envelope).await, Err(CallError::Busy { .. })));
}

#[tokio::test]
async fn faults_can_be_switched_on() {
    let Net { net, fake, node, coordinator } = net();
    let peer = node.local_addr();
    let offer = |timeout| offer(b"x", timeout);
    fake.takes(Duration::from_secs(600));
    let call = coordinator.run_task(&peer, offer(Duration::from_secs(60)), Bytes::from_static(b"x"));
    let cut = async {
        until("the task runs", || fake.running() == 1).await;
        net.set_offline(peer.id, true);
    };
    let (cut_off, ()) = tokio::join!(call, cut);
    unreachable(cut_off);
    until("the task is dropped", || fake.running() == 0).await;
    net.set_offline(peer.id, false);
    net.set_delay(peer.id, Duration::from_secs(600));
    let late = coordinator.run_task(&peer, offer(Duration::from_millis(50)), Bytes::from_static(b"x")).await;
    assert!(matches!(late, Err(CallError::TimedOut(_))), "{late:?}");
}
