//! Lowers a stage's plan to what volunteers run: Ballista's writer at the root and its readers at the leaves are
//! replaced by a hash `RepartitionExec` and by Conun's block reader, so that nodes know DataFusion and nothing else.

use std::sync::Arc;

use ballista_core::execution_plans::{ShuffleReaderExec, ShuffleWriter, ShuffleWriterExec, SortShuffleWriterExec};
use conun_executor::BlockReaderExec;
use conun_types::{Error, InputBlock, OutputSpec, Result};
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    physical_plan::{ExecutionPlan, Partitioning, repartition::RepartitionExec},
};

use super::disguise;

/// A plan for volunteers.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) output: OutputSpec,
    pub(super) blocks: Vec<InputBlock>,
}

/// Finds the blocks behind each partition of a shuffle reader.
pub(super) type FindBlocks<'a> = &'a dyn Fn(&ShuffleReaderExec) -> Result<Vec<Vec<InputBlock>>>;

/// Replaces writer and readers of `root`.
pub(super) fn lower(root: &Arc<dyn ExecutionPlan>, find: FindBlocks<'_>) -> Result<Lowered> {
    let hash = shuffle_partitioning(root)?;
    let [child] = root.children().try_into().map_err(|_| Error::internal("a stage's writer has one input"))?;
    let mut blocks = Vec::new();
    let child = disguise::lift(Arc::clone(child)).map_err(|e| conun_planner::plan_error(&e))?;
    let child = replace_readers(child, find, &mut blocks)?;
    let (plan, output) = match hash {
        Some((partitioning, n)) => {
            let plan = RepartitionExec::try_new(child, partitioning).map_err(|e| conun_planner::plan_error(&e))?;
            (Arc::new(plan) as Arc<dyn ExecutionPlan>, OutputSpec::Hash(n))
        }
        None => (child, OutputSpec::Passthrough),
    };
    let mut seen = std::collections::HashSet::new();
    blocks.retain(|b: &InputBlock| seen.insert(b.cid));
    Ok(Lowered { plan, output, blocks })
}

/// The hash partitioning that the stage's writer applies, if any.
fn shuffle_partitioning(root: &Arc<dyn ExecutionPlan>) -> Result<Option<(Partitioning, u32)>> {
    if root.is::<ShuffleWriterExec>() {
        return Ok(None);
    }
    let writer = root
        .downcast_ref::<SortShuffleWriterExec>()
        .ok_or_else(|| Error::internal(format!("a stage ends in {}, which no volunteer can run", root.name())))?;
    match ShuffleWriter::shuffle_output_partitioning(writer) {
        Some(Partitioning::Hash(exprs, n)) => Ok(Some((Partitioning::Hash(exprs.clone(), *n), *n as u32))),
        other => Err(Error::internal(format!("a shuffle by {other:?} is not supported"))),
    }
}

fn replace_readers(
    plan: Arc<dyn ExecutionPlan>,
    find: FindBlocks<'_>,
    blocks: &mut Vec<InputBlock>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let replaced = plan.transform_up(|node| {
        let Some(reader) = node.downcast_ref::<ShuffleReaderExec>() else { return Ok(Transformed::no(node)) };
        let partitions = find(reader).map_err(conun_planner::external)?;
        blocks.extend(partitions.iter().flatten().copied());
        let partitioning = reader.properties().output_partitioning().clone();
        let ours = BlockReaderExec::try_new(reader.schema(), partitions, partitioning)?;
        Ok(Transformed::yes(Arc::new(ours) as Arc<dyn ExecutionPlan>))
    });
    Ok(replaced.map_err(|e| conun_planner::plan_error(&e))?.data)
}
