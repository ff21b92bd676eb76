//! Whom a coordinator believes: records, audits, operators, and what is foretold of them.

use std::{sync::Arc, time::Duration};

use crate::{
    paid::{fund, pay},
    world::{self, Meddler, Nobody, World},
};
use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Float64Type, UInt64Type},
};
use conun_engine::{EngineConfig, JobOptions, JobRecord, JobState, Verify};
use conun_network::MemoryNet;
use conun_node::{LiarMode, NodeConfig};
use conun_types::{ErrorKind, ledger::Ledger};
use futures::TryStreamExt;

/// The first node lies.
struct First(LiarMode);

impl Meddler for First {
    fn settle_in(&self, index: usize, config: &mut NodeConfig) {
        config.liar = (index == 0).then_some(self.0);
    }
}

/// Records that count after three checks.
fn quickly_trusted(config: &mut EngineConfig) {
    config.trust.solo_error = 0.02;
    config.verify = Verify::Audit;
}

async fn audited(meddler: &Arc<impl Meddler + 'static>) -> World {
    World::tweaked(&MemoryNet::new(), 6, meddler, |_, _| (None, None), quickly_trusted).await
}

/// Replicas a task.
fn replicas(record: &JobRecord) -> f64 {
    let sum = |of: fn(&conun_engine::StageRow) -> u64| record.stages.iter().map(of).sum::<u64>() as f64;
    sum(|s| s.replicas) / sum(|s| s.tasks_done)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_record_works_alone_and_is_audited() {
    let world = audited(&Arc::new(Nobody)).await;
    let first = world.run().await.1;
    assert!(replicas(&first) >= 2.0, "nobody has a record: {}", replicas(&first));
    let mut last = first;
    for _ in 0..4 {
        let (rows, record) = world.run().await;
        assert_eq!((rows, &record.liars), (Ok(16), &Vec::new()));
        last = record;
    }
    assert!(replicas(&last) < 1.6, "records save replicas: {}", replicas(&last));
    assert!(replicas(&last) > 1.0, "audits never decay to zero");
    assert!(last.error_bound.is_some_and(|bound| bound > 0.0 && bound <= 0.02), "{:?}", last.error_bound);
    let foretold = foretold(&world, &JobOptions::default()).await.column(2).as_primitive::<Float64Type>().value(0);
    assert!(foretold > 1.1, "a short job is looked at at its end on every node: {foretold}");
    assert!((foretold - replicas(&last)).abs() < 0.35, "{foretold} are foretold, {} ran", replicas(&last));
}

/// What `EXPLAIN VERIFY` says.
async fn foretold(world: &World, options: &JobOptions) -> RecordBatch {
    let sql = format!("explain verify {}", world::QUERY);
    let id = world.engine.submit(&sql, options).await.unwrap().id;
    let rows: Vec<RecordBatch> = world.engine.results(id).unwrap().try_collect().await.unwrap();
    rows.into_iter().next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_gets_no_record_and_no_answer_is_wrong() {
    let world = audited(&Arc::new(First(LiarMode::WrongValue))).await;
    let mut digests = Vec::new();
    let mut named = false;
    for _ in 0..4 {
        let (rows, record) = world.run().await;
        assert_eq!(rows, Ok(16));
        assert!(record.liars.iter().all(|liar| *liar == world.nodes[0].id()), "{:?}", record.liars);
        named |= !record.liars.is_empty();
        digests.push(record.digest.unwrap());
    }
    assert!(named, "it was drawn in 4 jobs and compared");
    digests.dedup();
    assert_eq!(digests.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_foretold_is_what_is_run() {
    let world = World::new(&MemoryNet::new(), 6, &Arc::new(Nobody)).await;
    let rows = foretold(&world, &JobOptions::default()).await;
    let (tasks, extra) = (rows.column(1).as_primitive::<UInt64Type>(), rows.column(3).as_primitive::<Float64Type>());
    let record = world.run().await.1;
    let ran: Vec<u64> = record.stages.iter().map(|s| s.tasks_done).collect();
    assert_eq!(tasks.values()[..ran.len()], ran);
    let sum: u64 = ran.iter().sum();
    assert_eq!((tasks.value(ran.len()), extra.value(ran.len())), (sum, sum as f64));
    assert_eq!(replicas(&record), 2.0);

    let strict = JobOptions { max_error: Some(1e-4), ..JobOptions::default() };
    let rows = foretold(&world, &strict).await;
    assert!(rows.column(2).as_primitive::<Float64Type>().value(0) >= 2.0);
    assert!(rows.column(4).as_primitive::<Float64Type>().value(0) <= 1e-4);
    let record = world.run_with(&strict).await.1;
    assert!(record.error_bound.is_some_and(|bound| bound <= 1e-4), "{:?}", record.error_bound);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_one_operator_have_one_vote() {
    let world = World::paid(&MemoryNet::new(), 6, &Arc::new(Nobody), pay).await;
    let bank = fund(&world).await;
    for node in &world.nodes {
        let consent = node.sign(&bank.consent(&bank.sender()));
        bank.delegate(&node.address(), &consent).await.unwrap();
    }
    // The coordinator asks the chain every five seconds.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let (rows, record) = world.run().await;
    assert!(rows.is_err());
    assert_eq!(record.state, JobState::Failed);
    let error = record.error.unwrap();
    assert_eq!(error.kind, ErrorKind::Verification, "{error}");
    let off = JobOptions { verify: Some(Verify::Off), ..JobOptions::default() };
    assert_eq!(world.run_with(&off).await.0, Ok(16), "nothing is compared");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_that_one_liar_makes_unreachable_is_told_with_what_was_reached() {
    let world = World::new(&MemoryNet::new(), 6, &Arc::new(First(LiarMode::WrongValue))).await;
    let strict = JobOptions { max_error: Some(1e-4), ..JobOptions::default() };
    let error = world.run_with(&strict).await.1.error.unwrap();
    assert_eq!(error.kind, ErrorKind::Verification, "{error}");
    assert!(error.message.contains("5 of 6 replicas agree") && error.message.contains("1.0e-4"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_error_has_votes_compared_and_off_compares_none() {
    let lax = |config: &mut EngineConfig| config.verify = Verify::Off;
    let world = World::tweaked(&MemoryNet::new(), 6, &Arc::new(Nobody), |_, _| (None, None), lax).await;
    let strict = JobOptions { max_error: Some(1e-3), ..JobOptions::default() };
    let job = world.run_with(&strict).await.1;
    assert_eq!((job.state, job.verified.as_str()), (JobState::Done, "quorum"));
    assert!(replicas(&job) >= 2.0 && job.error_bound.is_some_and(|bound| bound <= 1e-3), "{job:?}");
    let both = JobOptions { verify: Some(Verify::Off), ..strict };
    let error = world.engine.submit(world::QUERY, &both).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Usage, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_computed_once_for_the_same_plan_and_data() {
    let cached = |config: &mut EngineConfig| config.cache_bytes = 8 << 20;
    let world = World::tweaked(&MemoryNet::new(), 6, &Arc::new(Nobody), |_, _| (None, None), cached).await;
    let first = world.run().await.1;
    let (rows, again) = world.run().await;
    assert_eq!((rows, again.cached), (Ok(16), Some(first.id)));
    assert_eq!((&again.digest, again.rows, again.error_bound), (&first.digest, first.rows, first.error_bound));
    assert_eq!((again.stages.len(), again.receipts), (0, 0), "nobody worked for it");

    let afresh = JobOptions { no_cache: true, ..JobOptions::default() };
    let strict = JobOptions { max_error: Some(1e-6), ..JobOptions::default() };
    for options in [afresh, strict] {
        let record = world.run_with(&options).await.1;
        assert_eq!((record.cached, &record.digest), (None, &first.digest), "{options:?}");
    }
    let top = "select carrier from flights order by carrier limit 2";
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let id = world.engine.submit(top, &JobOptions::default()).await.unwrap().id;
        world::rows(&world.engine, id).await.unwrap();
        jobs.push(world.record(id).await);
    }
    assert_eq!((jobs[0].cached, jobs[1].cached), (None, Some(jobs[0].id)), "limited sorts, too");
    world::put_again(&world.engine, "airlines", 10).await;
    let (rows, record) = world.run().await;
    assert_eq!((rows, record.cached), (Ok(10), None), "other data, another answer");
}
