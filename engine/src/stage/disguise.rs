//! What Ballista's planner is not to see, since it would decide otherwise than DataFusion did before it, whose decisions other operators
//! rely on by then.
//!
//! What it knows: operators that stand for others while stages are cut and inputs become known. Nodes get none of them.

use std::{fmt, sync::Arc};

use conun_executor::plan_node::RECOMPUTE;
use datafusion::{
    common::{
        Statistics,
        stats::Precision,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::OrderingRequirements,
    physical_plan::{
        DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
        InputDistributionRequirements, PlanProperties, ReplaceChildrenOptions,
        coalesce_partitions::CoalescePartitionsExec,
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode},
    },
};

use super::joins::remembers_left;

/// `plan` with its hash joins as Ballista is to see them while it cuts stages.
///
/// It broadcasts a side that it takes for small, or not, by sizes:
/// - A partitioned join would get a broadcast for less than 128 MiB, though both sides' exchanges are there already: rows would be
///   partitioned, gathered again by one more stage, and every task would build a table of all of them. So the sizes are hidden.
/// - A broadcast would become a partitioned join where its size is not known, with another number of partitions than the
///   operators above were planned for. What DataFusion broadcasts is small.
/// - A join whose left side is collected and remembered (LEFT, FULL, semi, anti) cannot be a broadcast. If its right side
///   has one partition it is one task, and stays so: the operators above ask for no merge.
pub(super) fn for_cutting(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let Some(join) = node.downcast_ref::<HashJoinExec>() else { return Ok(Transformed::no(node)) };
        let (left, right) = (Arc::clone(join.left()), Arc::clone(join.right()));
        let partitioned = *join.partition_mode() == PartitionMode::Partitioned;
        let sides = if partitioned && !join.null_aware {
            vec![sized(left, None), sized(right, None)]
        } else if join.null_aware || !remembers_left(*join.join_type()) {
            vec![small(left)?, right]
        } else if right.output_partitioning().partition_count() == 1 {
            // Ballista drops an operator that gathers rows which nobody asks to be gathered.
            let asks = vec![Distribution::SinglePartition; 2];
            return Ok(Transformed::yes(Arc::new(Kept { operator: node, asks })));
        } else {
            return Ok(Transformed::no(node));
        };
        Ok(Transformed::yes(node.replace_children(sides, RECOMPUTE)?))
    })
    .data()
}

/// A stage's plan as it was before, but for what is kept, and for joins whose rows have an order: once its inputs are known
/// Ballista would swap the sides of some, and with them the order.
pub(super) fn until_lowered(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        if let Some(sized) = node.downcast_ref::<Sized>() {
            return Ok(Transformed::yes(Arc::clone(&sized.input)));
        }
        let joins = node.is::<HashJoinExec>() || node.is::<NestedLoopJoinExec>() || node.is::<CrossJoinExec>();
        if joins && node.output_ordering().is_some() {
            let asks = node.input_distribution_requirements().into_per_child();
            return Ok(Transformed::yes(Arc::new(Kept { operator: node, asks })));
        }
        Ok(Transformed::no(node))
    })
    .data()
}

/// A task's plan without anything that stands for something else.
pub(super) fn lift(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| match node.downcast_ref::<Kept>() {
        Some(kept) => Ok(Transformed::yes(Arc::clone(&kept.operator))),
        None => Ok(Transformed::no(node)),
    })
    .data()
}

fn sized(input: Arc<dyn ExecutionPlan>, bytes: Option<usize>) -> Arc<dyn ExecutionPlan> {
    Arc::new(Sized { input, bytes })
}

/// `side`, small. Ballista takes the operator away that collects it, and a limit of that with it: where there is one, the
/// operator is not to be seen.
fn small(side: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    match side.downcast_ref::<CoalescePartitionsExec>() {
        Some(collects) if collects.fetch().is_none() => {
            let input = sized(Arc::clone(collects.input()), Some(1));
            side.replace_children(vec![input], RECOMPUTE)
        }
        _ => Ok(sized(side, Some(1))),
    }
}

/// Its input, of so many bytes, or of a size that nobody knows.
#[derive(Debug)]
struct Sized {
    input: Arc<dyn ExecutionPlan>,
    bytes: Option<usize>,
}

impl DisplayAs for Sized {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sized")
    }
}

impl ExecutionPlan for Sized {
    fn name(&self) -> &'static str {
        "Sized"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn partition_statistics(&self, _: Option<usize>) -> Result<Arc<Statistics>> {
        let unknown = Statistics::new_unknown(&self.schema());
        let total_byte_size = self.bytes.map_or(Precision::Absent, Precision::Exact);
        Ok(Arc::new(Statistics { total_byte_size, ..unknown }))
    }

    conun_executor::one_input_plan!(|this, input| Self { input, bytes: this.bytes });

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}

/// An operator that stays what it is.
#[derive(Debug)]
struct Kept {
    operator: Arc<dyn ExecutionPlan>,
    /// How it is to get the rows of each input.
    asks: Vec<Distribution>,
}

impl DisplayAs for Kept {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept: {}", self.operator.name())
    }
}

impl ExecutionPlan for Kept {
    fn name(&self) -> &'static str {
        "Kept"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.operator.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.operator.children()
    }

    conun_executor::no_expressions!();

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(self.asks.clone())
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        self.operator.required_input_ordering()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.operator.maintains_input_order()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let operator = Arc::clone(&self.operator).replace_children(children, options)?;
        Ok(Arc::new(Self { operator, asks: self.asks.clone() }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, RECOMPUTE)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.operator.execute(partition, context)
    }
}
