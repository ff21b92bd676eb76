//! Pay where things go wrong: a coordinator that does not sign vouchers, and a node whose key was taken back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    paid::{ACCOUNT, EXPOSURE, fund, pay},
    world::{self, Meddler, Nobody, World},
};
use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Float64Type, UInt64Type},
};
use conun_chain::EvmLedger;
use conun_engine::{EngineConfig, JobOptions, JobState};
use conun_network::MemoryNet;
use conun_node::{till::Till, till_path};
use conun_types::{
    Amount, Clock, Error, SystemClock,
    ledger::Ledger,
    wire::{ControlReply, ControlRequest},
};
use futures::TryStreamExt;

async fn paid_world(nodes: usize, meddler: &Arc<impl Meddler + 'static>) -> (World, Arc<EvmLedger>) {
    let world = World::paid(&MemoryNet::new(), nodes, meddler, pay).await;
    let bank = fund(&world).await;
    (world, bank)
}

/// Keeps payments from the nodes while it is armed.
struct Miser(AtomicBool);

impl Meddler for Miser {
    fn control(&self, request: &ControlRequest) -> Option<ControlReply> {
        let pays = matches!(request, ControlRequest::Pay(_)) && self.0.load(Ordering::SeqCst);
        pays.then(|| ControlReply::Refused(Error::unavailable("withheld")))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_pay_gets_little_work_and_who_pays_again_gets_more() {
    let miser = Arc::new(Miser(AtomicBool::new(true)));
    let (world, bank) = paid_world(6, &miser).await;
    let (mut done, mut cost) = (0, Amount::ZERO);
    let refused = loop {
        let (_, record) = world.run().await;
        cost = cost.plus(record.cost.unwrap());
        match record.state {
            JobState::Done => done += 1,
            _ => break record.error.unwrap(),
        }
        assert!(done < 20, "unpaid nodes go on working");
    };
    assert!(refused.message.contains("unpaid") || refused.message.contains("busy"), "{refused}");
    for index in 0..6 {
        let till = Till::read(&till_path(&world.root.path().join(format!("node-{index}")))).unwrap();
        let unpaid = till.unpaid(&world.engine.id(), SystemClock.unix_seconds()).stages;
        // A stage that was begun is finished: several tasks may be on their way when the last one is accepted.
        assert!(unpaid <= EXPOSURE as usize + 3, "node {index} has worked for {unpaid} stages unpaid");
    }

    miser.0.store(false, Ordering::SeqCst);
    let paid = loop {
        let (_, record) = world.run().await;
        cost = cost.plus(record.cost.unwrap());
        if record.state == JobState::Done {
            break record;
        }
        assert!(done < 40, "who pays again gets no work");
        done += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert!(paid.liars.is_empty(), "not paying is no lie of the nodes: {:?}", paid.liars);
    let settled: Amount = world.engine.settle().await.unwrap().iter().map(|batch| batch.amount).sum();
    assert_eq!(settled, cost, "everything that was accepted, once");
    let mut earned = Amount::ZERO;
    for node in &world.nodes {
        earned = earned.plus(bank.earned(&ACCOUNT, &node.address()).await.unwrap().earned);
    }
    assert_eq!(earned, cost);
}

/// Units that `sql` is quoted, and the share of the data that was read for it.
async fn quoted(world: &World, sql: &str) -> (u64, f64) {
    let id = world.engine.submit(&format!("explain cost {sql}"), &JobOptions::default()).await.unwrap().id;
    let rows: Vec<RecordBatch> = world.engine.results(id).unwrap().try_collect().await.unwrap();
    let batch = rows.last().unwrap();
    let last = batch.num_rows() - 1;
    (
        batch.column(4).as_primitive::<UInt64Type>().value(last),
        batch.column(7).as_primitive::<Float64Type>().value(last),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_a_large_table_is_enough_for_a_quote() {
    // Four of the thirteen shards of flights.
    let small = |config: &mut EngineConfig| config.pilot_bytes = 2 << 20;
    let world = World::tweaked(&MemoryNet::new(), 6, &Arc::new(Nobody), |_, _| (None, None), small).await;
    let per_key = "select origin, dest, count(*) as n, sum(distance) as d from flights group by origin, dest";
    let rows = "select carrier, flight, distance from flights where distance > 500 order by distance, flight, carrier";
    for sql in [
        world::QUERY,
        per_key,
        rows,
        "select count(*) from flights a join flights b on a.flight = b.flight and a.time_hour = b.time_hour",
    ] {
        let (quote, sampled) = quoted(&world, sql).await;
        assert!(sampled < 0.8, "only a share is read: {sampled}");
        let id = world.engine.submit(sql, &JobOptions::default()).await.unwrap().id;
        world::rows(&world.engine, id).await.unwrap();
        let units: u64 = world.record(id).await.stages.iter().map(|s| s.units.0).sum();
        assert!(quote.abs_diff(units) * 4 <= units, "{sql}: quoted {quote}, billed {units}, sampled {sampled}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_key_was_taken_back_gets_no_work() {
    let (world, bank) = paid_world(7, &Arc::new(Nobody)).await;
    let node = &world.nodes[0];
    let worked = || Till::read(&till_path(&world.root.path().join("node-0"))).unwrap().stages().len();
    while worked() == 0 {
        assert_eq!(world.run().await.0, Ok(16));
    }
    let consent = node.sign(&bank.consent(&bank.sender()));
    bank.delegate(&node.address(), &consent).await.unwrap();
    bank.revoke(&node.address()).await.unwrap();
    // The coordinator looks every five seconds.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let before = worked();
    for _ in 0..8 {
        let (rows, record) = world.run().await;
        assert_eq!((rows, record.state), (Ok(16), JobState::Done));
    }
    assert_eq!((world.services.len(), worked()), (7, before), "it was there, and idle");
}
