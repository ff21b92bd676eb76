//! Joins that must see all of their right side at once.
//!
//! A nested loop join remembers which rows of its left side found a partner, and in the end emits those that did (semi),
//! or did not (left, anti, full), or says which (mark). Cut into tasks, each would see the whole left side and a part of
//! the right one, and answer for its part: rows would come back once a task, unmatched where another task matches them.
//! Replicas would agree on it. So such a join gets its right side in one partition, hence one task. So does `NOT IN`.

use std::sync::Arc;

use conun_executor::plan_node::RECOMPUTE;
use conun_types::Result;
use datafusion::{
    common::{
        JoinType,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    physical_expr::expressions::lit,
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties, Partitioning,
        joins::{HashJoinExec, NestedLoopJoinExec},
        repartition::RepartitionExec,
    },
};

/// `plan` with the right side of such joins in one partition.
pub(super) fn gather_right_sides(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(gather).data().map_err(|e| conun_planner::plan_error(&e))
}

fn gather(plan: Arc<dyn ExecutionPlan>) -> datafusion::error::Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let Some((left, right)) = sides(&plan) else { return Ok(Transformed::no(plan)) };
    if right.output_partitioning().partition_count() == 1 {
        return Ok(Transformed::no(plan));
    }
    // An exchange into one partition, not a `CoalescePartitionsExec`: Ballista drops those that no operator asks for.
    let right = RepartitionExec::try_new(right, Partitioning::Hash(vec![lit(0i32)], 1))?;
    Ok(Transformed::yes(Arc::clone(&plan).replace_children(vec![left, Arc::new(right)], RECOMPUTE)?))
}

type Sides = (Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>);

/// Left and right of such a join. Of hash joins only `NOT IN` is one: whether any right row is NULL decides about all
/// left rows. Others are either partitioned by their keys or one task ([`super::disguise`]).
fn sides(plan: &Arc<dyn ExecutionPlan>) -> Option<Sides> {
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        return remembers_left(*join.join_type()).then(|| (Arc::clone(join.left()), Arc::clone(join.right())));
    }
    let join = plan.downcast_ref::<HashJoinExec>()?;
    join.null_aware.then(|| (Arc::clone(join.left()), Arc::clone(join.right())))
}

/// Whether a join emits rows of its left side once the whole right side was seen.
pub(super) fn remembers_left(join: JoinType) -> bool {
    match join {
        JoinType::Left | JoinType::Full | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => true,
        JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => false,
    }
}
