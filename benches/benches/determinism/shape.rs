//! What the stages of a query are made of, and in what that differs from the static plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ballista_core::execution_plans::{RangeShuffleReaderExec, ShuffleReaderExec};
use conun_benches::tpch::Error;
use datafusion::{
    common::{
        JoinType,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    physical_plan::{
        ExecutionPlan,
        joins::{HashJoinExec, PartitionMode, SortMergeJoinExec},
    },
};

/// Stages, tasks and operators; numbers of stages do not count.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) stages: usize,
    pub(crate) tasks: usize,
    joins: Vec<Join>,
    /// Hash joins whose left side every task reads whole.
    broadcast: usize,
    /// Readers of fewer partitions than were written.
    coalesced: usize,
    operators: BTreeMap<String, usize>,
}

/// A join on keys, named without their places.
#[derive(PartialEq, Eq)]
struct Join {
    kind: JoinType,
    keys: Vec<[String; 2]>,
}

impl Join {
    fn new(kind: JoinType, on: &[(impl ToString, impl ToString)]) -> Self {
        let mut keys: Vec<_> = on.iter().map(|(left, right)| [name(left), name(right)]).collect();
        keys.sort();
        Self { kind, keys }
    }

    fn swapped(&self) -> Self {
        let mut keys: Vec<_> = self.keys.iter().map(|[left, right]| [right.clone(), left.clone()]).collect();
        keys.sort();
        Self { kind: self.kind.swap(), keys }
    }
}

/// `a@3` without its place.
fn name(key: &impl ToString) -> String {
    key.to_string().split('@').next().unwrap_or_default().to_owned()
}

impl Shape {
    pub(crate) fn new(plans: &[Arc<dyn ExecutionPlan>], tasks: usize) -> Result<Self, Error> {
        let mut shape = Self { stages: plans.len(), tasks, ..Self::default() };
        for plan in plans {
            plan.apply(|node| {
                shape.add(node.as_ref());
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(shape)
    }

    fn add(&mut self, node: &dyn ExecutionPlan) {
        // The adaptive planner's own reader of sorted blocks is no other plan.
        let name = if node.is::<RangeShuffleReaderExec>() { "ShuffleReaderExec" } else { node.name() };
        *self.operators.entry(name.to_owned()).or_default() += 1;
        if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            self.joins.push(Join::new(*join.join_type(), join.on()));
            self.broadcast += usize::from(*join.partition_mode() == PartitionMode::CollectLeft);
        } else if let Some(join) = node.downcast_ref::<SortMergeJoinExec>() {
            self.joins.push(Join::new(join.join_type(), join.on()));
        } else if let Some(reader) = node.downcast_ref::<ShuffleReaderExec>() {
            let fewer = reader.coalesce.is_some() && reader.partition.len() < reader.upstream_partition_count;
            self.coalesced += usize::from(fewer);
        }
    }

    fn count(&self, operator: &str) -> usize {
        self.operators.get(operator).copied().unwrap_or_default()
    }

    /// In what this plan differs from `fixed`.
    pub(crate) fn differences(&self, fixed: &Self) -> BTreeSet<&'static str> {
        let swapped = |join: &Join| !fixed.joins.contains(join) && fixed.joins.contains(&join.swapped());
        let more = |operator| self.count(operator) > fixed.count(operator);
        let found = [
            ("join sides swapped", self.joins.iter().any(swapped)),
            ("more joins broadcast", self.broadcast > fixed.broadcast),
            ("fewer joins broadcast", self.broadcast < fixed.broadcast),
            ("sort-merge joins", more("SortMergeJoinExec")),
            ("partitions coalesced", self.coalesced > 0),
            ("empty inputs", more("EmptyExec")),
            ("fewer stages", self.stages < fixed.stages),
            ("more stages", self.stages > fixed.stages),
            ("operators otherwise", self.operators != fixed.operators),
        ];
        found.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
    }
}
