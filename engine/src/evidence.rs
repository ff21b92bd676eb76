//! What is kept of tasks on which nodes disagreed, so that anyone can run them again later: the envelope, the inputs, and
//! the blocks that somebody claims and the verdict does not have.
//!
//! It is read from the nodes before they may drop the job's blocks, within bounds of time and bytes: a transcript without
//! evidence still shows who signed what. Some of these nodes lie. What decides a dispute is therefore read first, for all
//! disputes: envelopes and inputs. Claims only show what a lie looks like; they come last, and nobody's take more than a
//! share, so that no liar can push out the evidence against itself or another.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_types::{Cid, Holder, NodeId, OutputBlock, TaskEnvelope, wire::ReadBlock};

use crate::task::{Prepared, Settler};

/// Disputed tasks of a job whose evidence is kept at most.
pub(crate) const MAX_DISPUTES: usize = 16;
/// Bytes of one block of evidence at most: it must fit into a message to a client.
const MOST_BLOCK: u64 = 32 << 20;

/// Bounds of what is gathered for a job.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Bytes in all.
    bytes: u64,
    /// Bytes of what one node claims.
    claimed: u64,
    /// How long it takes in all.
    time: Duration,
    /// How long the claims of one node may take.
    claim_time: Duration,
}

const LIMITS: Limits =
    Limits { bytes: 64 << 20, claimed: 8 << 20, time: Duration::from_secs(10), claim_time: Duration::from_secs(2) };

/// A task on which nodes disagreed.
#[derive(Debug, Clone)]
pub(crate) struct Disputed {
    pub(crate) task: Arc<Prepared>,
    /// Blocks that were accepted; none where the votes made no verdict.
    pub(crate) accepted: Vec<OutputBlock>,
    /// What was not accepted, and where it can be read.
    pub(crate) claims: Vec<(Holder, Vec<OutputBlock>)>,
}

impl Disputed {
    fn case(&self) -> Case<'_> {
        let Self { task, accepted, claims } = self;
        Case { envelope: &task.envelope, bytes: &task.bytes, accepted, claims }
    }
}

/// What of a dispute says which blocks are its evidence.
#[derive(Clone, Copy)]
struct Case<'a> {
    envelope: &'a TaskEnvelope,
    /// The envelope as it was ordered.
    bytes: &'a Bytes,
    accepted: &'a [OutputBlock],
    claims: &'a [(Holder, Vec<OutputBlock>)],
}

/// Where evidence is read from. Bytes are checked against their address.
#[async_trait]
trait Shelves: Sync {
    /// A shard of a table.
    async fn shard(&self, cid: &Cid) -> Option<Bytes>;

    /// A block of a task from `holder`.
    async fn block(&self, cid: Cid, holder: &Holder) -> Option<Bytes>;

    /// Who made a block that was accepted.
    fn makers(&self, cid: &Cid) -> Vec<Holder>;
}

#[async_trait]
impl Shelves for Settler {
    async fn shard(&self, cid: &Cid) -> Option<Bytes> {
        self.context().read_shard(cid).await.ok()
    }

    async fn block(&self, cid: Cid, holder: &Holder) -> Option<Bytes> {
        let read = self.context().network.read_block(&holder.peer, ReadBlock::whole(cid, holder.capability));
        tokio::time::timeout(self.context().config.patience, read).await.ok()?.ok()
    }

    fn makers(&self, cid: &Cid) -> Vec<Holder> {
        self.lineage().holders(cid)
    }
}

impl Settler {
    /// The evidence of every disputed task, as far as it can be had.
    pub(crate) async fn gather_evidence(&self) -> Vec<Bytes> {
        let disputes = self.lineage().disputes();
        let cases: Vec<_> = disputes.iter().map(Disputed::case).collect();
        gather(self, &cases, LIMITS).await
    }
}

async fn gather(shelves: &dyn Shelves, cases: &[Case<'_>], limits: Limits) -> Vec<Bytes> {
    let mut gathering = Gathering::new(shelves, cases, limits);
    let all = async {
        for case in cases {
            gathering.inputs(case).await;
        }
        gathering.claims(cases).await;
    };
    if tokio::time::timeout(limits.time, all).await.is_err() {
        tracing::warn!("evidence of disputed tasks is incomplete: it took too long to read");
    }
    gathering.blocks.into_values().collect()
}

/// Blocks of evidence so far.
struct Gathering<'a> {
    shelves: &'a dyn Shelves,
    limits: Limits,
    blocks: BTreeMap<Cid, Bytes>,
    used: u64,
    /// Whoever is a party of a dispute: others are asked first.
    parties: HashSet<NodeId>,
    /// How often each node has not given an input: who has least often is asked first.
    failures: HashMap<NodeId, u32>,
}

impl<'a> Gathering<'a> {
    fn new(shelves: &'a dyn Shelves, cases: &[Case<'_>], limits: Limits) -> Self {
        let parties = cases.iter().flat_map(|case| case.claims).map(|(holder, _)| holder.peer.id);
        let failures = HashMap::new();
        Self { shelves, limits, blocks: BTreeMap::new(), used: 0, parties: parties.collect(), failures }
    }

    /// Whether `bytes` more in blocks of `largest` at most have room.
    fn has_room(&self, bytes: u64, largest: u64) -> bool {
        largest <= MOST_BLOCK && self.used.saturating_add(bytes) <= self.limits.bytes
    }

    /// Keeps a block; whether it is kept.
    fn keep(&mut self, cid: Cid, bytes: Bytes) -> bool {
        let len = bytes.len() as u64;
        if !self.blocks.contains_key(&cid) {
            if !self.has_room(len, len) {
                return false;
            }
            self.used += len;
            self.blocks.insert(cid, bytes);
        }
        true
    }

    /// The envelope and what it reads: all of it or nothing more, as with a part of them a task cannot be run again.
    async fn inputs(&mut self, case: &Case<'_>) {
        if !self.keep(Cid::raw(case.bytes), case.bytes.clone()) {
            return;
        }
        let Some(read) = self.read_inputs(case.envelope).await else { return };
        for (cid, bytes) in read {
            self.keep(cid, bytes);
        }
    }

    /// What a task reads and is not kept yet; none where it has no room or cannot be had whole.
    async fn read_inputs(&mut self, envelope: &TaskEnvelope) -> Option<BTreeMap<Cid, Bytes>> {
        let shards = envelope.shards.iter().map(|s| (s.cid, s.volume.bytes));
        let blocks = envelope.blocks.iter().map(|b| (b.cid, b.volume.bytes));
        let mut wanted: BTreeMap<Cid, u64> = shards.chain(blocks).collect();
        wanted.retain(|cid, _| !self.blocks.contains_key(cid));
        let largest = wanted.values().copied().max().unwrap_or(0);
        let total = wanted.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        if !self.has_room(total, largest) {
            return None;
        }
        let shards: HashSet<Cid> = envelope.shards.iter().map(|shard| shard.cid).collect();
        let mut read = BTreeMap::new();
        for cid in wanted.into_keys() {
            let bytes = match shards.contains(&cid) {
                true => self.shelves.shard(&cid).await,
                false => self.input_block(cid).await,
            };
            let Some(bytes) = bytes else {
                missing(&cid);
                return None;
            };
            read.insert(cid, bytes);
        }
        Some(read)
    }

    async fn input_block(&mut self, cid: Cid) -> Option<Bytes> {
        let mut makers = self.shelves.makers(&cid);
        makers.sort_by_key(|holder| {
            let node = &holder.peer.id;
            (self.failures.get(node).copied().unwrap_or(0), self.parties.contains(node))
        });
        for holder in makers {
            match self.shelves.block(cid, &holder).await {
                Some(bytes) => return Some(bytes),
                None => *self.failures.entry(holder.peer.id).or_default() += 1,
            }
        }
        None
    }

    /// What each node claims that was not accepted, within its share.
    async fn claims(&mut self, cases: &[Case<'_>]) {
        let mut by_node: HashMap<NodeId, Vec<(&Holder, &OutputBlock)>> = HashMap::new();
        for case in cases {
            let accepted: HashSet<Cid> = case.accepted.iter().map(|block| block.cid).collect();
            for (holder, outputs) in case.claims {
                let claimed = outputs.iter().filter(|block| !accepted.contains(&block.cid));
                by_node.entry(holder.peer.id).or_default().extend(claimed.map(|block| (holder, block)));
            }
        }
        for (node, claimed) in by_node {
            let time = self.limits.claim_time;
            if tokio::time::timeout(time, self.claims_of_one(claimed)).await.is_err() {
                tracing::info!(%node, "claims of a party are incomplete: it took too long to read them");
            }
        }
    }

    async fn claims_of_one(&mut self, claimed: Vec<(&Holder, &OutputBlock)>) {
        let mut share = self.limits.claimed;
        for (holder, block) in claimed {
            if self.blocks.contains_key(&block.cid) || block.bytes > share || !self.has_room(block.bytes, block.bytes) {
                continue;
            }
            let Some(bytes) = self.shelves.block(block.cid, holder).await else {
                missing(&block.cid);
                continue;
            };
            // It may have said less than it is.
            let Some(left) = share.checked_sub(bytes.len() as u64) else { return };
            share = left;
            self.keep(block.cid, bytes);
        }
    }
}

fn missing(cid: &Cid) {
    tracing::info!(%cid, "a block of evidence is not to be had");
}

#[cfg(test)]
mod tests {
    use conun_types::{InputBlock, JobId, NodeKey, OsRng, PeerAddr, Volume, codec};

    use super::*;

    const SMALL: Limits =
        Limits { bytes: 10_000, claimed: 3_000, time: Duration::from_secs(2), claim_time: Duration::from_millis(200) };

    /// Nodes with blocks; some never answer.
    #[derive(Default)]
    struct Nodes {
        held: HashMap<NodeId, HashMap<Cid, Bytes>>,
        makers: HashMap<Cid, Vec<Holder>>,
        stuck: HashSet<NodeId>,
    }

    #[async_trait]
    impl Shelves for Nodes {
        async fn shard(&self, _: &Cid) -> Option<Bytes> {
            None
        }

        async fn block(&self, cid: Cid, holder: &Holder) -> Option<Bytes> {
            if self.stuck.contains(&holder.peer.id) {
                tokio::time::sleep(Duration::from_millis(500)).await;
                return None;
            }
            self.held.get(&holder.peer.id)?.get(&cid).cloned()
        }

        fn makers(&self, cid: &Cid) -> Vec<Holder> {
            self.makers.get(cid).cloned().unwrap_or_default()
        }
    }

    impl Nodes {
        /// A block of `len` bytes that `holder` has.
        fn hold(&mut self, holder: &Holder, seed: u8, len: usize) -> OutputBlock {
            let bytes = Bytes::from(vec![seed; len]);
            let cid = Cid::raw(&bytes);
            self.held.entry(holder.peer.id).or_default().insert(cid, bytes);
            OutputBlock { partition: 0, cid, rows: 1, bytes: len as u64 }
        }

        /// As [`Nodes::hold`], accepted in an earlier stage.
        fn input(&mut self, makers: &[&Holder], seed: u8, len: usize) -> OutputBlock {
            let block = makers.iter().map(|maker| self.hold(maker, seed, len)).last().unwrap();
            self.makers.insert(block.cid, makers.iter().map(|maker| (*maker).clone()).collect());
            block
        }
    }

    fn node() -> Holder {
        let id = NodeKey::generate(&OsRng).id();
        Holder { peer: PeerAddr { id, addrs: Vec::new() }, capability: None }
    }

    /// A task over `inputs`, and what some claim of it.
    struct Scene {
        envelope: TaskEnvelope,
        bytes: Bytes,
        claims: Vec<(Holder, Vec<OutputBlock>)>,
    }

    impl Scene {
        fn new(task: u32, inputs: &[OutputBlock], claims: &[(&Holder, &[OutputBlock])]) -> Self {
            let input = |b: &OutputBlock| InputBlock { cid: b.cid, volume: Volume { rows: b.rows, bytes: b.bytes } };
            let blocks = inputs.iter().map(input).collect();
            let envelope = TaskEnvelope { blocks, ..TaskEnvelope::new(JobId([1; 16]), 2, task, Vec::new()) };
            let bytes = codec::encode(&envelope).unwrap().into();
            let claims = claims.iter().map(|(holder, blocks)| ((*holder).clone(), blocks.to_vec())).collect();
            Self { envelope, bytes, claims }
        }

        fn case(&self) -> Case<'_> {
            Case { envelope: &self.envelope, bytes: &self.bytes, accepted: &[], claims: &self.claims }
        }
    }

    async fn gathered(nodes: &Nodes, scenes: &[Scene]) -> HashSet<Cid> {
        let cases: Vec<_> = scenes.iter().map(Scene::case).collect();
        gather(nodes, &cases, SMALL).await.iter().map(|bytes| Cid::raw(bytes)).collect()
    }

    #[tokio::test]
    async fn no_liar_pushes_out_what_decides() {
        let (honest, liar, other) = (node(), node(), node());
        let mut nodes = Nodes::default();
        let inputs = [1, 2].map(|seed| nodes.input(&[&honest], seed, 2_000));
        let lies: Vec<_> = (10..16).map(|seed| nodes.hold(&liar, seed, 1_500)).collect();
        let mut understated = nodes.hold(&other, 20, 5_000);
        understated.bytes = 1;
        let of_other = nodes.hold(&other, 21, 1_000);
        let scenes = [
            Scene::new(0, &inputs[..1], &[(&liar, &lies), (&other, &[of_other, understated])]),
            Scene::new(1, &inputs[1..], &[(&liar, &lies[3..])]),
        ];
        let found = gathered(&nodes, &scenes).await;
        for scene in &scenes {
            assert!(found.contains(&Cid::raw(&scene.bytes)), "every envelope");
        }
        assert!(inputs.iter().all(|block| found.contains(&block.cid)), "every input");
        let of_liar = lies.iter().filter(|block| found.contains(&block.cid)).count();
        assert_eq!(of_liar, 2, "a share of what it claims");
        assert!(found.contains(&of_other.cid) && !found.contains(&understated.cid));
    }

    #[tokio::test]
    async fn nobody_holds_up_the_evidence() {
        let (honest, stuck, slow) = (node(), node(), node());
        let mut nodes = Nodes { stuck: [stuck.peer.id, slow.peer.id].into(), ..Nodes::default() };
        // Who is stuck is asked once, not for every block.
        let inputs: Vec<_> = (0..9).map(|seed| nodes.input(&[&stuck, &slow, &honest], seed, 100)).collect();
        let lies: Vec<_> = (10..19).map(|seed| nodes.hold(&stuck, seed, 100)).collect();
        let of_honest = nodes.hold(&honest, 30, 100);
        let found = gathered(&nodes, &[Scene::new(0, &inputs, &[(&stuck, &lies), (&honest, &[of_honest])])]).await;
        assert!(inputs.iter().all(|block| found.contains(&block.cid)), "{} of {}", found.len(), inputs.len());
        assert!(found.contains(&of_honest.cid), "claims of the others");
    }

    #[tokio::test]
    async fn inputs_that_do_not_fit_leave_the_room_to_others() {
        let honest = node();
        let mut nodes = Nodes::default();
        let large: Vec<_> = (0..3).map(|seed| nodes.input(&[&honest], seed, 4_000)).collect();
        let small = nodes.input(&[&honest], 9, 4_000);
        let found = gathered(&nodes, &[Scene::new(0, &large, &[]), Scene::new(1, &[small], &[])]).await;
        assert!(found.contains(&small.cid) && !large.iter().any(|block| found.contains(&block.cid)));
    }

    #[tokio::test]
    async fn what_is_kept_already_needs_no_room_and_what_is_of_no_use_takes_none() {
        let (honest, gone) = (node(), node());
        let mut nodes = Nodes::default();
        let shared = nodes.input(&[&honest], 1, 4_000);
        let more = nodes.input(&[&honest], 2, 3_000);
        let found = gathered(&nodes, &[Scene::new(0, &[shared], &[]), Scene::new(1, &[shared, more], &[])]).await;
        assert!(found.contains(&more.cid), "one of its inputs was there");

        let (useless, lost) = (nodes.input(&[&honest], 3, 4_000), nodes.input(&[&gone], 4, 100));
        nodes.held.remove(&gone.peer.id);
        let fits = nodes.input(&[&honest], 5, 8_000);
        let found = gathered(&nodes, &[Scene::new(0, &[useless, lost], &[]), Scene::new(1, &[fits], &[])]).await;
        assert!(found.contains(&fits.cid) && !found.contains(&useless.cid), "a part of the inputs is of no use");
    }
}
