//! The dataframe example, as its reader would run it: a coordinator inside a program, beside the devnet's own.

#[path = "../../examples/dataframe.rs"]
#[allow(dead_code, reason = "its main function prints what is checked here")]
mod example;

use crate::common::{Devnet, flights, stdout};
use arrow::array::AsArray;

#[tokio::test(flavor = "multi_thread")]
async fn a_dataframe_job_of_another_program_is_verified_on_the_same_nodes() {
    let net = Devnet::up(&["--nodes", "3"]);
    let path = flights("flights");
    stdout(&net.conun(&["put", "flights", path.to_str().unwrap(), "--shard-size", "512KiB"]));
    let status = net.status();
    let addresses: Vec<String> =
        status["nodes"].as_array().unwrap().iter().map(|n| n["address"].as_str().unwrap().to_owned()).collect();
    let dir = tempfile::tempdir().unwrap();
    let (answer, verified) = example::slowest_carriers(&addresses, dir.path()).await.unwrap();
    assert_eq!(verified, "quorum");
    let batch = arrow::compute::concat_batches(&answer[0].schema(), &answer).unwrap();
    let carriers: Vec<&str> = match batch.column(0).data_type() {
        arrow::datatypes::DataType::Utf8View => batch.column(0).as_string_view().iter().flatten().collect(),
        _ => batch.column(0).as_string::<i32>().iter().flatten().collect(),
    };
    assert_eq!(carriers, ["F9", "EV", "YV", "FL", "WN"]);
    let delay = batch.column(1).as_primitive::<arrow::datatypes::Float64Type>().value(0);
    assert!((delay - 20.215_543_5).abs() < 1e-3, "{delay}");
}
