//! What people and scripts are told of a table (`tables`, `show`, their `--json`).

use std::collections::HashSet;

use conun_types::{Cid, NodeId};
use serde::{Deserialize, Serialize};

use super::Table;
use crate::manifest::Group;

/// A column, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnInfo {
    /// Its name.
    pub name: String,
    /// Its type, as Arrow prints it.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether values may be missing.
    pub nullable: bool,
}

/// A node that holds shards of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderInfo {
    /// Who.
    pub node: NodeId,
    /// Shards and parity it holds.
    pub shards: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whether it is connected.
    pub online: bool,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Its version, from 1.
    pub version: u64,
    /// Who put it.
    pub owner: NodeId,
    /// Address of its manifest.
    pub manifest: Cid,
    /// When it was put, in Unix seconds.
    pub created: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes of all data shards.
    pub bytes: u64,
    /// Bytes on all nodes together.
    pub stored_bytes: u64,
    /// `stored_bytes` / `bytes`.
    pub expansion: f64,
    /// The code, `4+2` or `none`.
    pub code: String,
    /// The shard size that was asked for, in bytes.
    pub shard_size: u64,
    /// Data shards.
    pub shards: usize,
    /// Parity shards.
    pub parity: usize,
    /// Groups.
    pub groups: usize,
    /// Whether every row can be read from the nodes that are connected.
    pub available: bool,
    /// Columns.
    pub columns: Vec<ColumnInfo>,
    /// Nodes.
    pub holders: Vec<HolderInfo>,
    /// What its owner should know.
    pub warnings: Vec<String>,
}

/// What is known of the nodes: who is connected, and what they were found not to have.
pub(super) struct Presence {
    pub(super) online: HashSet<NodeId>,
    pub(super) missing: HashSet<(NodeId, Cid)>,
}

impl Presence {
    fn has(&self, node: &NodeId, cid: &Cid) -> bool {
        self.online.contains(node) && !self.missing.contains(&(*node, *cid))
    }
}

impl TableInfo {
    pub(super) fn of(table: &Table, presence: &Presence) -> Self {
        let manifest = &table.manifest;
        let stored_bytes = manifest.stored_bytes();
        let available = manifest.groups.iter().all(|group| readable(table, group, presence));
        Self {
            name: manifest.table.clone(),
            version: manifest.version,
            owner: manifest.owner,
            manifest: table.cid,
            created: manifest.created,
            rows: manifest.rows,
            bytes: manifest.bytes,
            stored_bytes,
            expansion: stored_bytes as f64 / manifest.bytes.max(1) as f64,
            code: manifest.code.to_string(),
            shard_size: manifest.shard_size,
            shards: table.shards().len(),
            parity: manifest.groups.iter().map(|group| group.parity.len()).sum(),
            groups: manifest.groups.len(),
            available,
            columns: columns(table),
            holders: holders(table, presence),
            warnings: warnings(table, presence, available),
        }
    }
}

/// Whether as many members of a group are there as it has data shards: then all of them decode.
fn readable(table: &Table, group: &Group, presence: &Presence) -> bool {
    let node = |holder: &u32| table.manifest.nodes.get(*holder as usize);
    let held = |cid: &Cid, holders: &[u32]| holders.iter().filter_map(node).any(|node| presence.has(node, cid));
    let members: Vec<_> = group.members().map(|member| held(&member.cid, member.holders)).collect();
    let there = members.iter().filter(|held| **held).count();
    if table.manifest.code.parity == 0 { members.iter().all(|held| *held) } else { there >= group.data.len() }
}

fn columns(table: &Table) -> Vec<ColumnInfo> {
    let column = |field: &arrow::datatypes::FieldRef| ColumnInfo {
        name: field.name().clone(),
        kind: field.data_type().to_string(),
        nullable: field.is_nullable(),
    };
    table.schema().fields().iter().map(column).collect()
}

fn holders(table: &Table, presence: &Presence) -> Vec<HolderInfo> {
    let nodes = table.blocks_by_node().into_iter().map(|(node, members)| {
        let online = presence.online.contains(&node);
        let held = || members.iter().filter(|m| !presence.missing.contains(&(node, m.cid)));
        HolderInfo { node, shards: held().count(), bytes: held().map(|m| m.len).sum(), online }
    });
    nodes.collect()
}

fn warnings(table: &Table, presence: &Presence, available: bool) -> Vec<String> {
    let mut out = Vec::new();
    if table.manifest.code.parity == 0 {
        out.push("stored without redundancy: the loss of one node loses rows".to_owned());
    }
    let nodes = &table.manifest.nodes;
    let offline = nodes.iter().filter(|node| !presence.online.contains(node)).count();
    if offline > 0 {
        out.push(format!("{offline} of {} nodes that hold it are not connected", nodes.len()));
    }
    if !presence.missing.is_empty() {
        out.push(format!("{} shards are missing on nodes that should hold them", presence.missing.len()));
    }
    if !available {
        out.push("some rows cannot be read now".to_owned());
    }
    out
}
