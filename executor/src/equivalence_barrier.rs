//! What is known of the rows of an operator, kept from the operators above it.
//!
//! DataFusion takes what it knows of rows (columns that are constant, equal or unique, and how rows are sorted) for what it knows
//! of the rows made of them, and leaves out sorts and groups accordingly. Where that is false, the planner puts a barrier between
//! the two (planner/, `passes/false_equivalences.rs`). Nodes have it too: they work out again what is known.

use std::{fmt, sync::Arc};

use datafusion::{
    common::{Constraints, Statistics},
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr, utils::collect_columns},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
        execution_plan::CardinalityEffect,
        statistics::{ChildStats, StatisticsArgs},
    },
};

/// What stays known above a barrier. That columns are unique does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Which columns are constant, and which are equal.
    pub equalities: bool,
    /// The order of rows, as far as it is one by columns before this one, counted from 0.
    pub orders_before: usize,
}

impl Known {
    /// Nothing.
    pub const NOTHING: Self = Self { equalities: false, orders_before: 0 };
    /// All but the order of rows.
    pub const EQUALITIES: Self = Self { equalities: true, orders_before: 0 };
    /// The order of rows.
    pub const ORDERS: Self = Self { equalities: false, orders_before: usize::MAX };
    /// All but what is unique.
    pub const ALL: Self = Self { equalities: true, orders_before: usize::MAX };
}

/// Its input, of which only some is known.
#[derive(Debug)]
pub struct EquivalenceBarrierExec {
    input: Arc<dyn ExecutionPlan>,
    known: Known,
    properties: Arc<PlanProperties>,
}

impl EquivalenceBarrierExec {
    /// `input`, of which `known` stays known.
    #[must_use]
    pub fn new(input: Arc<dyn ExecutionPlan>, known: Known) -> Self {
        let before = input.equivalence_properties();
        let mut after = EquivalenceProperties::new(input.schema());
        if known.equalities {
            after = before.clone().with_constraints(Constraints::default());
            after.clear_orderings();
        }
        after.add_orderings(before.oeq_class().iter().filter_map(|order| kept(order, known.orders_before)));
        let properties = Arc::new(input.properties().as_ref().clone().with_eq_properties(after));
        Self { input, known, properties }
    }

    /// Its input.
    #[must_use]
    pub fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    /// What stays known.
    #[must_use]
    pub fn known(&self) -> Known {
        self.known
    }
}

/// `order` as far as it is one by columns before `end`.
fn kept(order: &LexOrdering, end: usize) -> Option<LexOrdering> {
    let before = |expr: &Arc<dyn PhysicalExpr>| collect_columns(expr).iter().all(|column| column.index() < end);
    LexOrdering::new(order.iter().take_while(|key| before(&key.expr)).cloned())
}

impl DisplayAs for EquivalenceBarrierExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Known { equalities, orders_before } = self.known;
        let orders = match orders_before.min(self.schema().fields().len()) {
            0 => "no order".to_owned(),
            all if all == self.schema().fields().len() => "orders".to_owned(),
            some => format!("orders before @{some}"),
        };
        write!(f, "EquivalenceBarrierExec: {orders}, {}", if equalities { "equalities" } else { "no equalities" })
    }
}

impl ExecutionPlan for EquivalenceBarrierExec {
    fn name(&self) -> &'static str {
        "EquivalenceBarrierExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    /// It does. But what is sorted below by what is not known above would have to be sorted again, so that no sort is to be
    /// moved below, unless all orders are known.
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![self.known == Known::ALL]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let unknown = || Arc::new(Statistics::new_unknown(&self.schema()));
        Ok(inputs.first().cloned().unwrap_or_else(unknown))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    crate::one_input_plan!(|this, input| Self::new(input, this.known));

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::datatypes::{DataType, Field, Schema},
        common::Constraint,
        physical_expr::{ConstExpr, PhysicalSortExpr, expressions::col},
        physical_plan::empty::EmptyExec,
    };

    use super::*;

    /// Rows of three columns: sorted by the first and the third, the second is constant and the first unique.
    fn input() -> Result<Arc<dyn ExecutionPlan>> {
        let fields = ["a", "b", "c"].map(|name| Field::new(name, DataType::Int64, true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let mut known = EquivalenceProperties::new(schema.clone())
            .with_constraints(Constraints::new_unverified(vec![Constraint::Unique(vec![0])]));
        known.add_constants([ConstExpr::from(col("b", &schema)?)])?;
        known.add_ordering(["a", "c"].map(|name| PhysicalSortExpr::new_default(col(name, &schema).unwrap())));
        let empty: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(schema));
        let properties = Arc::new(empty.properties().as_ref().clone().with_eq_properties(known));
        Ok(Arc::new(EquivalenceBarrierExec { input: empty, known: Known::ALL, properties }))
    }

    #[test]
    fn what_is_known_ends_at_the_barrier() -> Result<()> {
        let behind = |known| -> Result<(usize, Option<usize>)> {
            let barrier = EquivalenceBarrierExec::new(input()?, known);
            let after = barrier.properties().equivalence_properties();
            assert!(after.constraints().is_empty(), "{known:?}");
            Ok((after.constants().len(), after.output_ordering().map(|order| order.len())))
        };
        assert_eq!(behind(Known::NOTHING)?, (0, None));
        assert_eq!(behind(Known::EQUALITIES)?, (1, None));
        assert_eq!(behind(Known::ORDERS)?, (0, Some(2)));
        assert_eq!(behind(Known::ALL)?, (1, Some(2)));
        assert_eq!(behind(Known { orders_before: 2, ..Known::ALL })?, (1, Some(1)));
        Ok(())
    }
}
