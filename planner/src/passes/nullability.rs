//! Whether columns may be NULL, as the plan has it now.
//!
//! DataFusion takes a subquery's value for never NULL where it is so in the rows that the subquery gives, and forgets that these may be none. The
//! pass [`single_row`](super::single_row) makes values of which it knows better; what is above goes by the schema of before, and
//! `x IS NULL` or `coalesce(x, 0)` would be simplified by that.

use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::{
    common::{
        DFSchema,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result,
    logical_expr::{Expr, LogicalPlan, Union},
    optimizer::AnalyzerRule,
};

/// The pass.
#[derive(Debug)]
pub(super) struct Nullability;

impl AnalyzerRule for Nullability {
    fn name(&self) -> &str {
        "nullability"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(recomputed).data()
    }
}

/// `node` as nullable as what it is made of. A column of the row outside is taken for nullable, until it is joined.
fn recomputed(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let node = node.map_expressions(|expr| {
        expr.transform_up(|e| match e {
            Expr::OuterReferenceColumn(field, column) if !field.is_nullable() => {
                Ok(Transformed::yes(Expr::OuterReferenceColumn(nullable(&field), column)))
            }
            other => Ok(Transformed::no(other)),
        })
    })?;
    match node.data {
        LogicalPlan::Union(union) => union_of(union).map(Transformed::yes),
        node => node.recompute_schema().map(Transformed::yes),
    }
}

/// `union`, nullable: DataFusion does not look again what one is made of, once it has joined what is below.
fn union_of(mut union: Union) -> Result<LogicalPlan> {
    let fields = union.schema.iter().map(|(table, field)| (table.cloned(), nullable(field)));
    let schema = DFSchema::new_with_metadata(fields.collect(), union.schema.metadata().clone())?;
    union.schema = Arc::new(schema);
    Ok(LogicalPlan::Union(union))
}

fn nullable(field: &Field) -> Arc<Field> {
    Arc::new(field.clone().with_nullable(true))
}
