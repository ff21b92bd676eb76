//! The first rows of each partition, found for each partition by itself.

use std::{fmt, sync::Arc};

use datafusion::{
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::LexOrdering,
    physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, sorts::sort::SortExec},
};

/// `SortExec` with a limit, whose partitions do not know of each other.
///
/// DataFusion's partitions share the least row that is still of interest: what one gives, and which of the rows that tie,
/// follows which partitions ran before it. A referee, which runs one partition, would see other rows.
#[derive(Debug, Clone)]
pub struct LoneTopKExec {
    input: Arc<dyn ExecutionPlan>,
    expr: LexOrdering,
    fetch: usize,
    properties: Arc<PlanProperties>,
}

impl LoneTopKExec {
    /// The first `fetch` rows by `expr` of each partition of `input`.
    #[must_use]
    pub fn new(input: Arc<dyn ExecutionPlan>, expr: LexOrdering, fetch: usize) -> Self {
        let properties = sort(&input, &expr, fetch).properties().clone();
        Self { input, expr, fetch, properties }
    }
}

/// A sort that nobody shares a threshold with yet.
fn sort(input: &Arc<dyn ExecutionPlan>, expr: &LexOrdering, fetch: usize) -> SortExec {
    SortExec::new(expr.clone(), input.clone()).with_preserve_partitioning(true).with_fetch(Some(fetch))
}

impl DisplayAs for LoneTopKExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoneTopKExec: fetch={}, expr=[{}]", self.fetch, self.expr)
    }
}

impl ExecutionPlan for LoneTopKExec {
    /// As people know it.
    fn name(&self) -> &'static str {
        "SortExec(TopK)"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    crate::one_input_plan!(|plan: &Self, input| Self::new(input, plan.expr.clone(), plan.fetch));

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        sort(&self.input, &self.expr, self.fetch).execute(partition, context)
    }
}
