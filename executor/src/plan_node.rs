//! The methods that every plan node must have and that say nothing: macros, because a trait cannot default them.

use datafusion::physical_plan::{ReplaceChildrenOptions, execution_plan::ChildrenPropertiesMode};

/// How a plan node takes other children that are not known to be like those before: it works out its properties again.
pub const RECOMPUTE: ReplaceChildrenOptions = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);

/// The methods of an [`ExecutionPlan`](datafusion::physical_plan::ExecutionPlan) without inputs and expressions.
#[macro_export]
macro_rules! leaf_plan {
    () => {
        fn children(&self) -> Vec<&std::sync::Arc<dyn datafusion::physical_plan::ExecutionPlan>> {
            Vec::new()
        }

        $crate::no_expressions!();

        fn replace_children(
            self: std::sync::Arc<Self>,
            _: Vec<std::sync::Arc<dyn datafusion::physical_plan::ExecutionPlan>>,
            _: datafusion::physical_plan::ReplaceChildrenOptions,
        ) -> datafusion::error::Result<std::sync::Arc<dyn datafusion::physical_plan::ExecutionPlan>> {
            Ok(self)
        }

        fn with_new_children(
            self: std::sync::Arc<Self>,
            _: Vec<std::sync::Arc<dyn datafusion::physical_plan::ExecutionPlan>>,
        ) -> datafusion::error::Result<std::sync::Arc<dyn datafusion::physical_plan::ExecutionPlan>> {
            Ok(self)
        }
    };
}

/// The method of a plan without expressions.
#[macro_export]
macro_rules! no_expressions {
    () => {
        fn apply_expressions(
            &self,
            _: &mut dyn FnMut(
                &std::sync::Arc<dyn datafusion::physical_plan::PhysicalExpr>,
            ) -> datafusion::error::Result<datafusion::common::tree_node::TreeNodeRecursion>,
        ) -> datafusion::error::Result<datafusion::common::tree_node::TreeNodeRecursion> {
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        }
    };
}

/// The methods of a plan without expressions over one `input`; the closure makes the same plan over another.
#[macro_export]
macro_rules! one_input_plan {
    ($again:expr) => {
        fn children(&self) -> Vec<&std::sync::Arc<dyn datafusion::physical_plan::ExecutionPlan>> {
            vec![&self.input]
        }

        $crate::no_expressions!();

        fn replace_children(
            self: std::sync::Arc<Self>,
            children: Vec<std::sync::Arc<dyn datafusion::physical_plan::ExecutionPlan>>,
            _: datafusion::physical_plan::ReplaceChildrenOptions,
        ) -> datafusion::error::Result<std::sync::Arc<dyn datafusion::physical_plan::ExecutionPlan>> {
            let again: fn(&Self, std::sync::Arc<dyn datafusion::physical_plan::ExecutionPlan>) -> Self = $again;
            match <[_; 1]>::try_from(children) {
                Ok([input]) => Ok(std::sync::Arc::new(again(&self, input))),
                Err(_) => Err(datafusion::error::DataFusionError::Internal(format!("{} has one input", self.name()))),
            }
        }

        fn with_new_children(
            self: std::sync::Arc<Self>,
            children: Vec<std::sync::Arc<dyn datafusion::physical_plan::ExecutionPlan>>,
        ) -> datafusion::error::Result<std::sync::Arc<dyn datafusion::physical_plan::ExecutionPlan>> {
            self.replace_children(children, $crate::plan_node::RECOMPUTE)
        }
    };
}
