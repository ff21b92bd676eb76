//! From a task to a verdict: starts replicas as the quorum asks for them, checks what they say, replaces those that
//! fail, and finds inputs again that were lost. A dead or slow node costs a replica, never the job.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use conun_trust::Outcome;
use conun_types::{
    Amount, Cid, Complaint, Error, Holder, InputBlock, NodeId, Result, Source, port::CallError, wire::ReadBlock,
};
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};

use super::{
    Prepared, Settled,
    round::{Round, Verdict},
};
use crate::{context::JobContext, fleet::Fleet, lineage::Lineage, notes::Notes, stage::TaskKey};

/// How often a lost task is run again: nodes that vote right and do not serve must not keep a job going for ever.
const MAX_REBUILDS: usize = 4;
/// Lost blocks that one task has made again at once.
const REBUILT_AT_ONCE: usize = 16;
/// Bytes of a block that are read to check a complaint or a sample: one group of the verified tree.
const SAMPLE: u64 = 16 << 10;

/// Settles the tasks of one job.
#[derive(Clone)]
pub(crate) struct Settler(pub(super) Arc<Parts>);

pub(super) struct Parts {
    pub(super) context: JobContext,
    pub(super) lineage: Lineage,
    pub(super) notes: Notes,
    /// What the tasks in flight will cost at least.
    pub(super) reserved: Mutex<Amount>,
    /// Held while a lost task is run again, so that its many readers do not each do it; counts how often it was. One gate
    /// a task: running it again may need blocks of other lost tasks.
    rebuilding: Mutex<HashMap<TaskKey, Arc<tokio::sync::Mutex<usize>>>>,
    /// An accepted answer turned out to be wrong.
    pub(super) overturned: AtomicBool,
    /// Replicas that wait for a place and are not speculative.
    needed: AtomicUsize,
}

/// A replica that waits for a place and is not speculative: those that are leave places to it.
pub(super) struct Needed<'a>(&'a AtomicUsize);

impl Drop for Needed<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Settler {
    pub(crate) fn new(context: JobContext) -> Self {
        let (lineage, notes, reserved, rebuilding, overturned, needed) = Default::default();
        Self(Arc::new(Parts { context, lineage, notes, reserved, rebuilding, overturned, needed }))
    }

    /// Until this is dropped, a needed replica waits for a place.
    pub(super) fn needed(&self) -> Needed<'_> {
        self.0.needed.fetch_add(1, Ordering::Relaxed);
        Needed(&self.0.needed)
    }

    /// Whether needed replicas wait for a place.
    pub(super) fn others_are_needed(&self) -> bool {
        self.0.needed.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn context(&self) -> &JobContext {
        &self.0.context
    }

    pub(crate) fn lineage(&self) -> &Lineage {
        &self.0.lineage
    }

    pub(crate) fn notes(&self) -> &Notes {
        &self.0.notes
    }

    /// Runs `task` until enough replicas agree. Where the stages run a second time, since an answer changed, the verdicts
    /// on all tasks stand that read nothing else than before.
    ///
    /// # Errors
    /// Budget where the job cannot afford it; Data where the query itself fails on the data or needs more memory than the largest class; Unavailable where no
    /// node is left; Verification where those that are left cannot agree.
    pub(crate) async fn settle(&self, task: Arc<Prepared>) -> Result<Settled> {
        if let Some(stands) = self.0.lineage.verdict(task.stage.key).filter(|v| v.asked == task.cid) {
            self.0.notes.stands(&stands);
            return Ok(stands);
        }
        let _reserved = self.reserve(&task).await?;
        let settled = self.agree(task).await?;
        self.0.lineage.record(&settled);
        self.owe(&settled)?;
        self.0.notes.settled(&settled);
        Ok(settled)
    }

    async fn agree(&self, mut task: Arc<Prepared>) -> Result<Settled> {
        let asked = task.cid;
        loop {
            match Round::fresh(self.clone(), Arc::clone(&task)).run().await? {
                Verdict::Settled(settled) => return Ok(Settled { asked, ..*settled }),
                Verdict::TooSmall => {
                    let context = &self.0.context;
                    task = Arc::new(in_bigger_class(&task, &context.fleet, context.checking.votes())?);
                }
            }
        }
    }

    /// Where each input of `task` is found now; `None` where nobody has one any more.
    pub(super) fn known_sources(&self, task: &Prepared) -> Result<Option<Vec<Source>>> {
        let shards = task.envelope.shards.iter().map(|shard| self.0.context.shard_source(&shard.cid));
        let (mut sources, connected) = (shards.collect::<Result<Vec<_>>>()?, self.connected());
        for block in &task.envelope.blocks {
            let Some(source) = self.known_source(&block.cid, block.volume.bytes, &connected) else { return Ok(None) };
            sources.push(source);
        }
        Ok(Some(sources))
    }

    /// The same; inputs that nobody has any more are made again first.
    pub(super) async fn sources(&self, task: &Prepared) -> Result<Vec<Source>> {
        loop {
            if let Some(sources) = self.known_sources(task)? {
                return Ok(sources);
            }
            self.make_lost_inputs(task).await?;
        }
    }

    async fn make_lost_inputs(&self, task: &Prepared) -> Result<()> {
        let found = |block: &InputBlock| {
            let (cid, len) = (block.cid, block.volume.bytes);
            async move { self.block_source(&cid, len).await }.boxed()
        };
        let blocks: Vec<BoxFuture<'_, Result<Source>>> = task.envelope.blocks.iter().map(found).collect();
        futures::stream::iter(blocks).buffer_unordered(REBUILT_AT_ONCE).try_for_each(|_| async { Ok(()) }).await
    }

    /// Where a block of an earlier stage is found.
    ///
    /// # Errors
    /// As [`Settler::settle`], where it has to be made again and cannot be.
    pub(crate) async fn block_source(&self, cid: &Cid, len: u64) -> Result<Source> {
        loop {
            if let Some(source) = self.known_source(cid, len, &self.connected()) {
                return Ok(source);
            }
            self.rebuild(*cid).await?;
        }
    }

    fn connected(&self) -> HashSet<NodeId> {
        self.0.context.fleet.connected().into_iter().map(|p| p.id).collect()
    }

    fn known_source(&self, cid: &Cid, len: u64, connected: &HashSet<NodeId>) -> Option<Source> {
        self.0.lineage.source(cid, len, connected, self.0.context.rng.as_ref())
    }

    fn producer(&self, cid: &Cid) -> Result<Settled> {
        self.0.lineage.producer(cid).ok_or_else(|| Error::internal(format!("nobody made {cid}")))
    }

    fn gate(&self, task: TaskKey) -> Arc<tokio::sync::Mutex<usize>> {
        let mut gates = self.0.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(task).or_default())
    }

    fn rebuild(&self, cid: Cid) -> BoxFuture<'_, Result<()>> {
        async move {
            let lost = self.producer(&cid)?;
            let stage = lost.task.stage.key.stage;
            let gate = self.gate(lost.task.stage.key);
            let mut times = gate.lock().await;
            if self.known_source(&cid, 0, &self.connected()).is_some() {
                return Ok(());
            }
            if *times == MAX_REBUILDS {
                let what =
                    format!("stage {stage}: a block was lost again and again, though its task was run {times} times");
                return Err(
                    Error::unavailable(what).with_hint("the nodes that make it do not serve it: connect more nodes")
                );
            }
            tracing::info!(%cid, stage, "a block was lost with its nodes: running its task again");
            let again = self.agree(Arc::clone(&lost.task)).await?;
            // Whoever waited for it may go away before: that is no loss.
            *times += 1;
            if again.outputs != lost.outputs {
                return self.settle_contradiction(lost, again).await;
            }
            self.owe(&again)?;
            self.0.notes.settled_again(&again);
            self.0.lineage.record(&again);
            self.0.notes.warn(format!("stage {stage}: blocks were lost with their nodes and made again"));
            Ok(())
        }
        .boxed()
    }

    /// Reads a piece of a block from every holder of it that a reader was told of, and forgets those that do not give it; tells
    /// whether any does not, or was forgotten before. What a node says that it has is not asked: it may say so and not serve.
    pub(super) async fn probe(&self, told: &Source) -> bool {
        let cid = &told.cid;
        let known = self.0.lineage.holders(cid);
        let known =
            |holder: &Holder| known.iter().any(|k| (k.peer.id, k.capability) == (holder.peer.id, holder.capability));
        // Holders of shards have none: tables see to them.
        let of_the_job = told.holders.iter().filter(|holder| holder.capability.is_some());
        let (there, forgotten): (Vec<&Holder>, Vec<&Holder>) = of_the_job.partition(|holder| known(holder));
        let reads = there.into_iter().map(|holder| async move {
            let read = ReadBlock { cid: *cid, offset: 0, len: SAMPLE, capability: holder.capability };
            let read = self.0.context.network.read_block(&holder.peer, read);
            let served = matches!(tokio::time::timeout(self.0.context.config.patience, read).await, Ok(Ok(_)));
            if !served {
                self.0.context.fleet.failed(holder.peer.id);
                self.0.lineage.forget(cid, holder.peer.id);
            }
            !served
        });
        join_all(reads).await.contains(&true) || !forgotten.is_empty()
    }

    /// Checks what a node complains of: only what we saw ourselves counts. Bounded in time, as the accused may dribble.
    pub(super) async fn check_complaints(&self, complaints: &[Complaint]) {
        let checks = complaints.iter().map(|complaint| self.check_complaint(complaint));
        let _ = tokio::time::timeout(self.0.context.config.patience, join_all(checks)).await;
    }

    /// Reads the block that a node complains about, from the accused.
    async fn check_complaint(&self, complaint: &Complaint) {
        let context = &self.0.context;
        let accused = context.fleet.connected().into_iter().find(|p| p.id == complaint.peer);
        let Some(peer) = accused else { return };
        let holders = self.0.lineage.holders(&complaint.cid);
        let capability = holders.iter().find(|h| h.peer.id == complaint.peer).and_then(|h| h.capability);
        let read = ReadBlock { cid: complaint.cid, offset: 0, len: u64::MAX, capability };
        if let Err(CallError::Misbehaved { reason, .. }) = context.network.read_block(&peer, read).await {
            self.caught(complaint.peer, &reason);
        }
    }

    /// Looks at what votes do not show, before the answer is released: whether nodes serve what they agreed on, stand by
    /// what they signed, and counted rightly.
    pub(crate) async fn examine(&self) {
        if !self.0.context.checking.is_off() {
            self.sample_holders().await;
            self.cross_examine().await;
        }
        self.count_rows().await;
    }

    /// Reads a piece of one block of every node that voted: a node that agreed must also serve what it agreed on.
    async fn sample_holders(&self) {
        let checks: FuturesUnordered<_> = self
            .0
            .lineage
            .samples(self.0.context.rng.as_ref())
            .into_iter()
            .map(|sample| async move {
                let (holder, cid) = sample;
                let read = ReadBlock { cid, offset: 0, len: SAMPLE, capability: holder.capability };
                if let Err(CallError::Misbehaved { reason, .. }) =
                    self.0.context.network.read_block(&holder.peer, read).await
                {
                    self.caught(holder.peer.id, &reason);
                }
            })
            .collect();
        let _ = tokio::time::timeout(self.0.context.config.patience, checks.collect::<Vec<()>>()).await;
    }

    /// `node` did what no honest node does: it counts as a vote that its operator lost.
    pub(crate) fn caught(&self, node: NodeId, how: &str) {
        self.observe(node, Outcome::Wrong);
        self.lied(node, how, None);
    }

    /// How a replica on `node` ended.
    pub(super) fn observe(&self, node: NodeId, outcome: Outcome) {
        self.0.context.credit.observe(&node, outcome);
    }

    /// `node` lied, maybe `on` a task, and its operator lost its record.
    pub(super) fn lied(&self, node: NodeId, how: &str, on: Option<Cid>) {
        tracing::warn!(%node, how, "caught");
        self.0.notes.liar(node, on);
        if let Some(payments) = &self.0.context.payments {
            payments.caught(self.0.context.job, node, how);
        }
    }

    /// `node` sent wrong bytes for `cid`, or has it no more: read it elsewhere.
    pub(crate) fn forget(&self, cid: &Cid, node: NodeId) {
        self.0.lineage.forget(cid, node);
    }
}

fn in_bigger_class(task: &Prepared, fleet: &Fleet, votes: usize) -> Result<Prepared> {
    let (memory, stage) = (task.envelope.memory, task.stage.key.stage);
    let exceeded = || {
        let most = memory.bytes() >> 20;
        Error::data(format!("memory exceeded: a task of stage {stage} needs more than {most} MiB"))
    };
    let smaller = "filter earlier, aggregate over fewer groups, or join smaller sides";
    let next = memory.next().ok_or_else(|| exceeded().with_hint(smaller))?;
    if fleet.most_memory(votes) < next {
        let more = format!("too few nodes lend a task more (conun node --memory); {smaller}");
        return Err(exceeded().with_hint(more));
    }
    task.in_class(next)
}
