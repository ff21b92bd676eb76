//! The honest volunteer.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_executor::{
    TaskOutput,
    runner::{RunnerConfig, RunnerPool},
};
use conun_storage::{Limits, Store};
use conun_types::{
    Answer, Clock, Complaint, Error, Failure, NodeId, NodeKey, OsRng, Outcome, OutputBlock, Result, SignedReceipt,
    SystemClock, TaskEnvelope, TaskOffer, TaskReceipt, Vote, WorkUnits,
    port::{Network, OfferReply, Volunteer},
    profile,
    task::{output_volume, outputs_root},
    wire::{BlockError, ControlReply, ControlRequest, Hello, PROTOCOL_VERSION, ReadBlock, WriteBlock},
};

use crate::{
    capabilities::Capabilities,
    cashier::{Cashier, PayTerms},
    config::NodeConfig,
    delay::Delayed,
    desk::{Desk, Terms},
    envelope::{Unfit, open_envelope},
    fetch::{Opened, Surroundings, TaskFetch, on_store},
    till::Work,
    twin,
};

/// A volunteer: one key, one store, some runners.
pub struct NodeService {
    config: NodeConfig,
    pub(crate) key: NodeKey,
    pub(crate) cashier: Cashier,
    clock: Arc<dyn Clock>,
    store: Arc<Store>,
    capabilities: Arc<Mutex<Capabilities>>,
    opened: Arc<Opened>,
    desk: Mutex<Desk>,
    runners: RunnerPool,
    network: OnceLock<Arc<dyn Network>>,
}

/// What came of running a task, before anything of it is kept or signed.
pub(crate) struct Executed {
    pub(crate) envelope: TaskEnvelope,
    pub(crate) output: TaskOutput,
    pub(crate) complaints: Vec<Complaint>,
}

impl NodeService {
    /// Opens the store in `config.dir`, starts a runner, and collects expired leases in the background as long as the
    /// service lives. Call it inside a Tokio runtime.
    ///
    /// # Errors
    /// Those of the file system; kind `Internal` where no runner can be started.
    pub fn start(config: NodeConfig, key: NodeKey) -> Result<Arc<Self>> {
        Self::start_with(config, key, None, Arc::new(SystemClock))
    }

    /// As [`NodeService::start`], for pay where there are terms, and with another clock.
    ///
    /// # Errors
    /// As [`NodeService::start`].
    pub fn start_with(
        config: NodeConfig,
        key: NodeKey,
        pay: Option<PayTerms>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>> {
        let limits = Limits { per_coordinator: config.per_coordinator_quota, ..Limits::of(config.store_quota) };
        let store = Store::open(&config.dir, key.id(), limits, clock.clone())?;
        let capabilities = Capabilities::open(&capabilities_path(&config.dir))?;
        let cashier = Cashier::open(&config.dir, pay, key.clone(), clock.clone())?;
        let terms = Terms {
            id: key.id(),
            cores: config.cores.max(1),
            memory: config.memory,
            allow: config.allow.clone(),
            domain: cashier.domain(),
        };
        let runners = RunnerPool::new(RunnerConfig {
            command: config.runner.clone(),
            args: config.runner_args.clone(),
            max: terms.cores,
        });
        runners.warm()?;
        let service = Arc::new(Self {
            key,
            cashier,
            clock,
            store: Arc::new(store),
            capabilities: Arc::new(Mutex::new(capabilities)),
            opened: Arc::default(),
            desk: Mutex::new(Desk::new(terms)),
            runners,
            network: OnceLock::new(),
            config,
        });
        tokio::spawn(collect_garbage(Arc::downgrade(&service), service.config.gc_interval));
        tokio::spawn(redeem_vouchers(Arc::downgrade(&service), service.config.redeem_interval));
        Ok(service)
    }

    /// Gives the service the network through which it fetches inputs. The network needs the service first, hence this
    /// second step; only the first call counts.
    pub fn attach(&self, network: Arc<dyn Network>) {
        let _ = self.network.set(network);
    }

    /// What to serve to peers: this service, or its dishonest or late twin where the configuration asks for one.
    #[must_use]
    pub fn volunteer(self: &Arc<Self>) -> Arc<dyn Volunteer> {
        let volunteer: Arc<dyn Volunteer> = match self.config.liar {
            Some(mode) => Arc::new(twin::Twin::new(self.clone(), mode)),
            None => self.clone(),
        };
        match self.config.delay {
            Some(most) => Arc::new(Delayed::new(volunteer, most, Arc::new(OsRng))),
            None => volunteer,
        }
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.key.id()
    }

    /// Its blocks.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn capabilities(&self) -> MutexGuard<'_, Capabilities> {
        self.capabilities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network, once there is one.
    pub(crate) fn network(&self) -> Option<Arc<dyn Network>> {
        self.network.get().cloned()
    }

    fn welcome(&self, from: &NodeId) -> bool {
        self.desk().terms().welcome(from)
    }

    /// The envelope of a task that was accepted.
    pub(crate) fn envelope(&self, from: NodeId, offer: &TaskOffer, encoded: &[u8]) -> Result<TaskEnvelope, Failure> {
        if !self.desk().is_open(&from, &offer.order.order) {
            return Err(Failure::Refused("no such offer was accepted".into()));
        }
        open_envelope(offer, encoded).map_err(|unfit| Failure::Refused(unfit.to_string()))
    }

    /// Runs an accepted task, in the time that its offer gives.
    pub(crate) async fn execute(
        &self,
        from: NodeId,
        offer: &TaskOffer,
        encoded: &Bytes,
    ) -> Result<Executed, (Failure, Vec<Complaint>)> {
        let envelope = self.envelope(from, offer, encoded).map_err(|failure| (failure, Vec::new()))?;
        let node = Surroundings {
            local: self.id(),
            store: self.store.clone(),
            capabilities: self.capabilities.clone(),
            opened: self.opened.clone(),
            network: self.network(),
            clock: self.clock.clone(),
        };
        let fetch = TaskFetch::new(node, &envelope, offer.sources.clone());
        let time = Duration::from_millis(offer.timeout_ms);
        let outcome = tokio::time::timeout(time, self.run_fetching(&envelope, encoded, &fetch)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Failure::Node("out of time".into())));
        let complaints = fetch.complaints();
        match outcome {
            Ok(output) => Ok(Executed { envelope, output, complaints }),
            Err(failure) => Err((failure, complaints)),
        }
    }

    /// Runs the task while its inputs arrive.
    async fn run_fetching(
        &self,
        envelope: &TaskEnvelope,
        encoded: &Bytes,
        fetch: &TaskFetch,
    ) -> Result<TaskOutput, Failure> {
        let run = self.runners.run(envelope, encoded, fetch);
        tokio::pin!(run);
        tokio::select! {
            biased;
            output = &mut run => output,
            fetched = fetch.prefetch() => {
                fetched?;
                run.await
            }
        }
    }

    /// Keeps the blocks of a task and signs for them.
    pub(crate) async fn publish(
        &self,
        from: NodeId,
        offer: &TaskOffer,
        envelope: &TaskEnvelope,
        output: TaskOutput,
    ) -> Result<Vote, Failure> {
        let outputs: Vec<OutputBlock> = output.blocks.iter().map(|(block, _)| *block).collect();
        let node = |e: Error| Failure::Node(e.message);
        for (block, bytes) in output.blocks {
            let request = WriteBlock { cid: block.cid, len: block.bytes, lease: offer.lease };
            let kept = on_store(&self.store, bytes.len(), move |store| store.keep(from, &request, bytes)).await;
            kept.map_err(|e| Failure::Node(e.to_string()))?;
        }
        // Afterwards: grants of blocks that are not kept are forgotten at the next collection.
        self.capabilities().grant(offer.capability, outputs.iter().map(|b| b.cid).collect()).map_err(node)?;
        let receipt = self.receipt(offer, envelope, &outputs).map_err(node)?;
        Ok(Vote { receipt: self.sign(from, offer, envelope, receipt).map_err(node)?, outputs })
    }

    /// Signs a receipt and keeps it until it is paid.
    pub(crate) fn sign(
        &self,
        from: NodeId,
        offer: &TaskOffer,
        envelope: &TaskEnvelope,
        receipt: TaskReceipt,
    ) -> Result<SignedReceipt> {
        let receipt = SignedReceipt::sign(receipt, &self.cashier.domain(), &self.key);
        let now = self.clock.unix_seconds();
        self.cashier.signed(Work::of(from, &offer.order.order, envelope.stage, receipt.clone(), now))?;
        Ok(receipt)
    }

    fn receipt(&self, offer: &TaskOffer, envelope: &TaskEnvelope, outputs: &[OutputBlock]) -> Result<TaskReceipt> {
        let volume = output_volume(outputs);
        Ok(TaskReceipt {
            order_hash: offer.order.order.struct_hash()?,
            provider: self.key.address(),
            profile: envelope.profile,
            inputs_root: envelope.inputs_root(),
            outputs_root: outputs_root(outputs),
            rows: volume.rows,
            bytes: volume.bytes,
            units: WorkUnits::of(envelope.input_volume(), volume),
        })
    }

    /// To whoever cannot open it, a block is as good as missing: a node that tells whether it has made a block of some
    /// name gives its vote away.
    fn may_read(&self, request: &ReadBlock) -> Result<(), BlockError> {
        let opens = |capability| self.capabilities().allows(&request.cid, &capability);
        match self.store.is_public(&request.cid) || request.capability.is_some_and(opens) {
            true => Ok(()),
            false => Err(BlockError::NotFound),
        }
    }

    fn renew(&self, from: NodeId, cids: &[conun_types::Cid], lease: conun_types::Lease) -> ControlReply {
        match self.store.renew(from, cids, lease) {
            Ok(here) => ControlReply::Has(here),
            Err(error) => refuse(&error.to_string()),
        }
    }

    fn collect(&self) {
        let collected = self.store.gc(self.clock.unix_seconds());
        self.opened.retain(|cid| self.store.contains(cid));
        let retained = self.capabilities().retain(|cid| self.store.contains(cid));
        match (collected, retained) {
            (Ok(freed), Ok(())) if freed.blocks > 0 => tracing::debug!(?freed, "leases expired"),
            (Ok(_), Ok(())) => {}
            (collected, retained) => tracing::warn!(?collected, ?retained, "the store could not be tidied"),
        }
    }
}

fn capabilities_path(dir: &Path) -> std::path::PathBuf {
    dir.join("capabilities.log")
}

fn refuse(reason: &str) -> ControlReply {
    ControlReply::Refused(Error::unavailable(reason))
}

async fn redeem_vouchers(service: Weak<NodeService>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(service) = service.upgrade() else { return };
        service.cashier.redeem_due().await;
    }
}

async fn collect_garbage(service: Weak<NodeService>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(service) = service.upgrade() else { return };
        // Deleting files may take its time.
        if tokio::task::spawn_blocking(move || service.collect()).await.is_err() {
            return;
        }
    }
}

/// Holds a task's slot; gives it back however the task ends, also when it is cancelled.
pub(crate) struct Slot<'a> {
    service: &'a NodeService,
    from: NodeId,
    offer: &'a TaskOffer,
}

impl<'a> Slot<'a> {
    pub(crate) fn new(service: &'a NodeService, from: NodeId, offer: &'a TaskOffer) -> Self {
        Self { service, from, offer }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.service.desk().close(&self.from, &self.offer.order.order);
    }
}

/// `outcome` as an answer; complaints go along whatever came of the task.
pub(crate) fn answer(outcome: Result<Vote, Failure>, complaints: Vec<Complaint>) -> Answer {
    let outcome = outcome.map_or_else(Outcome::Failed, Outcome::Done);
    Answer { outcome, complaints }
}

#[async_trait]
impl Volunteer for NodeService {
    fn hello(&self) -> Hello {
        let (store_used, store_quota) = self.store.usage();
        let desk = self.desk();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Hello {
            version: PROTOCOL_VERSION,
            agent: format!("conun/{}", env!("CARGO_PKG_VERSION")),
            volunteer: true,
            profiles: vec![profile::hash().into()],
            cores: count(desk.terms().cores),
            running: count(desk.running()),
            memory: desk.terms().memory,
            store_quota,
            store_used,
            pay: self.cashier.ask(),
        }
    }

    async fn offer(&self, from: NodeId, offer: &TaskOffer) -> OfferReply {
        if let Err(declined) = self.desk().check(&from, offer, self.clock.now().as_secs()) {
            return declined;
        }
        if let Some(declined) = self.cashier.declines(&from, offer).await {
            return declined;
        }
        self.desk().offer(from, offer, self.clock.now())
    }

    fn examine(&self, _: NodeId, offer: &TaskOffer, envelope: &[u8]) -> Result<(), String> {
        match open_envelope(offer, envelope) {
            Err(unfit @ Unfit::Breach(_)) => Err(unfit.to_string()),
            // What an honest coordinator may send is answered in place of a vote.
            Err(Unfit::OtherFormat(_)) | Ok(_) => Ok(()),
        }
    }

    async fn run(&self, from: NodeId, offer: TaskOffer, envelope: Bytes) -> Answer {
        let _slot = Slot::new(self, from, &offer);
        match self.execute(from, &offer, &envelope).await {
            Ok(Executed { envelope, output, complaints }) => {
                answer(self.publish(from, &offer, &envelope, output).await, complaints)
            }
            Err((failure, complaints)) => answer(Err(failure), complaints),
        }
    }

    fn release(&self, from: NodeId, offer: &TaskOffer) {
        self.desk().close(&from, &offer.order.order);
    }

    async fn read_block(&self, _: NodeId, request: &ReadBlock) -> Result<Bytes, BlockError> {
        self.may_read(request)?;
        let cid = request.cid;
        let len = self.store.len_of(&cid).and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
        on_store(&self.store, len, move |store| store.read(&cid)).await
    }

    async fn may_write(&self, from: NodeId, request: &WriteBlock) -> Result<(), BlockError> {
        if !self.welcome(&from) {
            return Err(BlockError::Denied);
        }
        self.store.admit(from, request)
    }

    async fn write_block(&self, from: NodeId, request: WriteBlock, data: Bytes) -> Result<(), BlockError> {
        if !self.welcome(&from) {
            return Err(BlockError::Denied);
        }
        // Tables and pins are synced to disk: that waits even where they are small.
        on_store(&self.store, usize::MAX, move |store| store.keep(from, &request, data)).await
    }

    async fn control(&self, from: NodeId, request: ControlRequest) -> ControlReply {
        let changes =
            matches!(request, ControlRequest::Renew { .. } | ControlRequest::PutPointer(_) | ControlRequest::Pay(_));
        if changes && !self.welcome(&from) {
            return refuse("this node serves other coordinators");
        }
        match request {
            ControlRequest::Hello => ControlReply::Hello(self.hello()),
            ControlRequest::Has(cids) => {
                ControlReply::Has(cids.iter().map(|cid| self.store.shows(&from, cid)).collect())
            }
            ControlRequest::Renew { cids, lease } => self.renew(from, &cids, lease),
            ControlRequest::EndLease(lease) => match self.store.end_lease(from, lease) {
                Ok(()) => ControlReply::Done,
                Err(error) => refuse(&error.to_string()),
            },
            ControlRequest::PutPointer(pointer) => match self.store.put_pointer(pointer) {
                Ok(()) => ControlReply::Done,
                Err(error) => ControlReply::Refused(error),
            },
            ControlRequest::Pointers => ControlReply::Pointers(self.store.pointers()),
            ControlRequest::Peers => ControlReply::Peers(Vec::new()),
            ControlRequest::Pay(payment) => match self.cashier.pay(from, *payment).await {
                Ok(claims) => ControlReply::Claims(claims),
                Err(error) => ControlReply::Refused(error),
            },
            ControlRequest::Receipt(order_hash) => {
                ControlReply::Receipt(self.cashier.receipt(&from, &order_hash).map(Box::new))
            }
        }
    }
}
