//! Window functions that say in their names what DataFusion's encoding of plans leaves out of them: that they leave NULLs out
//! (`IGNORE NULLS`), and that they run backwards, as a planner has it where another window of the statement has the opposite order.
//!
//! Each is DataFusion's own; only where the two facts are kept differs. The plain ones take the places of DataFusion's, the
//! others have names that no statement calls.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use arrow::{
    compute::SortOptions,
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    error::Result,
    functions_window::{lead_lag, nth_value},
    logical_expr::{
        Documentation, LimitEffect, PartitionEvaluator, ReversedUDWF, Signature, WindowUDF, WindowUDFImpl,
        function::{ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs},
    },
    physical_expr::PhysicalExpr,
};

/// All of them, by name.
static ALL: LazyLock<HashMap<String, Arc<WindowUDF>>> = LazyLock::new(|| {
    let functions = [
        (lead_lag::lag_udwf(), "lag"),
        (lead_lag::lead_udwf(), "lead"),
        (nth_value::nth_value_udwf(), "nth_value"),
        (nth_value::first_value_udwf(), "last_value"),
        (nth_value::last_value_udwf(), "first_value"),
    ];
    let ways = [(false, false), (true, false), (false, true), (true, true)]
        .map(|(b, n)| Way { backwards: b, ignore_nulls: n });
    let variants = functions.into_iter().flat_map(|(inner, reverse)| {
        ways.map(|way| Arc::new(WindowUDF::new_from_impl(Positional::new(inner.clone(), reverse, way))))
    });
    variants.map(|function| (function.name().to_owned(), function)).collect()
});

/// All of them.
pub fn all() -> impl Iterator<Item = Arc<WindowUDF>> {
    ALL.values().cloned()
}

/// Those that statements call, under DataFusion's names.
pub fn plain() -> impl Iterator<Item = Arc<WindowUDF>> {
    all().filter(|function| function.inner().downcast_ref::<Positional>().is_some_and(Positional::is_plain))
}

/// `function` under `IGNORE NULLS`; `None` where this says nothing of it (`row_number`, `rank`, ..).
#[must_use]
pub fn ignoring_nulls(function: &WindowUDF) -> Option<Arc<WindowUDF>> {
    ALL.get(&Way { backwards: false, ignore_nulls: true }.name(function.name())).cloned()
}

/// What a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Way {
    backwards: bool,
    ignore_nulls: bool,
}

impl Way {
    fn name(self, function: &str) -> String {
        let backwards = if self.backwards { " backwards" } else { "" };
        let ignoring = if self.ignore_nulls { " ignoring nulls" } else { "" };
        format!("{function}{backwards}{ignoring}")
    }
}

/// `inner`, run the way that its name says.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Positional {
    inner: Arc<WindowUDF>,
    /// The function that gives the same of a window in the opposite order.
    reverse: &'static str,
    way: Way,
    name: String,
}

impl Positional {
    fn new(inner: Arc<WindowUDF>, reverse: &'static str, way: Way) -> Self {
        let name = way.name(inner.name());
        Self { inner, reverse, way, name }
    }

    fn is_plain(&self) -> bool {
        self.way == Way { backwards: false, ignore_nulls: false }
    }
}

impl WindowUDFImpl for Positional {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        if self.is_plain() { self.inner.aliases() } else { &[] }
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn expressions(&self, args: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.expressions(args)
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        let Way { backwards, ignore_nulls } = self.way;
        let args = PartitionEvaluatorArgs::new(args.input_exprs(), args.input_fields(), backwards, ignore_nulls);
        self.inner.partition_evaluator_factory(args)
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        self.inner.field(args)
    }

    fn sort_options(&self) -> Option<SortOptions> {
        self.inner.sort_options()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        let way = Way { backwards: !self.way.backwards, ..self.way };
        ALL.get(&way.name(self.reverse)).cloned().map_or(ReversedUDWF::NotSupported, ReversedUDWF::Reversed)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    /// How many rows after the last one of a `LIMIT` are needed. DataFusion knows it of the plain ones with rows to come; of
    /// others, the row may be any further on.
    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        let shifts = matches!(self.inner.name(), "lag" | "lead");
        let known = self.is_plain() && (self.inner.name() == "lead" || args.len() < 2);
        if shifts && !known { LimitEffect::Unknown } else { self.inner.inner().limit_effect(args) }
    }
}
