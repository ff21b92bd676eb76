//! The inputs of one task: from the local store, else from the holders that the offer names, else decoded from the
//! shard's group.
//!
//! Inputs that are not here are fetched while the runner starts. The network verified what it hands out; a holder that
//! sent wrong bytes is named in a complaint, and the next one is asked.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_executor::runner::InputSource;
use conun_storage::{
    Store,
    holders::{self, Reader},
};
use conun_types::{
    Capability, Cid, Clock, Complaint, Error, Failure, Holder, Lease, LeaseId, LeaseKind, NodeId, Source, TaskEnvelope,
    port::{CallError, Network},
    wire::{BlockError, ReadBlock, WriteBlock},
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;

use crate::capabilities::Capabilities;

/// Inputs fetched at once for a task.
const PARALLEL: usize = 8;
/// How long a fetched block is kept for later tasks, unless room is needed.
const CACHE_SECONDS: u64 = 3600;

/// Blocks up to this size are read and written on the caller's thread: handing them to another costs more.
const SMALL: usize = 256 << 10;

/// Runs `job`, which moves about `len` bytes, where it does not hold up others.
pub(crate) async fn on_store<T: Send + 'static>(
    store: &Arc<Store>,
    len: usize,
    job: impl FnOnce(&Store) -> Result<T, BlockError> + Send + 'static,
) -> Result<T, BlockError> {
    if len <= SMALL {
        return job(store);
    }
    let store = store.clone();
    let done = tokio::task::spawn_blocking(move || job(&store)).await;
    done.unwrap_or_else(|e| Err(BlockError::Node(e.to_string())))
}

/// What opened each block that was fetched: a capability, or nothing where its holder gives it to anybody.
#[derive(Default)]
pub(crate) struct Opened(Mutex<HashMap<Cid, HashSet<Option<Capability>>>>);

impl Opened {
    fn lock(&self) -> MutexGuard<'_, HashMap<Cid, HashSet<Option<Capability>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, cid: Cid, by: Option<Capability>) {
        self.lock().entry(cid).or_default().insert(by);
    }

    fn allows(&self, cid: &Cid, by: Option<Capability>) -> bool {
        self.lock().get(cid).is_some_and(|opened| opened.contains(&by))
    }

    /// Forgets blocks that are not `kept` any more.
    pub(crate) fn retain(&self, kept: impl Fn(&Cid) -> bool) {
        self.lock().retain(|cid, _| kept(cid));
    }
}

/// What a fetch needs of its node.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) local: NodeId,
    pub(crate) store: Arc<Store>,
    /// Who may read what this node made.
    pub(crate) capabilities: Arc<Mutex<Capabilities>>,
    pub(crate) opened: Arc<Opened>,
    pub(crate) network: Option<Arc<dyn Network>>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Surroundings {
    /// Whether the block lies here and the order shows what opens it: that a node has a block is no reason to give it
    /// to every coordinator that knows its name.
    fn may_use(&self, cid: &Cid, source: Option<&Source>) -> bool {
        if !self.store.contains(cid) {
            return false;
        }
        let opens = |shown: Option<Capability>| {
            let granted = || self.capabilities.lock().unwrap_or_else(PoisonError::into_inner);
            self.opened.allows(cid, shown) || shown.is_some_and(|capability| granted().allows(cid, &capability))
        };
        self.store.is_public(cid) || source.is_some_and(|s| s.holders.iter().any(|h| opens(h.capability)))
    }
}

/// The inputs of one task.
pub(crate) struct TaskFetch {
    node: Surroundings,
    inputs: HashMap<Cid, Input>,
    complaints: Mutex<Vec<Complaint>>,
}

/// An input, where it may be found, and what became of fetching it.
struct Input {
    source: Option<Source>,
    /// It was made by an earlier task of the job, and can be made again.
    is_block: bool,
    fetched: OnceCell<Result<Fetched, Failure>>,
}

#[derive(Clone)]
enum Fetched {
    Held(Bytes),
    Stored,
}

impl TaskFetch {
    pub(crate) fn new(node: Surroundings, envelope: &TaskEnvelope, sources: Vec<Source>) -> Self {
        let mut sources: HashMap<Cid, Source> = sources.into_iter().map(|s| (s.cid, s)).collect();
        let shards = envelope.shards.iter().map(|s| (s.cid, false));
        let cids = shards.chain(envelope.blocks.iter().map(|b| (b.cid, true)));
        let mut input =
            |(cid, is_block)| (cid, Input { source: sources.remove(&cid), is_block, fetched: OnceCell::new() });
        let inputs = cids.map(&mut input).collect();
        Self { node, inputs, complaints: Mutex::default() }
    }

    /// Fetches what is not here.
    ///
    /// # Errors
    /// The first block of the job that is not to be had: it can be made again, and should be before the runner has worked for
    /// long. A plan may end before it comes to it (under a `LIMIT`), but that is rare. Shards cannot be made again: that one is
    /// missing is said where the runner asks for it.
    pub(crate) async fn prefetch(&self) -> Result<(), Failure> {
        let missing = self.inputs.iter().filter(|(cid, input)| !self.node.may_use(cid, input.source.as_ref()));
        stream::iter(missing)
            .map(Ok)
            .try_for_each_concurrent(PARALLEL, |(cid, input)| async move {
                let fetched = self.fetched(cid, input).await;
                if input.is_block { fetched.map(drop) } else { Ok(()) }
            })
            .await
    }

    /// Holders that sent wrong bytes.
    pub(crate) fn complaints(&self) -> Vec<Complaint> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn fetched(&self, cid: &Cid, input: &Input) -> Result<Fetched, Failure> {
        input.fetched.get_or_init(|| self.fetch(*cid, input.source.as_ref())).await.clone()
    }

    async fn fetch(&self, cid: Cid, source: Option<&Source>) -> Result<Fetched, Failure> {
        let source = source.ok_or(Failure::InputMissing(cid))?;
        let bytes = match holders::read(self, source).await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::info!(%cid, %error, "an input is not to be had");
                return Err(Failure::InputMissing(cid));
            }
        };
        let stored = self.cache(cid, bytes.clone()).await;
        Ok(if stored { Fetched::Stored } else { Fetched::Held(bytes) })
    }

    /// Keeps a fetched block for later tasks; false where there is no room.
    async fn cache(&self, cid: Cid, bytes: Bytes) -> bool {
        let expires = self.node.clock.unix_seconds().saturating_add(CACHE_SECONDS);
        let lease = Lease { id: LeaseId::named("fetched"), kind: LeaseKind::Cache, expires };
        let request = WriteBlock { cid, len: bytes.len() as u64, lease };
        let local = self.node.local;
        on_store(&self.node.store, bytes.len(), move |store| store.keep(local, &request, bytes)).await.is_ok()
    }

    /// The block, where it lies here and the order shows what opens it.
    async fn held(&self, cid: Cid, source: Option<&Source>) -> Option<Bytes> {
        if !self.node.may_use(&cid, source) {
            return None;
        }
        self.stored(cid).await.ok()
    }

    /// The block as it lies in the local store.
    async fn stored(&self, cid: Cid) -> Result<Bytes, BlockError> {
        let len = self.node.store.len_of(&cid).ok_or(BlockError::NotFound)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        on_store(&self.node.store, len, move |store| store.read(&cid)).await
    }
}

#[async_trait]
impl Reader for TaskFetch {
    async fn here(&self, source: &Source) -> Option<Bytes> {
        self.held(source.cid, Some(source)).await
    }

    async fn ask(&self, source: &Source, holder: &Holder) -> conun_types::Result<Bytes> {
        let peer = holder.peer.id;
        let network = self.node.network.as_ref().filter(|_| peer != self.node.local);
        let network = network.ok_or_else(|| Error::unavailable("this node does not have it and is asked itself"))?;
        let read = network.read_block(&holder.peer, ReadBlock::whole(source.cid, holder.capability)).await;
        if let Err(CallError::Misbehaved { reason, .. }) = &read {
            tracing::warn!(%peer, cid = %source.cid, reason, "a holder sent wrong bytes; the coordinator is told");
            let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
            complaints.push(Complaint { peer, cid: source.cid });
        }
        let bytes = read?;
        self.node.opened.note(source.cid, holder.capability);
        Ok(bytes)
    }

    fn line(&self) -> u64 {
        holders::VOLUNTEER_LINE
    }
}

#[async_trait]
impl InputSource for TaskFetch {
    fn may_reuse(&self, cid: &Cid) -> bool {
        self.inputs.get(cid).is_some_and(|input| self.node.may_use(cid, input.source.as_ref()))
    }

    async fn load(&self, cid: Cid) -> Result<Bytes, Failure> {
        // The runner ran a stranger's plan: it gets the task's inputs and nothing else of the store.
        let input = self.inputs.get(&cid).ok_or_else(|| Failure::Refused(format!("{cid} is no input of the task")))?;
        if !input.fetched.initialized()
            && let Some(bytes) = self.held(cid, input.source.as_ref()).await
        {
            return Ok(bytes);
        }
        match self.fetched(&cid, input).await? {
            Fetched::Held(bytes) => Ok(bytes),
            Fetched::Stored => self.stored(cid).await.map_err(|_| Failure::InputMissing(cid)),
        }
    }
}
