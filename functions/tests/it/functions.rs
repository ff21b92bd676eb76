//! Registration: standard names, dataframes, readable plans.

use datafusion::{
    execution::FunctionRegistry,
    functions_aggregate::expr_fn::{sum, var_sample},
    prelude::{SessionContext, col, sin},
};

fn context() -> SessionContext {
    let mut state = SessionContext::new().state();
    conun_functions::register(&mut state).unwrap();
    SessionContext::new_with_state(state)
}

#[test]
fn every_name_and_alias_is_ours() {
    let (context, plain) = (context(), SessionContext::new());
    for name in [
        "sum",
        "avg",
        "mean",
        "var",
        "var_samp",
        "var_sample",
        "var_pop",
        "var_population",
        "stddev",
        "stddev_samp",
        "stddev_pop",
        "covar",
        "covar_samp",
        "covar_pop",
        "corr",
        "regr_slope",
        "regr_count",
    ] {
        assert_ne!(context.udaf(name).unwrap(), plain.udaf(name).unwrap(), "{name}");
    }
    for name in ["sin", "exp", "ln", "log", "pow", "power", "atan2", "cot"] {
        assert_ne!(context.udf(name).unwrap(), plain.udf(name).unwrap(), "{name}");
    }
    assert_eq!(context.udaf("max").unwrap(), plain.udaf("max").unwrap());
}

#[tokio::test]
async fn dataframes_are_rewritten_and_plans_stay_readable() {
    let context = context();
    let frame = context.sql("select 0.5 as v union all select 0.25").await.unwrap();
    let frame = frame.aggregate(vec![], vec![sum(sin(col("v"))), var_sample(col("v"))]).unwrap();
    let plan = context.state().optimize(&frame.into_unoptimized_plan()).unwrap();
    let text = plan.to_string();
    assert!(text.contains("sum(sin("), "{text}");
    let debug = format!("{plan:?}");
    assert!(debug.contains("Reproducible") && debug.contains("Portable"), "{debug}");
}

#[tokio::test]
async fn explain_names_them_as_datafusion_does() {
    let explain = "explain format indent select sum(v), avg(v) from (values (0.5), (1.5)) as t(v)";
    let text = |context: SessionContext| async move {
        let batches = context.sql(explain).await.unwrap().collect().await.unwrap();
        arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
    };
    assert_eq!(text(context()).await, text(SessionContext::new()).await);
}
