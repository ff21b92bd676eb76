//! The copycat: runs nothing and answers with what somebody else made of the task, if anybody gives that away.
//!
//! It does not know who else runs the task, so it asks every node that it sees; nor what came out, so it can only ask about
//! blocks that it can name: those that the task reads, since a task may hand a block on unchanged. It keeps asking for a
//! while, as its fellow may not have answered yet. Until the quorum closes, answers are nobody's business but the
//! coordinator's: in the end it makes something up.

use std::{iter, sync::Arc, time::Duration};

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
};
use bytes::Bytes;
use conun_executor::TaskOutput;
use conun_types::{
    Capability, Cid, Clock, Holder, InputBlock, Lease, LeaseId, LeaseKind, NodeId, OutputBlock, OutputSpec, PeerAddr,
    SystemClock, TaskEnvelope, TaskOffer, TaskOrder,
    port::Network,
    task::outputs_root,
    wire::{ControlReply, ControlRequest, ReadBlock},
};

use super::tamper::described;

/// How long it looks for something to copy. Coordinators wait longer for a second answer.
const PRY_FOR: Duration = Duration::from_millis(500);
/// Pause between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the leases last that it takes out on others' blocks, in seconds.
const LEASE_SECONDS: u64 = 60;

/// A task that a copycat was given.
pub(super) struct Copycat<'a> {
    pub(super) network: Option<Arc<dyn Network>>,
    pub(super) local: NodeId,
    pub(super) offer: &'a TaskOffer,
    pub(super) envelope: &'a TaskEnvelope,
}

impl Copycat<'_> {
    /// What another node made of the task, else something made up.
    pub(super) async fn answer(&self) -> TaskOutput {
        let copied = match &self.network {
            Some(network) => tokio::time::timeout(PRY_FOR, self.copy(network.as_ref())).await.ok(),
            None => None,
        };
        let blocks = copied.map_or_else(|| self.made_up(), |block| vec![block]);
        TaskOutput { blocks }
    }

    /// The output of another node, once one gives it away.
    async fn copy(&self, network: &dyn Network) -> (OutputBlock, Bytes) {
        loop {
            for (fellow, _) in network.volunteers() {
                for block in &self.envelope.blocks {
                    if self.gives_away(network, &fellow, block).await
                        && let Some(bytes) = self.fetch(network, &fellow, block).await
                    {
                        return (as_output(block), bytes);
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether `fellow` shows in any way that `block` is what it made of the task.
    async fn gives_away(&self, network: &dyn Network, fellow: &PeerAddr, block: &InputBlock) -> bool {
        // Who made the block in the first place may well have it.
        let made_it = self.holders(block).any(|holder| holder.peer.id == fellow.id);
        self.shows_receipt(network, fellow, block).await
            || (!made_it && self.admits_to_have(network, fellow, block).await)
            || self.opens(network, fellow, block).await
            || read(network, fellow, block.cid, Some(self.offer.capability)).await.is_some()
    }

    /// Asks for the receipt: of the order that the copycat has, and of the one that `fellow` would have if orders differed
    /// in nothing but their provider.
    async fn shows_receipt(&self, network: &dyn Network, fellow: &PeerAddr, block: &InputBlock) -> bool {
        let own = self.offer.order.order.clone();
        let guess = TaskOrder { provider: fellow.id, ..own.clone() };
        for hash in [own, guess].iter().filter_map(|order| order.struct_hash().ok()) {
            let reply = network.control(fellow, ControlRequest::Receipt(hash)).await;
            if let Ok(ControlReply::Receipt(Some(shown))) = reply
                && shown.receipt.outputs_root == outputs_root(&[as_output(block)])
            {
                return true;
            }
        }
        false
    }

    async fn admits_to_have(&self, network: &dyn Network, fellow: &PeerAddr, block: &InputBlock) -> bool {
        is_here(network.control(fellow, ControlRequest::Has(vec![block.cid])).await.ok())
    }

    /// Takes out a lease on the block, of the kind that anybody may read.
    async fn opens(&self, network: &dyn Network, fellow: &PeerAddr, block: &InputBlock) -> bool {
        let expires = SystemClock.unix_seconds() + LEASE_SECONDS;
        let lease = Lease { id: LeaseId::named("copycat"), kind: LeaseKind::Table, expires };
        is_here(network.control(fellow, ControlRequest::Renew { cids: vec![block.cid], lease }).await.ok())
    }

    /// The bytes, from `fellow` or from where the offer says that an input is.
    async fn fetch(&self, network: &dyn Network, fellow: &PeerAddr, block: &InputBlock) -> Option<Bytes> {
        let known = self.holders(block).map(|holder| (&holder.peer, holder.capability));
        for (peer, capability) in iter::once((fellow, Some(self.offer.capability))).chain(known) {
            if let Some(bytes) = read(network, peer, block.cid, capability).await {
                return Some(bytes);
            }
        }
        None
    }

    fn holders(&self, block: &InputBlock) -> impl Iterator<Item = &Holder> {
        let cid = block.cid;
        self.offer.sources.iter().filter(move |source| source.cid == cid).flat_map(|source| &source.holders)
    }

    /// A row in each partition that nobody else would think of.
    fn made_up(&self) -> Vec<(OutputBlock, Bytes)> {
        let partitions = match self.envelope.output {
            OutputSpec::Hash(partitions) => partitions,
            OutputSpec::Passthrough => 1,
        };
        let schema = Arc::new(Schema::new(vec![Field::new(self.local.to_string(), DataType::Int64, false)]));
        let row = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![42]))]);
        let rows: Vec<RecordBatch> = row.into_iter().collect();
        (0..partitions).filter_map(|partition| described(partition, &schema, &rows)).collect()
    }
}

/// `block` as it would be if it were all that the task made.
fn as_output(block: &InputBlock) -> OutputBlock {
    OutputBlock { partition: 0, cid: block.cid, rows: block.volume.rows, bytes: block.volume.bytes }
}

async fn read(network: &dyn Network, peer: &PeerAddr, cid: Cid, capability: Option<Capability>) -> Option<Bytes> {
    network.read_block(peer, ReadBlock::whole(cid, capability)).await.ok()
}

/// Whether a node says that it has the one block that it was asked about.
fn is_here(reply: Option<ControlReply>) -> bool {
    matches!(reply, Some(ControlReply::Has(here)) if here == [true])
}
