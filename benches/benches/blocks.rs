//! Reading blocks from a peer over libp2p on loopback, each byte verified: small ones for latency, large ones for
//! throughput.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use conun_network::{ClientOnly, Host, HostConfig};
use conun_types::{
    Answer, Cid, Error, NodeId, NodeKey, OsRng, PeerAddr, TaskOffer,
    port::{Network, OfferReply, Volunteer},
    wire::{BlockError, ControlReply, ControlRequest, Hello, ReadBlock, WriteBlock},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

/// A peer that has some blocks and does nothing else.
struct Holder {
    blocks: Vec<(Cid, Bytes)>,
    rest: ClientOnly,
}

#[async_trait]
impl Volunteer for Holder {
    fn hello(&self) -> Hello {
        Hello { volunteer: true, ..self.rest.hello() }
    }

    async fn offer(&self, from: NodeId, offer: &TaskOffer) -> OfferReply {
        self.rest.offer(from, offer).await
    }

    fn examine(&self, from: NodeId, offer: &TaskOffer, envelope: &[u8]) -> Result<(), String> {
        self.rest.examine(from, offer, envelope)
    }

    async fn run(&self, from: NodeId, offer: TaskOffer, envelope: Bytes) -> Answer {
        self.rest.run(from, offer, envelope).await
    }

    fn release(&self, _: NodeId, _: &TaskOffer) {}

    async fn read_block(&self, _: NodeId, request: &ReadBlock) -> Result<Bytes, BlockError> {
        let found = self.blocks.iter().find(|(cid, _)| *cid == request.cid);
        found.map(|(_, bytes)| bytes.clone()).ok_or(BlockError::NotFound)
    }

    async fn may_write(&self, from: NodeId, request: &WriteBlock) -> Result<(), BlockError> {
        self.rest.may_write(from, request).await
    }

    async fn write_block(&self, from: NodeId, request: WriteBlock, data: Bytes) -> Result<(), BlockError> {
        self.rest.write_block(from, request, data).await
    }

    async fn control(&self, from: NodeId, request: ControlRequest) -> ControlReply {
        match request {
            ControlRequest::Hello => ControlReply::Hello(self.hello()),
            other => self.rest.control(from, other).await,
        }
    }
}

/// A reader that is connected to a holder.
struct Pair {
    reader: Arc<Host>,
    holder: Arc<Host>,
    peer: PeerAddr,
}

async fn pair(blocks: Vec<(Cid, Bytes)>) -> Result<Pair, Error> {
    let service = Arc::new(Holder { blocks, rest: ClientOnly::default() });
    let holder = Host::start(HostConfig::default(), &NodeKey::generate(&OsRng), service).await?;
    let peer = holder.local_addr();
    let bootstrap = vec![format!("{}/p2p/{}", peer.addrs[0], peer.id)];
    let config = HostConfig { bootstrap, ..HostConfig::default() };
    let reader = Host::start(config, &NodeKey::generate(&OsRng), Arc::new(ClientOnly::default())).await?;
    reader.wait_for(1, Duration::from_secs(10)).await?;
    Ok(Pair { reader, holder, peer })
}

fn blocks(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let sizes = [1 << 10, 64 << 10, 1 << 20, 8 << 20];
    let blocks: Vec<(Cid, Bytes)> = sizes
        .iter()
        .map(|size| Bytes::from((0..*size).map(|i: usize| (i * 31 % 251) as u8).collect::<Vec<u8>>()))
        .map(|bytes| (Cid::raw(&bytes), bytes))
        .collect();
    let pair = runtime.block_on(pair(blocks.clone())).expect("connected");
    let mut group = criterion.benchmark_group("blocks");
    for (cid, bytes) in &blocks {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("read", bytes.len()), cid, |b, cid| {
            b.iter(|| {
                let read = pair.reader.read_block(&pair.peer, ReadBlock::whole(*cid, None));
                runtime.block_on(read).expect("read")
            });
        });
    }
    group.finish();
    runtime.block_on(async { tokio::join!(pair.reader.shutdown(), pair.holder.shutdown()) });
}

criterion_group!(benches, blocks);
criterion_main!(benches);
