//! Transcendental functions: known bits, both widths, nulls, errors.

use arrow::{
    array::AsArray,
    datatypes::{Float32Type, Float64Type},
};
use datafusion::prelude::SessionContext;

fn context() -> SessionContext {
    let mut state = SessionContext::new().state();
    conun_functions::register(&mut state).unwrap();
    SessionContext::new_with_state(state)
}

async fn double(sql: &str) -> f64 {
    let batches = context().sql(&format!("select {sql}")).await.unwrap().collect().await.unwrap();
    batches[0].column(0).as_primitive::<Float64Type>().value(0)
}

#[tokio::test]
async fn both_constants_and_columns_come_from_libm() {
    for (function, expected) in [
        ("sin(v)", libm::sin(0.7)),
        ("cos(v)", libm::cos(0.7)),
        ("cot(v)", 1.0 / libm::tan(0.7)),
        ("exp(v)", libm::exp(0.7)),
        ("ln(v)", libm::log(0.7)),
        ("log(v)", libm::log10(0.7)),
        ("log(7, v)", libm::log(0.7) / libm::log(7.0)),
        ("log(2, v)", libm::log2(0.7)),
        ("power(v, 0.3)", libm::pow(0.7, 0.3)),
        ("pow(3, v)", libm::pow(3.0, 0.7)),
        ("cbrt(v)", libm::cbrt(0.7)),
        ("atan2(v, 2)", libm::atan2(0.7, 2.0)),
        ("acosh(1 + v)", libm::acosh(1.7)),
        ("tanh(v)", libm::tanh(0.7)),
    ] {
        let constant = double(&function.replace('v', "0.7")).await;
        let column = double(&format!("{function} from (values (0.7), (0.1)) as t(v) limit 1")).await;
        assert_eq!(constant.to_bits(), expected.to_bits(), "{function}");
        assert_eq!(column.to_bits(), expected.to_bits(), "{function}");
    }
    assert_eq!(double("log(1000)").await, 3.0);
    assert_eq!(double("log(2, 8)").await, 3.0);
    assert_eq!(double("log(cast(1000 as decimal(10, 0)))").await, 3.0);
}

#[tokio::test]
async fn single_floats_stay_single() {
    let sql = "select sin(cast(0.7 as real)), log(cast(3 as real), cast(0.7 as real))";
    let batches = context().sql(sql).await.unwrap().collect().await.unwrap();
    let value = |column: usize| batches[0].column(column).as_primitive::<Float32Type>().value(0);
    assert_eq!(value(0).to_bits(), libm::sinf(0.7).to_bits());
    assert_eq!(value(1).to_bits(), (libm::logf(0.7) / libm::logf(3.0)).to_bits());
}

#[tokio::test]
async fn nulls_and_errors_as_in_datafusion() {
    for sql in ["sin(null)", "power(null, 2)", "log(null)", "atan2(1, null)"] {
        let batches = context().sql(&format!("select {sql}")).await.unwrap().collect().await.unwrap();
        assert_eq!(batches[0].column(0).null_count(), 1, "{sql}");
    }
    let frame = context().sql("select power(v, -1) from (values (0.0), (1.0)) as t(v)").await.unwrap();
    assert!(frame.collect().await.unwrap_err().to_string().contains("zero raised to a negative power"));
}
