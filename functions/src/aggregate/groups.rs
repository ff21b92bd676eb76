//! Many groups: DataFusion's vectorized interface.

use arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::{
    error::Result,
    logical_expr::{EmitTo, GroupsAccumulator},
};

use super::{
    kind::Kind,
    moments::{Groups, Moments},
};

/// A function over many groups.
#[derive(Debug)]
pub struct ExactGroups {
    kind: Kind,
    moments: Moments,
}

impl ExactGroups {
    /// Without groups yet.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, moments: Moments::new(kind) }
    }

    fn emit(&mut self, emit_to: EmitTo) -> Moments {
        match emit_to {
            EmitTo::All => std::mem::replace(&mut self.moments, Moments::new(self.kind)),
            EmitTo::First(groups) => self.moments.take(groups),
        }
    }
}

impl GroupsAccumulator for ExactGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.moments.reserve_groups(total_num_groups);
        self.moments.add(values, Groups::Each(group_indices), opt_filter)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(self.emit(emit_to).values())
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.emit(emit_to).states()
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.moments.reserve_groups(total_num_groups);
        self.moments.merge(values, Groups::Each(group_indices))
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |array| array.len());
        let mut each = Moments::new(self.kind);
        each.reserve_groups(rows);
        each.add(values, Groups::Each(&(0..rows).collect::<Vec<_>>()), opt_filter)?;
        each.states()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.moments.size()
    }
}
