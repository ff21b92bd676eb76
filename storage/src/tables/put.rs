//! Putting a table: shards, parity, placement, writes, manifest, and last the pointer, which makes it the newest
//! version in one step. Until then the old version stands; a put that fails ends its leases and leaves no trace.

use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use bytes::Bytes;
use conun_types::{
    Cid, Error, Lease, LeaseKind, NodeId, PeerAddr, Result,
    port::CallError,
    wire::{Pointer, WriteBlock},
};
use futures::{
    future::try_join_all,
    stream::{BoxStream, StreamExt},
};

use super::{Inner, Table, TableInfo, TableName, Tables, catalog::Entry, table_lease};
use crate::{
    erasure::{self, CodeSpec},
    manifest::{self, DataShard, Group, Manifest, ParityShard},
    placement::{self, Candidate, Placer, Role},
    schema,
    shard::{DEFAULT_SHARD_SIZE, Shard, ShardWriter},
    unixfs::IpfsCid,
};

/// Seconds for which nodes keep the blocks of a put that never ends (its coordinator died).
const UPLOAD_SECONDS: u64 = 24 * 3600;
/// Times that a busy node is asked.
const BUSY_TRIES: u32 = 3;
/// Longest that a busy node is waited for.
const BUSY_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// How a table is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutOptions {
    /// The code; what fits the network where none is named.
    pub code: Option<CodeSpec>,
    /// Bytes of a shard, about.
    pub shard_size: u64,
}

impl Default for PutOptions {
    fn default() -> Self {
        Self { code: None, shard_size: DEFAULT_SHARD_SIZE }
    }
}

/// How far a put is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PutProgress {
    /// Rows stored.
    pub rows: u64,
    /// Bytes of data shards stored.
    pub bytes: u64,
    /// Data shards stored.
    pub shards: usize,
    /// Groups stored.
    pub groups: usize,
}

/// Whom to tell how far a put is.
pub type Progress<'a> = dyn Fn(PutProgress) + Send + Sync + 'a;

impl Tables {
    /// Stores rows as the new version of table `name`, and returns once nodes hold all of it.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Usage`] for a bad name or options, [`conun_types::ErrorKind::Unavailable`] where too
    /// few nodes have room, and whatever `batches` fail with. The old version is then untouched.
    pub async fn put(
        &self,
        name: &str,
        schema: SchemaRef,
        batches: BoxStream<'_, Result<RecordBatch>>,
        options: &PutOptions,
        progress: &Progress<'_>,
    ) -> Result<TableInfo> {
        let name = TableName::parse(name)?;
        let _claim = self.inner.claim(&name)?;
        let version = self.inner.newest_version(&name).await + 1;
        let schema = schema::stored(&schema)?;
        let writer = ShardWriter::new(schema.clone(), options.shard_size)?;
        let mut upload = Upload::start(&self.inner, &name, version, &schema, options)?;
        // An earlier attempt at this version may have left blocks behind.
        self.inner.end_table_lease(name.as_str(), version).await;
        let stored = match upload.write_all(writer, batches, progress).await {
            Ok(()) => upload.commit().await,
            Err(error) => Err(error),
        };
        match stored {
            Ok(table) => Ok(TableInfo::of(&table, &self.inner.presence())),
            Err(error) => {
                self.inner.end_table_lease(name.as_str(), version).await;
                Err(error.context(format!("table '{name}' was not stored")))
            }
        }
    }
}

/// A shard or parity on its way to a node.
struct Block {
    cid: Cid,
    bytes: Bytes,
    role: Role,
}

/// A put under way.
struct Upload<'a> {
    inner: &'a Inner,
    manifest: Manifest,
    peers: Vec<PeerAddr>,
    placer: Mutex<Placer>,
    full: Vec<Shard>,
    lease: Lease,
}

impl<'a> Upload<'a> {
    fn start(
        inner: &'a Inner,
        name: &TableName,
        version: u64,
        schema: &SchemaRef,
        options: &PutOptions,
    ) -> Result<Self> {
        let volunteers = inner.volunteers();
        let code = options.code.unwrap_or_else(|| CodeSpec::default_for(volunteers.len()));
        placement::check_code(code, volunteers.len())?;
        let created = inner.clock.unix_seconds();
        let manifest = Manifest {
            format: manifest::FORMAT,
            table: name.as_str().to_owned(),
            version,
            created,
            owner: inner.key.id(),
            schema: schema::columns(schema)?,
            code: CodeSpec::new(code.data, code.parity)?,
            shard_size: options.shard_size,
            rows: 0,
            bytes: 0,
            nodes: Vec::new(),
            groups: Vec::new(),
        };
        let candidates: Vec<Candidate> = volunteers
            .iter()
            .map(|(peer, hello)| Candidate { id: peer.id, quota: hello.store_quota, used: hello.store_used })
            .collect();
        Ok(Self {
            inner,
            manifest,
            peers: volunteers.into_iter().map(|(peer, _)| peer).collect(),
            placer: Mutex::new(Placer::new(&candidates, &*inner.rng)),
            full: Vec::new(),
            lease: Lease {
                id: table_lease(name.as_str(), version),
                kind: LeaseKind::Table,
                expires: created.saturating_add(UPLOAD_SECONDS),
            },
        })
    }

    /// Cuts the rows into shards and writes them, a group at a time. The writer is no field: Parquet's is not `Sync`,
    /// and `self` is shared by the writes of a group.
    async fn write_all(
        &mut self,
        mut writer: ShardWriter,
        mut batches: BoxStream<'_, Result<RecordBatch>>,
        progress: &Progress<'_>,
    ) -> Result<()> {
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let (back, shards) = blocking(move || {
                let shards = writer.push(&batch)?;
                Ok((writer, shards))
            })
            .await?;
            writer = back;
            self.full.extend(shards);
            self.write_groups(false, progress).await?;
        }
        self.full.extend(blocking(move || writer.finish()).await?);
        self.write_groups(true, progress).await
    }

    /// Writes the groups that are full, at the end also the last one.
    async fn write_groups(&mut self, last: bool, progress: &Progress<'_>) -> Result<()> {
        let k = usize::from(self.manifest.code.data);
        while self.full.len() >= k || (last && !self.full.is_empty()) {
            let group: Vec<Shard> = self.full.drain(..k.min(self.full.len())).collect();
            self.write_group(group).await?;
            let manifest = &self.manifest;
            let shards = manifest.groups.iter().map(|group| group.data.len()).sum();
            progress(PutProgress { rows: manifest.rows, bytes: manifest.bytes, shards, groups: manifest.groups.len() });
        }
        Ok(())
    }

    async fn write_group(&mut self, shards: Vec<Shard>) -> Result<()> {
        let rows: Vec<u64> = shards.iter().map(|shard| shard.rows).collect();
        let code = self.manifest.code;
        let (blocks, ipfs) = blocking(move || encode(code, shards)).await?;
        let sizes: Vec<(Role, u64)> = blocks.iter().map(|block| (block.role, block.bytes.len() as u64)).collect();
        let places = self.placer().place(&sizes)?;
        let taken = Mutex::new(places.clone());
        let writes = blocks.iter().zip(places).map(|(block, place)| self.write_block(block, place, &taken));
        let places = try_join_all(writes).await?;
        let holders: Vec<u32> = places.into_iter().map(|place| self.node_index(self.peers[place].id)).collect();
        self.add_group(&blocks, &rows, &ipfs, &holders);
        Ok(())
    }

    fn placer(&self) -> MutexGuard<'_, Placer> {
        self.placer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a block to the node at `place`, or to another one where that fails; returns the place.
    async fn write_block(&self, block: &Block, mut place: usize, taken: &Mutex<Vec<usize>>) -> Result<usize> {
        loop {
            let peer = &self.peers[place];
            let Err(error) = self.inner.write(peer, block.cid, &block.bytes, self.lease).await else {
                return Ok(place);
            };
            tracing::info!(peer = %peer.id, %error, "a node did not take a shard");
            place = self.another(block, place, taken).ok_or_else(|| {
                Error::unavailable(format!("no other node can take a shard after one failed: {error}"))
                    .with_hint("start more nodes, lend more with conun node --store, or put with a smaller --code")
            })?;
        }
    }

    fn another(&self, block: &Block, failed: usize, taken: &Mutex<Vec<usize>>) -> Option<usize> {
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut placer = self.placer();
        placer.exclude(failed);
        let place = placer.pick(&taken, block.role, block.bytes.len() as u64)?;
        taken.push(place);
        Some(place)
    }

    /// The index of a node in the manifest.
    fn node_index(&mut self, node: NodeId) -> u32 {
        let nodes = &mut self.manifest.nodes;
        let known = nodes.iter().position(|known| *known == node);
        let index = known.unwrap_or_else(|| {
            nodes.push(node);
            nodes.len() - 1
        });
        index as u32
    }

    fn add_group(&mut self, blocks: &[Block], rows: &[u64], ipfs: &[IpfsCid], holders: &[u32]) {
        let len = |block: &Block| block.bytes.len() as u64;
        let (data, parity) = blocks.split_at(rows.len());
        let data: Vec<DataShard> = data
            .iter()
            .enumerate()
            .map(|(i, b)| DataShard {
                cid: b.cid,
                len: len(b),
                rows: rows[i],
                ipfs: ipfs[i],
                holders: vec![holders[i]],
            })
            .collect();
        let parity = parity.iter().zip(&holders[rows.len()..]);
        let parity =
            parity.map(|(b, holder)| ParityShard { cid: b.cid, len: len(b), holders: vec![*holder] }).collect();
        self.manifest.rows += rows.iter().sum::<u64>();
        self.manifest.bytes += data.iter().map(|shard| shard.len).sum::<u64>();
        let padded_len = data.iter().map(|shard| shard.len).max().unwrap_or_default();
        self.manifest.groups.push(Group { padded_len, data, parity });
    }

    /// Replicates the manifest, makes the version the newest one here and then on the nodes.
    async fn commit(self) -> Result<Table> {
        let (bytes, cid) = self.manifest.encode()?;
        let table = Table::new(self.manifest, cid)?;
        self.inner.replicate_manifest(&table, &bytes.into(), self.lease).await?;
        let name = table.name().to_owned();
        let old = self.inner.catalog.get(&name).and_then(|entry| entry.table);
        let pointer = Pointer::sign(&self.inner.key, &name, table.manifest.version, Some(cid));
        // From here on the new version is the table.
        self.inner.catalog.save(Entry { pointer: pointer.clone(), table: Some(table.clone().into()) })?;
        self.inner.renew_table(&table).await;
        self.inner.announce(&pointer).await;
        if let Some(old) = old {
            self.inner.retire(&old).await;
        }
        Ok(table)
    }
}

/// Parity, addresses and IPFS addresses of a group.
fn encode(code: CodeSpec, shards: Vec<Shard>) -> Result<(Vec<Block>, Vec<IpfsCid>)> {
    let data: Vec<Bytes> = shards.iter().map(|shard| shard.bytes.clone()).collect();
    let parity = erasure::code(code)?.encode(&data)?;
    let ipfs = data.iter().map(|bytes| IpfsCid::of_file(bytes)).collect();
    let data = shards.into_iter().map(|shard| Block { cid: shard.cid, bytes: shard.bytes, role: Role::Data });
    let parity = parity.into_iter().map(|bytes| Block { cid: Cid::raw(&bytes), bytes, role: Role::Parity });
    Ok((data.chain(parity).collect(), ipfs))
}

/// Runs CPU work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("storing: {e}")))?
}

impl Inner {
    /// Has a node keep a block; a busy one is asked again.
    pub(super) async fn write(&self, peer: &PeerAddr, cid: Cid, bytes: &Bytes, lease: Lease) -> Result<(), CallError> {
        let request = WriteBlock { cid, len: bytes.len() as u64, lease };
        let mut tries = BUSY_TRIES;
        loop {
            tries -= 1;
            match self.network.write_block(peer, request.clone(), bytes.clone()).await {
                Err(CallError::Busy { retry_after, .. }) if tries > 0 => {
                    tokio::time::sleep(retry_after.min(BUSY_WAIT)).await;
                }
                other => return other,
            }
        }
    }
}
