//! The manifest of one version of a table: its columns, its groups of shards, and which nodes hold them.
//!
//! A DAG-CBOR document that nodes keep for coordinators, so it may come from a stranger: [`Manifest::decode`] bounds
//! and checks everything that others rely on.

use std::collections::HashSet;

use arrow::datatypes::SchemaRef;
use conun_types::{Cid, Codec, Error, NodeId, Result, codec, wire::MAX_BLOCK};
use serde::{Deserialize, Serialize};

use crate::{
    erasure::CodeSpec,
    schema::{self, Column},
    tables::TableName,
    unixfs::IpfsCid,
};

#[cfg(test)]
mod tests;

/// Format of the manifests that this build writes and reads.
pub const FORMAT: u16 = 1;
/// Largest manifest, in bytes: some 250,000 shards.
pub const MAX_MANIFEST: usize = 64 << 20;
/// Most nodes that a table lies on.
const MAX_NODES: usize = 1 << 16;

/// One version of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u16,
    /// The table's name.
    pub table: String,
    /// Its version, from 1.
    pub version: u64,
    /// When it was put, in Unix seconds.
    pub created: u64,
    /// Who put it.
    pub owner: NodeId,
    /// Its columns.
    pub schema: Vec<Column>,
    /// Its code.
    pub code: CodeSpec,
    /// The shard size that was asked for, in bytes.
    pub shard_size: u64,
    /// Rows of all shards.
    pub rows: u64,
    /// Bytes of all data shards.
    pub bytes: u64,
    /// Nodes that `holders` index.
    pub nodes: Vec<NodeId>,
    /// Groups of shards, in the table's row order.
    pub groups: Vec<Group>,
}

/// A group of shards that the code protects together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Bytes to which every member is padded with virtual zeros: those of the longest data shard.
    pub padded_len: u64,
    /// Data shards, at most k; those that are fewer are virtual zeros.
    pub data: Vec<DataShard>,
    /// Parity shards, m of them.
    pub parity: Vec<ParityShard>,
}

/// A data shard: a Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataShard {
    /// Its address, which is also the root of its bao tree.
    pub cid: Cid,
    /// Its bytes.
    pub len: u64,
    /// Its rows.
    pub rows: u64,
    /// The address under which IPFS tools know the file.
    pub ipfs: IpfsCid,
    /// Indexes into the manifest's nodes.
    pub holders: Vec<u32>,
}

/// A parity shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParityShard {
    /// Its address.
    pub cid: Cid,
    /// Its bytes.
    pub len: u64,
    /// Indexes into the manifest's nodes.
    pub holders: Vec<u32>,
}

/// A member of a group, data or parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its address.
    pub cid: Cid,
    /// Its bytes.
    pub len: u64,
    /// Indexes into the manifest's nodes.
    pub holders: &'a [u32],
}

impl Group {
    /// Data members, then parity.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        let data = self.data.iter().map(|s| Member { cid: s.cid, len: s.len, holders: &s.holders });
        data.chain(self.parity.iter().map(|s| Member { cid: s.cid, len: s.len, holders: &s.holders }))
    }
}

impl Manifest {
    /// The manifest's bytes and address.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`] where it breaks a rule that [`Manifest::decode`] checks.
    pub fn encode(&self) -> Result<(Vec<u8>, Cid)> {
        self.check()?;
        let bytes = codec::encode(self)?;
        if bytes.len() > MAX_MANIFEST {
            return Err(Error::data(format!("the table has too many shards: a manifest of {} bytes", bytes.len()))
                .with_hint("put it with a larger --shard-size"));
        }
        let cid = Cid::of(Codec::DagCbor, &bytes);
        Ok((bytes, cid))
    }

    /// Decodes a manifest and checks that it is one that this build could have written.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`] naming what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_MANIFEST {
            return Err(Error::data(format!("manifest of {} bytes, the limit is {MAX_MANIFEST}", bytes.len())));
        }
        let manifest: Self = codec::decode(bytes).map_err(|e| e.context("manifest"))?;
        manifest.check().map_err(|e| e.context("manifest"))?;
        Ok(manifest)
    }

    /// The table's columns as Arrow has them.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`]; never after [`Manifest::decode`].
    pub fn arrow_schema(&self) -> Result<SchemaRef> {
        schema::arrow_schema(&self.schema)
    }

    /// Addresses of all members of all groups, each once, with their lengths.
    #[must_use]
    pub fn blocks(&self) -> Vec<(Cid, u64)> {
        let mut seen = HashSet::new();
        let members = self.groups.iter().flat_map(Group::members).filter(|member| seen.insert(member.cid));
        members.map(|member| (member.cid, member.len)).collect()
    }

    /// Bytes of all members: what the table takes on all nodes together.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let members = self.groups.iter().flat_map(Group::members);
        members.map(|m| m.len.saturating_mul(m.holders.len() as u64)).fold(0, u64::saturating_add)
    }

    fn check(&self) -> Result<()> {
        let expect = |holds: bool, what: &str| if holds { Ok(()) } else { Err(Error::data(what.to_owned())) };
        if self.format != FORMAT {
            return Err(Error::data(format!("format {}, this build reads {FORMAT}", self.format)));
        }
        TableName::parse(&self.table).map_err(|e| Error::data(e.message))?;
        CodeSpec::new(self.code.data, self.code.parity).map_err(|e| Error::data(e.message))?;
        expect(self.version > 0 && self.version < u64::MAX, "no such version")?;
        self.arrow_schema()?;
        expect(self.nodes.len() <= MAX_NODES, "too many nodes")?;
        let distinct: HashSet<_> = self.nodes.iter().collect();
        expect(distinct.len() == self.nodes.len(), "a node is listed twice")?;
        expect(!self.groups.is_empty(), "no shards")?;
        self.groups.iter().try_for_each(|group| self.check_group(group))?;
        let data = || self.groups.iter().flat_map(|group| &group.data);
        expect(sum(data().map(|s| s.rows)) == Some(self.rows), "its rows are not those of its shards")?;
        expect(sum(data().map(|s| s.len)) == Some(self.bytes), "its bytes are not those of its shards")
    }

    fn check_group(&self, group: &Group) -> Result<()> {
        let expect = |holds: bool, what: &str| if holds { Ok(()) } else { Err(Error::data(what.to_owned())) };
        let longest = group.data.iter().map(|shard| shard.len).max().unwrap_or_default();
        let (k, m) = (usize::from(self.code.data), usize::from(self.code.parity));
        expect(!group.data.is_empty() && group.data.len() <= k, "a group has other data shards than its code")?;
        expect(group.parity.len() == m, "a group has other parity than its code")?;
        expect(longest == group.padded_len && longest <= MAX_BLOCK, "a group's length is wrong")?;
        expect(group.data.iter().all(|shard| shard.len > 0), "an empty shard")?;
        expect(group.parity.iter().all(|shard| shard.len == longest), "a parity shard's length is wrong")?;
        for member in group.members() {
            let known = member.holders.iter().all(|holder| (*holder as usize) < self.nodes.len());
            expect(known && member.holders.len() <= self.nodes.len(), "a holder is not among its nodes")?;
            expect(member.cid.codec() == Codec::Raw, "a shard's address is not one of plain bytes")?;
        }
        Ok(())
    }
}

fn sum(mut numbers: impl Iterator<Item = u64>) -> Option<u64> {
    numbers.try_fold(0u64, u64::checked_add)
}
