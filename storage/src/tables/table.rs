//! A table as its readers see it: columns, shards, and where each is found.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use conun_types::{Cid, Error, Holder, NodeId, PeerAddr, Recovery, Result, Source, wire::Pointer};

use crate::manifest::{Group, Manifest, Member};

/// A data shard of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardRef {
    /// Its address.
    pub cid: Cid,
    /// Its bytes.
    pub len: u64,
    /// Its rows.
    pub rows: u64,
    group: usize,
    index: usize,
}

/// One version of a table.
#[derive(Debug, Clone)]
pub struct Table {
    /// What the manifest says; it was checked.
    pub manifest: Manifest,
    /// The manifest's address, which names this snapshot of the table.
    pub cid: Cid,
    schema: SchemaRef,
    shards: Vec<ShardRef>,
}

/// Volunteers that are connected, by id.
pub(super) type Peers = BTreeMap<NodeId, PeerAddr>;

impl Table {
    pub(super) fn new(manifest: Manifest, cid: Cid) -> Result<Self> {
        let schema = manifest.arrow_schema()?;
        let groups = manifest.groups.iter().enumerate();
        let shards = groups.flat_map(|(group, g)| {
            let shard = move |(index, s): (usize, &crate::manifest::DataShard)| ShardRef {
                cid: s.cid,
                len: s.len,
                rows: s.rows,
                group,
                index,
            };
            g.data.iter().enumerate().map(shard)
        });
        let shards = shards.collect();
        Ok(Self { manifest, cid, schema, shards })
    }

    /// The table that a checked pointer names, from bytes of a stranger.
    pub(super) fn decode(pointer: &Pointer, cid: Cid, bytes: &[u8]) -> Result<Self> {
        if !cid.matches(bytes) {
            return Err(Error::data(format!("wrong bytes for manifest {cid}")));
        }
        let manifest = Manifest::decode(bytes)?;
        let named = (&manifest.owner, manifest.table.as_str(), manifest.version);
        if named != (&pointer.owner, pointer.table.as_str(), pointer.version) {
            return Err(Error::data(format!("manifest {cid} is of another table or version than its pointer says")));
        }
        Self::new(manifest, cid)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.manifest.table
    }

    /// Its columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Its data shards, in row order. Their number and rows depend on the table and its shard size only.
    #[must_use]
    pub fn shards(&self) -> &[ShardRef] {
        &self.shards
    }

    /// The index of the first shard with this address.
    #[must_use]
    pub fn position(&self, cid: &Cid) -> Option<usize> {
        self.shards.iter().position(|shard| shard.cid == *cid)
    }

    /// Where shard `index` is found among `peers`, with the rest of its group to decode it from.
    pub(super) fn source(&self, index: usize, peers: &Peers) -> Result<Source> {
        let shard = self.shards.get(index).ok_or_else(|| {
            Error::data(format!("table '{}' has {} shards, no shard {index}", self.name(), self.shards.len()))
        })?;
        let group = &self.manifest.groups[shard.group];
        let recovery = (self.manifest.code.data > 1 && self.manifest.code.parity > 0).then(|| Recovery {
            data: self.manifest.code.data,
            parity: self.manifest.code.parity,
            padded_len: group.padded_len,
            index: shard.index as u16,
            members: group.members().map(|member| self.member_source(group, &member, peers)).collect(),
        });
        let holders = self.holders(group, &shard.cid, peers);
        Ok(Source { cid: shard.cid, len: shard.len, holders, recovery })
    }

    fn member_source(&self, group: &Group, member: &Member<'_>, peers: &Peers) -> Source {
        let holders = self.holders(group, &member.cid, peers);
        Source { cid: member.cid, len: member.len, holders, recovery: None }
    }

    /// Connected holders of a block: copies of a data shard are members of its group with the same address.
    fn holders(&self, group: &Group, cid: &Cid, peers: &Peers) -> Vec<Holder> {
        let members = group.members().filter(|member| member.cid == *cid);
        let ids = members.flat_map(|m| m.holders).filter_map(|holder| self.manifest.nodes.get(*holder as usize));
        let mut out: Vec<Holder> = Vec::new();
        for peer in ids.filter_map(|id| peers.get(id)) {
            if out.iter().all(|holder| holder.peer.id != peer.id) {
                out.push(Holder { peer: peer.clone(), capability: None });
            }
        }
        out
    }

    /// The blocks that each node holds, by the manifest.
    pub(super) fn blocks_by_node(&self) -> BTreeMap<NodeId, Vec<Member<'_>>> {
        let mut out: BTreeMap<NodeId, Vec<Member<'_>>> = BTreeMap::new();
        for member in self.manifest.groups.iter().flat_map(Group::members) {
            for node in member.holders.iter().filter_map(|holder| self.manifest.nodes.get(*holder as usize)) {
                out.entry(*node).or_default().push(member);
            }
        }
        out
    }
}
