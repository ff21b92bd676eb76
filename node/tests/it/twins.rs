//! What dishonest twins say, and what a copycat gets to see.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use conun_executor::canonical;
use conun_node::LiarMode;
use conun_types::{
    Answer, NodeId, SignedReceipt, TaskOffer, Vote,
    eip712::Domain,
    port::{CallError, OfferReply, Volunteer},
    task::outputs_root,
    wire::{BlockError, ControlReply, ControlRequest, Hello, ReadBlock, WriteBlock},
};

use crate::{
    as_input,
    common::{Node, Task, World, read_task, source},
    vote, with_shard,
};

/// The answer of a node that cheats in `mode` to its `n`th offer of `task`.
async fn lie(world: &World, mode: LiarMode, task: &Task, n: usize) -> (Node, TaskOffer, Vote) {
    let (liar, _, _) = with_shard(world, Some(mode)).await;
    for _ in 1..n {
        world.run(&liar, task).await;
    }
    let (offer, answer) = world.run(&liar, task).await;
    (liar, offer, vote(answer))
}

#[tokio::test]
async fn twins_lie_consistently() {
    let world = World::new();
    let (honest, _, task) = with_shard(&world, None).await;
    let truth = vote(world.run(&honest, &task).await.1);
    for (mode, n) in [
        (LiarMode::WrongValue, 1),
        (LiarMode::DropRows, 1),
        (LiarMode::DuplicateRows, 1),
        (LiarMode::Collude, 1),
        (LiarMode::Sleeper(2), 3),
    ] {
        let (liar, offer, lie) = lie(&world, mode, &task, n).await;
        lie.receipt.check(&offer.order.order, &Domain::default()).unwrap();
        assert_ne!(lie.outputs[0].cid, truth.outputs[0].cid, "{mode}");
        assert_eq!(lie.receipt.receipt.outputs_root, outputs_root(&lie.outputs), "{mode}");
        let shown = world.read(&liar, lie.outputs[0].cid, Some(offer.capability)).await.unwrap();
        assert_eq!(canonical::row_count(&shown).unwrap(), lie.outputs[0].rows, "{mode}");
    }
    for mode in [LiarMode::Sleeper(2), LiarMode::CorruptBlock, LiarMode::Misroute, LiarMode::Copycat] {
        let (_, _, honest) = lie(&world, mode, &task, 2).await;
        assert_eq!(honest.outputs, truth.outputs, "{mode} has no reason to lie about one partition of a scan (yet)");
    }
    let (corrupt, shard, _) = with_shard(&world, Some(LiarMode::CorruptBlock)).await;
    let read = world.read(&corrupt, shard.input.cid, None).await.unwrap_err();
    assert!(matches!(read, CallError::Misbehaved { .. }));
}

#[tokio::test]
async fn a_ring_agrees_and_other_liars_do_not() {
    let world = World::new();
    let (_, _, task) = with_shard(&world, None).await;
    let mut roots = Vec::new();
    for mode in [LiarMode::Collude, LiarMode::Collude, LiarMode::WrongValue, LiarMode::WrongValue] {
        roots.push(lie(&world, mode, &task, 1).await.2.receipt.receipt.outputs_root);
    }
    assert_eq!(roots[0], roots[1]);
    assert_ne!(roots[2], roots[3]);
}

#[tokio::test]
async fn a_replayed_vote_fits_no_later_order() {
    let world = World::new();
    let (_, _, task) = with_shard(&world, None).await;
    let (_, offer, replayed) = lie(&world, LiarMode::Replay, &task, 1).await;
    replayed.receipt.check(&offer.order.order, &Domain::default()).unwrap();
    let (_, offer, replayed) = lie(&world, LiarMode::Replay, &task, 2).await;
    assert!(replayed.receipt.check(&offer.order.order, &Domain::default()).is_err());
}

/// A way by which a node might give its answer away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Receipt,
    Has,
    Lease,
    Read,
}

impl Door {
    const ALL: [Door; 4] = [Door::Receipt, Door::Has, Door::Lease, Door::Read];
}

/// A node that has voted, with a door open or none; notes at which strangers knock.
struct Fellow {
    honest: Arc<dyn Volunteer>,
    coordinator: NodeId,
    open: Option<Door>,
    receipt: SignedReceipt,
    block: Bytes,
    knocks: Mutex<Vec<Door>>,
}

impl Fellow {
    fn knock(&self, from: NodeId, door: Door) -> bool {
        if from != self.coordinator {
            self.knocks.lock().unwrap().push(door);
        }
        self.open == Some(door)
    }
}

#[async_trait]
impl Volunteer for Fellow {
    fn hello(&self) -> Hello {
        self.honest.hello()
    }

    async fn offer(&self, from: NodeId, offer: &TaskOffer) -> OfferReply {
        self.honest.offer(from, offer).await
    }

    fn examine(&self, from: NodeId, offer: &TaskOffer, envelope: &[u8]) -> Result<(), String> {
        self.honest.examine(from, offer, envelope)
    }

    async fn run(&self, from: NodeId, offer: TaskOffer, envelope: Bytes) -> Answer {
        self.honest.run(from, offer, envelope).await
    }

    fn release(&self, from: NodeId, offer: &TaskOffer) {
        self.honest.release(from, offer);
    }

    async fn read_block(&self, from: NodeId, request: &ReadBlock) -> Result<Bytes, BlockError> {
        match self.knock(from, Door::Read) && request.cid.matches(&self.block) {
            true => Ok(self.block.clone()),
            false => self.honest.read_block(from, request).await,
        }
    }

    async fn may_write(&self, from: NodeId, request: &WriteBlock) -> Result<(), BlockError> {
        self.honest.may_write(from, request).await
    }

    async fn write_block(&self, from: NodeId, request: WriteBlock, data: Bytes) -> Result<(), BlockError> {
        self.honest.write_block(from, request, data).await
    }

    async fn control(&self, from: NodeId, request: ControlRequest) -> ControlReply {
        let (door, reply) = match &request {
            ControlRequest::Receipt(_) => (Door::Receipt, ControlReply::Receipt(Some(Box::new(self.receipt.clone())))),
            ControlRequest::Has(_) => (Door::Has, ControlReply::Has(vec![true])),
            ControlRequest::Renew { .. } => (Door::Lease, ControlReply::Has(vec![true])),
            _ => return self.honest.control(from, request).await,
        };
        match self.knock(from, door) {
            true => reply,
            false => self.honest.control(from, request).await,
        }
    }
}

/// A task that hands its input on, which lies on a node of the stage before; and that input.
async fn passing_on(world: &World) -> (Node, Task, Bytes) {
    let (maker, _, task) = with_shard(world, None).await;
    let (offer, answer) = world.run(&maker, &task).await;
    let input = as_input(&vote(answer));
    let bytes = world.read(&maker, input.cid, Some(offer.capability)).await.unwrap();
    let found = source(input.cid, input.volume.bytes, &[&maker], Some(offer.capability));
    let schema = canonical::decode(&bytes).unwrap().0;
    (maker, read_task(schema, input, found), bytes)
}

/// A replica votes; then a copycat is asked, who knows what the answer would be if anybody confirmed it. Gives both votes
/// and the doors at which the copycat knocked.
async fn copycat_after(open: Option<Door>) -> (Vote, Vote, Vec<Door>) {
    let world = World::new();
    let (_maker, task, block) = passing_on(&world).await;
    let fellow = world.node(None);
    let truth = vote(world.run(&fellow, &task).await.1);
    assert_eq!(truth.outputs[0].cid, task.envelope.blocks[0].cid);
    let watched = Arc::new(Fellow {
        honest: fellow.volunteer.clone(),
        coordinator: world.coordinator.id(),
        open,
        receipt: truth.receipt.clone(),
        block,
        knocks: Mutex::default(),
    });
    world.wire.join(fellow.key.id(), watched.clone());
    let copycat = world.node(Some(LiarMode::Copycat));
    let (offer, answer) = world.run(&copycat, &task).await;
    let copied = vote(answer);
    copied.receipt.check(&offer.order.order, &Domain::default()).unwrap();
    let knocks = watched.knocks.lock().unwrap().clone();
    (truth, copied, knocks)
}

#[tokio::test]
async fn a_copycat_learns_nothing_while_the_quorum_is_open() {
    let (truth, made_up, knocks) = copycat_after(None).await;
    assert_ne!(made_up.outputs, truth.outputs);
    for door in Door::ALL {
        assert!(knocks.contains(&door), "it tries {door:?}");
    }
}

#[tokio::test]
async fn a_copycat_finds_any_door_that_is_open() {
    for door in Door::ALL {
        let (truth, copied, _) = copycat_after(Some(door)).await;
        assert_eq!(copied.outputs, truth.outputs, "{door:?}");
    }
}
