//! What a decoded plan may contain. Everything that is not listed here is refused by name.
//!
//! The walk is over the decoded tree: extension codecs never see DataFusion's own nodes, so a codec could not do it.

use std::{collections::HashSet, sync::Arc};

use conun_types::{Cid, Failure, OutputSpec, TaskEnvelope, profile, task::MAX_BLOCKS};
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    datasource::{
        memory::{DataSourceExec, MemorySourceConfig},
        physical_plan::{FileScanConfig, ParquetSource},
    },
    error::DataFusionError,
    logical_expr::Volatility,
    physical_expr::{PhysicalExpr, ScalarFunctionExpr, aggregate::AggregateFunctionExpr},
    physical_plan::{ExecutionPlan, Partitioning, aggregates::AggregateExec, repartition::RepartitionExec},
};

use crate::{block_reader::BlockReaderExec, object_store::SHARDS_URL};

/// Aggregates of distinct values whose result does not depend on the order of the values: exact, or sorted first.
const UNORDERED: &[&str] = &[
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "count",
    "max",
    "median",
    "min",
    "percentile_cont",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

/// Most operators in a plan.
const MAX_OPERATORS: usize = 4096;
/// Most output partitions of a task, and of any operator in it.
const MAX_PARTITIONS: usize = 4096;

/// Checks `plan` against the list and against what `envelope` says of its inputs and outputs.
///
/// # Errors
/// [`Failure::Refused`] naming what is not allowed.
pub fn check(plan: &dyn ExecutionPlan, envelope: &TaskEnvelope) -> Result<(), Failure> {
    let mut walk = Walk {
        shards: envelope.shards.iter().map(|s| s.cid).collect(),
        blocks: envelope.blocks.iter().map(|b| b.cid).collect(),
        operators: 0,
    };
    match envelope.output {
        OutputSpec::Passthrough => walk.visit(plan),
        OutputSpec::Hash(partitions) => walk.visit_hashed(plan, partitions as usize),
    }
}

struct Walk {
    shards: HashSet<Cid>,
    blocks: HashSet<Cid>,
    operators: usize,
}

impl Walk {
    fn visit_hashed(&mut self, root: &dyn ExecutionPlan, partitions: usize) -> Result<(), Failure> {
        let Some(repartition) = root.downcast_ref::<RepartitionExec>() else {
            return refused("the root of a shuffled task is no RepartitionExec");
        };
        match repartition.partitioning() {
            Partitioning::Hash(exprs, n) if *n == partitions && (1..=MAX_PARTITIONS).contains(n) => {
                exprs.iter().try_for_each(check_expression)?;
            }
            other => return refused(format!("a shuffle by {other}, its envelope says {partitions} hash partitions")),
        }
        self.visit(repartition.input().as_ref())
    }

    /// Depth is bounded by protobuf's own limit on nesting (100 messages).
    fn visit(&mut self, plan: &dyn ExecutionPlan) -> Result<(), Failure> {
        self.operators += 1;
        let partitions = plan.properties().output_partitioning().partition_count();
        if self.operators > MAX_OPERATORS || partitions > MAX_PARTITIONS {
            return refused("a plan of absurd size");
        }
        self.check_operator(plan)?;
        check_expressions(plan)?;
        plan.children().into_iter().try_for_each(|child| self.visit(child.as_ref()))
    }

    fn check_operator(&self, plan: &dyn ExecutionPlan) -> Result<(), Failure> {
        if let Some(source) = plan.downcast_ref::<DataSourceExec>() {
            return self.check_source(source);
        }
        if let Some(reader) = plan.downcast_ref::<BlockReaderExec>() {
            return self.check_reader(reader);
        }
        if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
            // What takes the place of keys that a grouping set leaves out: DataFusion does not show it with the others.
            aggregate.group_expr().null_expr().iter().try_for_each(|(expr, _)| check_expression(expr))?;
            return aggregate.aggr_expr().iter().try_for_each(|expr| check_distinct(expr));
        }
        if profile::OPERATORS.contains(&plan.name()) { Ok(()) } else { refused(format!("operator {}", plan.name())) }
    }

    fn check_source(&self, source: &DataSourceExec) -> Result<(), Failure> {
        let source = source.data_source();
        if source.downcast_ref::<MemorySourceConfig>().is_some() {
            return Ok(());
        }
        let Some(scan) = source.downcast_ref::<FileScanConfig>() else {
            return refused("a scan of something that is no file");
        };
        if scan.file_source().downcast_ref::<ParquetSource>().is_none() {
            return refused(format!("a scan of {} files", scan.file_source().file_type()));
        }
        if scan.object_store_url.as_str() != SHARDS_URL {
            return refused(format!("a scan of {}", scan.object_store_url.as_str()));
        }
        let files = scan.file_groups.iter().flat_map(|group| group.files());
        for file in files {
            let cid = file.object_meta.location.as_ref().parse::<Cid>().ok();
            if !cid.is_some_and(|cid| self.shards.contains(&cid)) {
                return refused(format!("shard {} is not among the task's inputs", file.object_meta.location));
            }
        }
        Ok(())
    }

    fn check_reader(&self, reader: &BlockReaderExec) -> Result<(), Failure> {
        let mut blocks = reader.partitions().iter().flatten();
        if blocks.clone().count() > MAX_BLOCKS {
            return refused("a plan of absurd size");
        }
        match blocks.find(|block| !self.blocks.contains(&block.cid)) {
            Some(block) => refused(format!("block {} is not among the task's inputs", block.cid)),
            None => Ok(()),
        }
    }
}

fn check_expressions(plan: &dyn ExecutionPlan) -> Result<(), Failure> {
    let mut verdict = Ok(());
    let walked = plan.apply_expressions(&mut |expr| {
        verdict = verdict.clone().and_then(|()| check_expression(expr));
        Ok(if verdict.is_ok() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.map_err(|e| Failure::Refused(e.strip_backtrace()))?;
    verdict
}

/// DISTINCT aggregates take their values from a hash set: its order is that of hashes, capacity and arrival, which no
/// statement can ask for. What would show it is refused.
fn check_distinct(expr: &AggregateFunctionExpr) -> Result<(), Failure> {
    let name = expr.fun().name();
    if !expr.is_distinct() || UNORDERED.contains(&name) {
        return Ok(());
    }
    let lists = matches!(name, "array_agg" | "string_agg");
    if expr.field().data_type().is_floating() || (lists && expr.order_bys().is_empty()) {
        return refused(format!("{name}(DISTINCT ..) adds up in no fixed order"));
    }
    Ok(())
}

/// Functions whose value is not a function of their arguments (random, uuid, now) cannot be voted on.
fn check_expression(expr: &Arc<dyn PhysicalExpr>) -> Result<(), Failure> {
    let mut culprit = None;
    let walked = expr.apply(|node| {
        let function = node.downcast_ref::<ScalarFunctionExpr>();
        let unstable = function.is_some_and(|f| f.fun().signature().volatility != Volatility::Immutable);
        if unstable || node.is_volatile_node() {
            culprit = Some(function.map_or_else(|| node.to_string(), |f| f.name().to_owned()));
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(|e: DataFusionError| Failure::Refused(e.strip_backtrace()))?;
    culprit.map_or(Ok(()), |name| refused(format!("function {name} gives another value each time")))
}

fn refused<T>(reason: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Refused(reason.into()))
}
