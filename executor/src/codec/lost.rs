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
use datafusion_proto::protobuf;
use prost::Message;

use super::malformed;

/// Most grouping sets without a column: each is one row of the answer, all of them the same.
const MOST_SETS: u32 = 1 << 12;

/// What an operator loses, as an extension around it: the operator itself, as it is encoded, is the only input.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Lost {
    /// Rows to leave out and to give, where the numbers do not fit 32 bits.
    #[prost(uint64, tag = "1")]
    skip: u64,
    #[prost(uint64, optional, tag = "2")]
    fetch: Option<u64>,
    /// Grouping sets, where none has a column: DataFusion lists which columns each leaves out.
    #[prost(uint32, tag = "3")]
    sets: u32,
}

impl Lost {
    /// What `operator` loses, if anything.
    pub(super) fn of(operator: &dyn ExecutionPlan) -> Option<Self> {
        let skip = operator.downcast_ref::<GlobalLimitExec>().map_or(0, GlobalLimitExec::skip);
        let fetch = operator.fetch();
        if fetch.unwrap_or(0).max(skip) > u32::MAX as usize {
            return Some(Self { skip: skip as u64, fetch: fetch.map(|fetch| fetch as u64), sets: 0 });
        }
        let group = operator.downcast_ref::<AggregateExec>().map(AggregateExec::group_expr);
        let group = group.filter(|group| group.expr().is_empty() && group.has_grouping_set())?;
        Some(Self { skip: 0, fetch: None, sets: group.groups().len() as u32 })
    }

    /// `operator` with what it lost.
    pub(super) fn restore(&self, operator: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        if self.sets > 0 {
            let aggregate = operator.downcast_ref::<AggregateExec>();
            let aggregate = aggregate.ok_or_else(|| malformed("extension", "sets of no aggregate"))?;
            return with_empty_sets(aggregate, self.sets);
        }
        let rows = |number: u64| usize::try_from(number).map_err(|_| malformed("limit", "more rows than there can be"));
        let (skip, fetch) = (rows(self.skip)?, self.fetch.map(rows).transpose()?);
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
        operator.with_fetch(fetch).ok_or_else(|| malformed("limit", &format!("{} has none", operator.name())))
    }
}

/// `aggregate`, which has no columns, over `sets` grouping sets.
fn with_empty_sets(aggregate: &AggregateExec, sets: u32) -> Result<Arc<dyn ExecutionPlan>> {
    if sets > MOST_SETS || !aggregate.group_expr().expr().is_empty() {
        return Err(malformed("AggregateExec", &format!("{sets} grouping sets without columns")));
    }
    let restored = AggregateExec::try_new(
        *aggregate.mode(),
        PhysicalGroupBy::new(Vec::new(), Vec::new(), vec![Vec::new(); sets as usize], true),
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        aggregate.input().clone(),
        aggregate.input_schema(),
    )?;
    Ok(Arc::new(restored.with_limit_options(aggregate.limit_options())))
}

/// Fails where the grouping sets of `node` do not fit its columns, by which DataFusion divides and indexes them.
pub(super) fn check_grouping_sets(node: &protobuf::AggregateExecNode) -> Result<()> {
    let (columns, flags) = (node.group_expr.len(), node.groups.len());
    let fits = flags.checked_rem(columns).map_or(flags == 0, |rest| rest == 0);
    let leaves_out = node.groups.contains(&true) || !node.null_expr.is_empty();
    if !fits || (leaves_out && node.null_expr.len() != columns) {
        return Err(malformed("AggregateExec", "its grouping sets have other columns than it has"));
    }
    Ok(())
}
