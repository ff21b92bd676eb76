//! Dataframes run on the network too, from a second coordinator that shares the nodes.

#![allow(clippy::unwrap_used)]

mod common;

#[path = "../examples/dataframe.rs"]
#[allow(dead_code, reason = "the test calls it, not its main")]
mod dataframe;

use arrow::{array::AsArray, datatypes::Float64Type};
use common::{Devnet, json, run};

#[tokio::test]
async fn a_dataframe_job_runs_on_volunteers() {
    let net = Devnet::up(&["--nodes", "3"]);
    net.put_flights(&[]);
    let status = json(&run(&["devnet", "status", "--json", "--dir", net.dir.to_str().unwrap()]));
    let nodes = status["nodes"].as_array().unwrap().iter();
    let nodes: Vec<String> = nodes.map(|node| node["address"].as_str().unwrap().to_owned()).collect();
    let dir = tempfile::tempdir().unwrap();
    let (answer, verified) = dataframe::slowest_carriers(&nodes, dir.path()).await.unwrap();
    assert_eq!(verified, "quorum");
    let carriers: Vec<&str> = answer[0].column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(carriers, ["F9", "EV", "YV", "FL", "WN"]);
    let delay = answer[0].column(1).as_primitive::<Float64Type>().value(0);
    // 20.2155425 in the golden answer of 02_carrier_delay.
    assert!((delay - 20.215_542_5).abs() < 1e-6, "{delay}");
}
