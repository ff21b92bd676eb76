//! Puts the functions in place of DataFusion's.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    common::{DFSchema, config::ConfigOptions, tree_node::Transformed},
    error::Result,
    execution::FunctionRegistry,
    logical_expr::{
        AggregateUDF, Expr, ScalarUDF, WindowUDF, expr::WindowFunctionDefinition, expr_rewriter::FunctionRewrite,
    },
};

use crate::{aggregate, scalar, window};

/// Registers all functions in `registry`, under the names that DataFusion's have, and a rewrite for plans that name
/// DataFusion's own by value (its dataframe interface does).
///
/// # Errors
/// Where the registry takes no functions.
pub fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    let replace = register_functions(registry)?;
    registry.register_function_rewrite(Arc::new(replace))
}

/// Registers the functions only, those that no statement calls too: where plans are decoded, names are all there is.
///
/// # Errors
/// As [`register`].
pub fn register_names(registry: &mut dyn FunctionRegistry) -> Result<()> {
    register_functions(registry)?;
    for function in window::all() {
        registry.register_udwf(function)?;
    }
    let plain = registry.udafs().iter().map(|name| registry.udaf(name)).collect::<Result<Vec<_>>>()?;
    for function in plain {
        registry.register_udaf(aggregate::filtered(&function))?;
    }
    registry.register_udaf(aggregate::single_value())?;
    registry.register_udf(scalar::similar::similar_regex())?;
    Ok(())
}

fn register_functions(registry: &mut dyn FunctionRegistry) -> Result<Replace> {
    let mut replace = Replace::default();
    for function in aggregate::all() {
        registry.register_udaf(function.clone())?;
        replace.aggregates.insert(function.name().to_owned(), function);
    }
    for function in scalar::all() {
        registry.register_udf(function.clone())?;
        replace.scalars.insert(function.name().to_owned(), function);
    }
    for function in window::plain() {
        registry.register_udwf(function.clone())?;
        replace.windows.insert(function.name().to_owned(), function);
    }
    Ok(replace)
}

/// DataFusion's functions replaced by ours.
#[derive(Debug, Default)]
struct Replace {
    aggregates: HashMap<String, Arc<AggregateUDF>>,
    scalars: HashMap<String, Arc<ScalarUDF>>,
    windows: HashMap<String, Arc<WindowUDF>>,
}

impl Replace {
    fn aggregate(&self, function: &mut Arc<AggregateUDF>) -> bool {
        replace(&self.aggregates, function.name().to_owned(), function)
    }
}

fn replace<T: PartialEq>(by_name: &HashMap<String, Arc<T>>, name: String, function: &mut Arc<T>) -> bool {
    match by_name.get(&name) {
        Some(ours) if ours != function => {
            *function = ours.clone();
            true
        }
        _ => false,
    }
}

impl FunctionRewrite for Replace {
    fn name(&self) -> &str {
        "reproducible_functions"
    }

    fn rewrite(&self, mut expr: Expr, _: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let changed = match &mut expr {
            Expr::AggregateFunction(call) => self.aggregate(&mut call.func),
            Expr::WindowFunction(call) => match &mut call.fun {
                WindowFunctionDefinition::AggregateUDF(function) => self.aggregate(function),
                WindowFunctionDefinition::WindowUDF(function) => {
                    replace(&self.windows, function.name().to_owned(), function)
                }
            },
            Expr::ScalarFunction(call) => replace(&self.scalars, call.func.name().to_owned(), &mut call.func),
            _ => false,
        };
        Ok(Transformed::new_transformed(expr, changed))
    }
}
