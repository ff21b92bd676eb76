//! What DataFusion's encoding of operators cuts off, kept beside it: limits beyond 32 bits, and how many grouping sets there are where
//! none has a column.

use std::sync::Arc;

use datafusion::{
    error::Result,
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, PhysicalGroupBy},
        limit::{GlobalLimitExec, LocalLimitExec},
    },
};
use datafusion_proto::protobuf::{self, physical_plan_node::PhysicalPlanType};
use prost::Message;

use super::malformed;

/// An operator whose limits do not fit 32 bits, as an extension around it: the operator itself with limits cut off is the only input.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WideLimits {
    #[prost(uint64, tag = "1")]
    skip: u64,
    #[prost(uint64, optional, tag = "2")]
    fetch: Option<u64>,
}

impl WideLimits {
    /// Of `operator`, if they are lost otherwise.
    pub(super) fn of(operator: &dyn ExecutionPlan) -> Option<Self> {
        let skip = operator.downcast_ref::<GlobalLimitExec>().map_or(0, GlobalLimitExec::skip);
        let fetch = operator.fetch();
        let is_wide = fetch.unwrap_or(0).max(skip) > u32::MAX as usize;
        is_wide.then(|| Self { skip: skip as u64, fetch: fetch.map(|fetch| fetch as u64) })
    }

    /// The node of `operator` with these limits.
    pub(super) fn around(&self, operator: protobuf::PhysicalPlanNode) -> protobuf::PhysicalPlanNode {
        let extension = protobuf::PhysicalExtensionNode { node: self.encode_to_vec(), inputs: vec![operator] };
        protobuf::PhysicalPlanNode { physical_plan_type: Some(PhysicalPlanType::Extension(extension)) }
    }

    /// `operator` with the limits that `bytes` are.
    pub(super) fn restore(bytes: &[u8], operator: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let limits = Self::decode(bytes).map_err(|e| malformed("limits", &e.to_string()))?;
        let rows =
            |number: u64| usize::try_from(number).map_err(|_| malformed("limits", "more rows than there can be"));
        let (skip, fetch) = (rows(limits.skip)?, limits.fetch.map(rows).transpose()?);
        if let Some(limit) = operator.downcast_ref::<GlobalLimitExec>() {
            let mut restored = GlobalLimitExec::new(limit.input().clone(), skip, fetch);
            restored.set_required_ordering(limit.required_ordering().clone());
            return Ok(Arc::new(restored));
        }
        if let (Some(limit), Some(fetch)) = (operator.downcast_ref::<LocalLimitExec>(), fetch) {
            let mut restored = LocalLimitExec::new(limit.input().clone(), fetch);
            restored.set_required_ordering(limit.required_ordering().clone());
            return Ok(Arc::new(restored));
        }
        operator.with_fetch(fetch).ok_or_else(|| malformed("limits", &format!("{} takes none", operator.name())))
    }
}

/// Puts the number of grouping sets into the node of an aggregate where none of them has a column: DataFusion lists which columns each
/// leaves out, so that nothing is left of them.
pub(super) fn keep_empty_sets(operator: &dyn ExecutionPlan, node: &mut protobuf::AggregateExecNode) {
    let group = operator.downcast_ref::<AggregateExec>().map(AggregateExec::group_expr);
    if let Some(group) = group.filter(|group| group.expr().is_empty() && group.has_grouping_set()) {
        node.groups = vec![false; group.groups().len()];
    }
}

/// Takes that number out of `node` again, which DataFusion would divide by the number of columns.
///
/// # Errors
/// Where the sets do not fit the columns.
pub(super) fn take_empty_sets(node: &mut protobuf::AggregateExecNode) -> Result<usize> {
    let (columns, sets) = (node.group_expr.len(), node.groups.len());
    let fits = if columns == 0 { sets == 0 || node.has_grouping_set } else { sets % columns == 0 };
    let leaves_out = node.groups.contains(&true) || !node.null_expr.is_empty();
    if !fits || (leaves_out && node.null_expr.len() != columns) {
        return Err(malformed("AggregateExec", "its grouping sets have other columns than it has"));
    }
    Ok(if columns == 0 { std::mem::take(&mut node.groups).len() } else { 0 })
}

/// `operator` with that number of grouping sets, none with a column.
pub(super) fn restore_empty_sets(operator: Arc<dyn ExecutionPlan>, sets: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(aggregate) = operator.downcast_ref::<AggregateExec>().filter(|_| sets > 0) else { return Ok(operator) };
    let group = PhysicalGroupBy::new(Vec::new(), Vec::new(), vec![Vec::new(); sets], true);
    let restored = AggregateExec::try_new(
        *aggregate.mode(),
        group,
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        aggregate.input().clone(),
        aggregate.input_schema(),
    )?;
    Ok(Arc::new(restored.with_limit_options(aggregate.limit_options())))
}
