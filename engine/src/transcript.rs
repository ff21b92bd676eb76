//! A job's receipts as evidence: what anyone can check of them without trusting the coordinator, a node or a network.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use conun_types::{
    AccountId, Address, Amount, Cid, Error, JobId, NodeId, NodeKey, Result, Signature, StageRecord, WorkUnits, codec,
    eip712::Domain, hex32, ledger::SettledBatch, payment::Settlement, task::output_volume,
};
use serde::{Deserialize, Serialize};

use crate::record::{ReceiptRecord, stage_records};

/// A job with everything that was signed for it, as `conun job receipts JOB --json` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcript {
    /// The job.
    pub job: JobId,
    /// Where orders and receipts are signed.
    pub domain: Domain,
    /// Nodes that were caught in it.
    pub liars: Vec<NodeId>,
    /// The receipts.
    pub receipts: Vec<ReceiptRecord>,
    /// The coordinator's signature over all that is above: no vote can be left out later, nor a verdict turned. The
    /// coordinator itself is not bound by it; nodes keep what they signed.
    #[serde(default)]
    pub seal: Option<Signature>,
}

/// What the receipts show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The job.
    pub job: JobId,
    /// Who ordered it: every order is signed by this key.
    pub coordinator: Option<NodeId>,
    /// Receipts, all of them with good hashes and signatures.
    pub receipts: usize,
    /// Tasks that were accepted.
    pub tasks: usize,
    /// Tasks that have receipts and no verdict on blocks: the votes differ, are too few, or others said, which nobody signs,
    /// that the query fails or needs more memory.
    pub open: usize,
    /// Fewest nodes that agreed on a task that was accepted.
    pub votes: usize,
    /// Work units, counted for each node that is paid.
    pub units: WorkUnits,
    /// What that costs.
    pub cost: Amount,
    /// The sums for each stage and provider, as a settlement has them.
    pub records: Vec<StageRecord>,
}

/// What a chain shows of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OnChain {
    /// The account that paid.
    pub account: AccountId,
    /// Batches with records of the job.
    pub batches: Vec<u32>,
    /// What they credit for it.
    pub paid: Amount,
    /// Roots of these batches, rebuilt from the records in the events.
    pub roots: Vec<String>,
}

fn broken(what: impl std::fmt::Display) -> Error {
    Error::verification(format!("the receipts do not hold: {what}"))
}

impl Transcript {
    /// Checks every hash and signature, that orders and receipts fit each other, that whoever was accepted for a task said
    /// the same, and adds up.
    ///
    /// # Errors
    /// Verification naming the first thing that does not hold.
    pub fn verify(&self) -> Result<Verified> {
        if self.receipts.is_empty() {
            return Err(Error::verification(format!("there is no receipt for job {}", self.job))
                .with_hint("what a coordinator computes itself has none, nor has a job that was stopped at once"));
        }
        let (mut orders, mut requesters) = (HashSet::new(), BTreeSet::new());
        let mut tasks: BTreeMap<(u32, u32, Cid), Vec<&ReceiptRecord>> = BTreeMap::new();
        for record in &self.receipts {
            requesters.insert(self.check(record).map_err(|e| broken(e.message))?);
            if !orders.insert(record.receipt.receipt.order_hash) {
                return Err(broken("an order was answered twice"));
            }
            tasks.entry((record.stage, record.task, record.task_cid)).or_default().push(record);
        }
        if requesters.len() > 1 {
            return Err(broken("its orders are signed by more than one coordinator"));
        }
        let (mut votes, mut open) = (Vec::new(), 0);
        for ((stage, task, _), records) in &tasks {
            match agreement(records).map_err(|e| broken(format!("stage {stage}, task {task}: {e}")))? {
                0 => open += 1,
                agreeing => votes.push(agreeing),
            }
        }
        let coordinator = requesters.into_iter().next();
        self.check_seal(coordinator.as_ref())?;
        let records = stage_records(self.job, &self.receipts, &self.liars);
        Ok(Verified {
            job: self.job,
            coordinator,
            receipts: self.receipts.len(),
            tasks: tasks.len() - open,
            open,
            votes: votes.into_iter().min().unwrap_or(0),
            units: WorkUnits(records.iter().fold(0u64, |sum, r| sum.saturating_add(r.units.0))),
            cost: records.iter().map(|r| r.amount).sum(),
            records,
        })
    }

    /// What the coordinator signs: a hash of everything but the signature.
    ///
    /// # Errors
    /// Internal where it cannot be encoded.
    pub fn hash(&self) -> Result<[u8; 32]> {
        let bytes = codec::encode(&(self.job, self.domain, &self.liars, &self.receipts))?;
        Ok(blake3::derive_key("conun transcript v1", &bytes))
    }

    /// The transcript with the signature of its coordinator.
    ///
    /// # Errors
    /// As [`Transcript::hash`].
    pub fn sealed(self, coordinator: &NodeKey) -> Result<Self> {
        let seal = Some(coordinator.sign(&self.hash()?));
        Ok(Self { seal, ..self })
    }

    fn check_seal(&self, coordinator: Option<&NodeId>) -> Result<()> {
        let (Some(seal), Some(coordinator)) = (&self.seal, coordinator) else {
            return Err(broken("the coordinator has not signed the list"));
        };
        seal.verify(&self.hash()?, coordinator)
            .map_err(|_| broken("the list was changed after the coordinator had signed it"))
    }

    /// One receipt and its order; who ordered it.
    fn check(&self, record: &ReceiptRecord) -> Result<NodeId> {
        let order = &record.order.order;
        if (order.job, order.task_cid, order.provider) != (self.job, record.task_cid, record.node) {
            return Err(Error::data("an order is for another job, task or node"));
        }
        record.receipt.check(order, &self.domain)?;
        check_outputs(record)?;
        record.order.requester(&self.domain)
    }

    /// Compares with what the chain has settled: the records of this job in the events of `batches`, whose roots are
    /// rebuilt.
    ///
    /// # Errors
    /// Verification where a root cannot be rebuilt, or what was settled is not what the receipts add up to. Data where no
    /// batch has the job.
    pub fn verify_settled(&self, verified: &Verified, batches: &[SettledBatch]) -> Result<OnChain> {
        let account = self.receipts.first().map(|r| r.order.order.account).unwrap_or_default();
        let mut sums: BTreeMap<(u32, Address), (u64, WorkUnits, Amount)> = BTreeMap::new();
        let mut found = OnChain { account, batches: Vec::new(), paid: Amount::ZERO, roots: Vec::new() };
        for batch in batches {
            let ours: Vec<&StageRecord> = batch.records.iter().filter(|r| r.job == self.job).collect();
            if ours.is_empty() {
                continue;
            }
            let (earnings, records) = (Vec::new(), batch.records.clone());
            let tree = Settlement { account, batch: batch.batch, earnings, records }.tree()?;
            if tree.root() != batch.root || batch.records.len() as u64 != u64::from(batch.stages) {
                return Err(broken(format!("the records of batch {} do not give its root", batch.batch)));
            }
            found.batches.push(batch.batch);
            found.roots.push(hex32::text(&tree.root()));
            for record in ours {
                let sum = sums.entry((record.stage, record.provider)).or_default();
                let units = WorkUnits(sum.1.0.saturating_add(record.units.0));
                *sum = (sum.0.saturating_add(record.tasks), units, sum.2.plus(record.amount));
                found.paid = found.paid.plus(record.amount);
            }
        }
        if found.batches.is_empty() && verified.cost > Amount::ZERO {
            return Err(Error::data(format!("job {} is not settled yet", self.job))
                .with_hint("settle it with: conun chain settle"));
        }
        let expected: BTreeMap<_, _> =
            verified.records.iter().map(|r| ((r.stage, r.provider), (r.tasks, r.units, r.amount))).collect();
        if sums != expected {
            return Err(broken("what was settled is not what they add up to"));
        }
        Ok(found)
    }
}

/// A list of blocks must be the one whose root was signed. None is no list: it was not kept, or was taken out, and says
/// nothing about what was signed.
fn check_outputs(record: &ReceiptRecord) -> Result<()> {
    let receipt = &record.receipt.receipt;
    let fits = |outputs| {
        let volume = output_volume(outputs);
        (volume.rows, volume.bytes) == (receipt.rows, receipt.bytes)
    };
    match record.listed() {
        None if record.outputs.is_empty() => Ok(()),
        Some(outputs) if fits(outputs) => Ok(()),
        _ => Err(Error::data("a list of blocks does not give the root that was signed")),
    }
}

/// How many nodes agree on a task: all that were accepted must have said the same. Zero where none was accepted.
fn agreement(records: &[&ReceiptRecord]) -> Result<usize, &'static str> {
    let accepted: Vec<_> = records.iter().filter(|r| r.accepted).map(|r| &r.receipt.receipt).collect();
    let Some(first) = accepted.first() else { return Ok(0) };
    let said = |r: &conun_types::TaskReceipt| (r.profile, r.inputs_root, r.outputs_root, r.rows, r.bytes, r.units);
    if accepted.iter().any(|other| said(other) != said(first)) {
        return Err("receipts that were accepted differ");
    }
    // A task that was run again has two receipts of some nodes: a node agrees with itself.
    let votes = accepted.iter().map(|r| r.provider).collect::<BTreeSet<_>>().len();
    let dissent = records.iter().filter(|r| !r.accepted).any(|r| r.receipt.receipt.outputs_root == first.outputs_root);
    if dissent { Err("a receipt was refused that says what the accepted ones say") } else { Ok(votes) }
}

#[cfg(test)]
mod tests {
    use conun_types::{OsRng, OutputBlock, SignedOrder, SignedReceipt, TaskOrder, TaskReceipt, task::outputs_root};

    use super::*;

    const JOB: JobId = JobId([7; 16]);

    fn output(vote: u8) -> OutputBlock {
        OutputBlock { partition: 0, cid: Cid::raw(&[vote]), rows: 1, bytes: 1 }
    }

    struct Scene {
        coordinator: NodeKey,
        nodes: [NodeKey; 3],
        domain: Domain,
    }

    impl Scene {
        fn new() -> Self {
            let domain = Domain { chain_id: 5, escrow: Address([2; 20]) };
            let keys = [(), (), ()].map(|()| NodeKey::generate(&OsRng));
            Self { coordinator: NodeKey::generate(&OsRng), nodes: keys, domain }
        }

        fn record(&self, node: usize, task: u32, vote: u8, accepted: bool) -> Result<ReceiptRecord> {
            let task_cid = Cid::raw(&task.to_le_bytes());
            let node = &self.nodes[node];
            let order = TaskOrder {
                account: AccountId([3; 32]),
                job: JOB,
                task_cid,
                provider: node.id(),
                nonce: u64::from(task),
                price: Amount(10),
                deadline: 9,
            };
            let receipt = TaskReceipt {
                order_hash: order.struct_hash()?,
                provider: node.address(),
                profile: [0; 32],
                inputs_root: [0; 32],
                outputs_root: outputs_root(&[output(vote)]),
                rows: 1,
                bytes: 1,
                units: WorkUnits(3),
            };
            Ok(ReceiptRecord {
                stage: 1,
                task,
                task_cid,
                node: node.id(),
                accepted,
                order: SignedOrder::sign(order, &self.domain, &self.coordinator)?,
                receipt: SignedReceipt::sign(receipt, &self.domain, node),
                outputs: vec![output(vote)],
            })
        }

        fn transcript(&self) -> Result<Transcript> {
            let receipts = vec![
                self.record(0, 0, 1, true)?,
                self.record(1, 0, 1, true)?,
                self.record(2, 0, 9, false)?,
                self.record(0, 1, 2, true)?,
                self.record(1, 1, 2, true)?,
            ];
            let liars = vec![self.nodes[2].id()];
            Transcript { job: JOB, domain: self.domain, liars, receipts, seal: None }.sealed(&self.coordinator)
        }
    }

    fn batch(records: Vec<StageRecord>) -> Result<SettledBatch> {
        let settlement =
            Settlement { account: AccountId([3; 32]), batch: 0, earnings: Vec::new(), records: records.clone() };
        let included = conun_types::ledger::Included { tx: [0; 32], block: 1, gas: 1 };
        let (root, stages) = (settlement.tree()?.root(), records.len() as u32);
        Ok(SettledBatch { batch: 0, root, stages, paid: Amount(120), records, included })
    }

    #[test]
    fn honest_receipts_hold_and_add_up() -> Result<()> {
        let scene = Scene::new();
        let transcript = scene.transcript()?;
        let verified = transcript.verify()?;
        assert_eq!((verified.tasks, verified.votes, verified.cost), (2, 2, Amount(120)));
        assert_eq!(verified.coordinator, Some(scene.coordinator.id()));
        let found = transcript.verify_settled(&verified, &[batch(verified.records.clone())?])?;
        assert_eq!((found.paid, found.batches), (Amount(120), vec![0]));
        let json = serde_json::to_string(&transcript).map_err(|e| Error::internal(e.to_string()))?;
        let read: Transcript = serde_json::from_str(&json).map_err(|e| Error::internal(e.to_string()))?;
        assert_eq!(read, transcript);
        Ok(())
    }

    #[test]
    fn whatever_is_changed_shows() -> Result<()> {
        let scene = Scene::new();
        let honest = scene.transcript()?;
        let stranger = Scene { nodes: scene.nodes.clone(), domain: scene.domain, ..Scene::new() };
        type Change = Box<dyn Fn(&mut Transcript)>;
        let changes: Vec<(&str, Change)> = vec![
            ("units", Box::new(|t| t.receipts[0].receipt.receipt.units = WorkUnits(4))),
            ("price", Box::new(|t| t.receipts[0].order.order.price = Amount(11))),
            ("job", Box::new(|t| t.job = JobId([8; 16]))),
            ("chain", Box::new(|t| t.domain.chain_id = 6)),
            ("twice", Box::new(|t| t.receipts.push(t.receipts[0].clone()))),
            ("a liar accepted", Box::new(|t| t.receipts[2].accepted = true)),
            ("nobody accepted", Box::new(|t| t.receipts.iter_mut().for_each(|r| r.accepted = false))),
            ("an honest one refused", Box::new(|t| t.receipts[0].accepted = false)),
            ("a vote removed", Box::new(|t| drop(t.receipts.pop()))),
            ("a dissenting vote removed", Box::new(|t| drop(t.receipts.remove(2)))),
            ("a liar cleared", Box::new(|t| t.liars.clear())),
            ("no seal", Box::new(|t| t.seal = None)),
            ("another block", Box::new(|t| t.receipts[2].outputs[0].cid = Cid::raw(&[8]))),
            ("more rows", Box::new(|t| t.receipts[2].outputs[0].rows = 2)),
            ("another's signature", Box::new(|t| t.receipts[0].receipt.signature = t.receipts[1].receipt.signature)),
            (
                "another coordinator",
                Box::new(move |t| {
                    if let Ok(record) = stranger.record(0, 1, 2, true) {
                        t.receipts[3] = record;
                    }
                }),
            ),
        ];
        for (what, change) in changes {
            let mut changed = honest.clone();
            change(&mut changed);
            let error = changed.verify().expect_err(what);
            assert_eq!(error.kind, conun_types::ErrorKind::Verification, "{what}");
        }
        Ok(())
    }

    #[test]
    fn settlements_must_say_the_same() -> Result<()> {
        let scene = Scene::new();
        let transcript = scene.transcript()?;
        let verified = transcript.verify()?;
        let records = verified.records.clone();
        let settled = |batch: SettledBatch| transcript.verify_settled(&verified, &[batch]);
        assert!(settled(SettledBatch { root: [1; 32], ..batch(records.clone())? }).is_err(), "another root");
        assert!(settled(batch(records[..1].to_vec())?).is_err(), "a record is missing");
        let mut more = records;
        more[0].amount = Amount(61);
        assert!(settled(batch(more)?).is_err(), "another amount");
        assert!(transcript.verify_settled(&verified, &[]).is_err(), "not settled");
        Ok(())
    }
}
