//! A liar bends one batch of one operator and is honest in all the rest: a referee must find that very place.

use std::sync::Mutex;

use async_trait::async_trait;
use conun_types::{JobId, OutputSpec};
use datafusion::{
    arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UnionArray},
    arrow::datatypes::{Field, Int64Type, UnionFields},
    datasource::MemTable,
    error::Result as PlanResult,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::expressions::col,
    physical_plan::{
        DisplayAs, DisplayFormatType, Partitioning, PlanProperties, repartition::RepartitionExec,
        stream::RecordBatchStreamAdapter,
    },
    prelude::SessionContext,
};
use futures::StreamExt;

use super::*;
use crate::{
    MemoryInputs, encode_plan,
    run::run_rewritten,
    run_task, session_config,
    trace::{Recorder, TapExec, Trace, record, rewrite_all},
};

/// Three partitions of two batches.
fn table() -> Vec<Vec<RecordBatch>> {
    let batch = |start: i64| {
        let rows = start..start + 40;
        let keys = rows.clone().map(|i| ["a", "b", "c", "d", "e"][(i % 5) as usize]);
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values(keys));
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows));
        RecordBatch::try_from_iter([("k", keys), ("v", values)]).unwrap()
    };
    (0..3).map(|part| vec![batch(part * 80), batch(part * 80 + 40)]).collect()
}

async fn task(sql: &str, shuffled: bool) -> TaskEnvelope {
    task_over(MemTable::try_new(table()[0][0].schema(), table()).unwrap(), sql, shuffled).await
}

async fn task_over(table: MemTable, sql: &str, shuffled: bool) -> TaskEnvelope {
    // The planner has subqueries turned into joins; nodes take the operator, too.
    let config = session_config()
        .with_target_partitions(1)
        .set_bool("datafusion.optimizer.enable_physical_uncorrelated_scalar_subquery", true);
    let mut state = SessionContext::new_with_config(config).state();
    conun_functions::register(&mut state).unwrap();
    let context = SessionContext::new_with_state(state);
    context.register_table("t", Arc::new(table)).unwrap();
    let mut plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    let mut output = OutputSpec::Passthrough;
    if shuffled {
        let keys = vec![col(plan.schema().field(0).name(), &plan.schema()).unwrap()];
        plan = Arc::new(RepartitionExec::try_new(plan, Partitioning::Hash(keys, 3)).unwrap());
        output = OutputSpec::Hash(3);
    }
    TaskEnvelope { output, ..TaskEnvelope::new(JobId([1; 16]), 1, 0, encode_plan(&plan).unwrap()) }
}

fn nothing() -> Arc<MemoryInputs> {
    Arc::new(MemoryInputs::default())
}

/// How a batch is bent; none where it cannot be.
type Bend = fn(&RecordBatch) -> Option<RecordBatch>;

fn without_last_row(batch: &RecordBatch) -> Option<RecordBatch> {
    Some(batch.slice(0, batch.num_rows().checked_sub(1)?))
}

fn one_more(batch: &RecordBatch) -> Option<RecordBatch> {
    let at = batch.columns().iter().position(|c| !c.is_empty() && c.as_primitive_opt::<Int64Type>().is_some())?;
    let values = batch.column(at).as_primitive::<Int64Type>();
    let bent: Int64Array =
        values.iter().enumerate().map(|(i, v)| if i == 0 { Some(v.unwrap_or(0) + 1) } else { v }).collect();
    let mut columns = batch.columns().to_vec();
    columns[at] = Arc::new(bent);
    RecordBatch::try_new(batch.schema(), columns).ok()
}

/// Bends the first batch that can be bent, and remembers where it was.
#[derive(Debug, Clone)]
struct BentExec {
    input: Arc<dyn ExecutionPlan>,
    bend: Bend,
    touched: Touched,
}

/// Partition and batch.
type Touched = Arc<Mutex<Option<(u32, u32)>>>;

impl DisplayAs for BentExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BentExec")
    }
}

impl ExecutionPlan for BentExec {
    fn name(&self) -> &'static str {
        "BentExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    crate::one_input_plan!(|plan: &Self, input| Self { input, ..plan.clone() });

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> PlanResult<SendableRecordBatchStream> {
        let (bend, touched) = (self.bend, self.touched.clone());
        let batches = self.input.execute(partition, context)?.enumerate().map(move |(at, batch)| {
            let batch = batch?;
            let mut touched = touched.lock().unwrap();
            match bend(&batch).filter(|_| touched.is_none()) {
                Some(bent) => {
                    *touched = Some((partition as u32, at as u32));
                    Ok(bent)
                }
                None => Ok(batch),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

/// A liar that bends operator `number`.
struct Liar {
    envelope: TaskEnvelope,
    number: u32,
    bend: Bend,
    touched: Touched,
    trace: Trace,
    blocks: Vec<OutputBlock>,
}

impl Liar {
    /// None where the lie ends in an error.
    async fn new(envelope: &TaskEnvelope, number: u32, bend: Bend) -> Option<Self> {
        let (trace, blocks) = Default::default();
        let mut liar = Self { envelope: envelope.clone(), number, bend, touched: Touched::default(), trace, blocks };
        let recorder = Arc::new(Recorder::default());
        liar.blocks = blocks_of(&liar.run(&recorder).await?);
        liar.trace = recorder.trace();
        Some(liar)
    }

    async fn run(&self, recorder: &Arc<Recorder>) -> Option<crate::TaskOutput> {
        *self.touched.lock().unwrap() = None;
        let bent = |plan| {
            rewrite_all(plan, &mut |number, operator| {
                recorder.expect(number, &operator);
                let bent: Arc<dyn ExecutionPlan> = match number == self.number {
                    true => Arc::new(BentExec { input: operator, bend: self.bend, touched: self.touched.clone() }),
                    false => operator,
                };
                Arc::new(TapExec::new(bent, number, recorder.clone()))
            })
        };
        run_rewritten(&self.envelope, nothing(), bent).await.ok()
    }
}

#[async_trait]
impl Witness for Liar {
    async fn roots(&mut self) -> Words<Vec<[u8; 32]>> {
        Ok(Some(self.trace.roots()))
    }

    async fn operator(&mut self, number: u32) -> Words<OperatorTrace> {
        Ok(self.trace.operator(number).cloned())
    }

    async fn batch(&mut self, number: u32, cid: Cid) -> Words<Bytes> {
        let recorder = Arc::new(Recorder::keeping(number));
        Ok(self.run(&recorder).await.and_then(|_| recorder.kept().remove(&cid)))
    }
}

fn blocks_of(output: &crate::TaskOutput) -> Vec<OutputBlock> {
    output.blocks.iter().map(|(block, _)| *block).collect()
}

const PLANS: &[(&str, &str)] = &[
    ("FilterExec", "select k, v from t where v % 3 = 0"),
    ("AggregateExec", "select k, count(*) as n, sum(v) as s from t group by k"),
    ("AggregateExec", "select count(distinct k) as n, max(v) from t"),
    ("HashJoinExec", "select a.v, b.k from t a join t b on a.v = b.v + 1"),
    ("NestedLoopJoinExec", "select a.v, b.v from t a join t b on a.v + 200 < b.v"),
    ("CrossJoinExec", "select a.v, b.v from (select v from t where v < 9) a cross join t b"),
    ("SortExec", "select k, v from t order by k, v desc"),
    ("SortExec(TopK)", "select v, k from t order by k, v limit 5"),
    ("OrderedCoalesceExec", "select v, k from t where v > 3 limit 7"),
    ("BoundedWindowAggExec", "select k, v, row_number() over (partition by k order by v desc) as r from t"),
    ("WindowAggExec", "select v, k, count(*) over (partition by k) as r from t"),
    ("UnionExec", "select v, k from t where v < 10 union all select v, k from t where v > 230"),
    ("ScalarSubqueryExec", "select v, k from t where v > (select avg(v) from t)"),
    ("ProjectionExec", "select v + 1 as w, upper(k) as k from t"),
];

#[tokio::test]
async fn a_trace_listens_in_and_changes_nothing() {
    for (name, sql) in PLANS {
        for shuffled in [false, true] {
            let task = task(sql, shuffled).await;
            let plain = run_task(&task, nothing()).await.unwrap();
            let (output, trace) = record(&task, nothing()).await.unwrap();
            assert_eq!(blocks_of(&output), blocks_of(&plain), "{sql}");
            assert_eq!(record(&task, nothing()).await.unwrap().1, trace, "{sql}: the same trace each time");
            let outline = Outline::of(&task).unwrap();
            assert_eq!(trace.operators.len(), outline.operators.len(), "{sql}");
            assert!(outline.operators.iter().any(|o| o.name.contains(name)), "{sql} has no {name}: {outline:?}");
        }
    }
}

#[tokio::test]
async fn the_bent_operator_and_batch_are_found_whichever_it_is() {
    let mut found = 0;
    for (_, sql) in PLANS {
        for (shuffled, bend) in [(false, without_last_row as Bend), (true, without_last_row), (false, one_more)] {
            let task = task(sql, shuffled).await;
            let honest = blocks_of(&run_task(&task, nothing()).await.unwrap());
            for number in 1..=Outline::of(&task).unwrap().operators.len() as u32 {
                let Some(mut liar) = Liar::new(&task, number, bend).await else { continue };
                if liar.blocks == honest {
                    continue;
                }
                let (lie, touched) = (liar.blocks.clone(), *liar.touched.lock().unwrap());
                let mut replay = Replay::new(task.clone(), nothing());
                let ruling = decide(&task, [&honest, &lie], [&mut replay, &mut liar], nothing()).await.unwrap();
                let place = ruling.place.clone().unwrap();
                let case = format!("{sql}: #{number} bent at {touched:?}, found {ruling:?}");
                assert_eq!((place.operator, Some((place.partition, place.batch))), (number, touched), "{case}");
                assert_eq!(ruling.right, Some(Party::First), "{case}");
                let turned = decide(&task, [&lie, &honest], [&mut liar, &mut replay], nothing()).await.unwrap();
                assert_eq!((turned.right, turned.place), (Some(Party::Second), ruling.place), "{case}");
                found += 1;
            }
        }
    }
    assert!(found > 100, "only {found} lies were told");
}

/// A witness whose words a test changes.
struct Evasive<'a> {
    honest: Replay,
    say: &'a (dyn Fn(u32, OperatorTrace) -> Option<OperatorTrace> + Sync),
    roots: Option<Vec<[u8; 32]>>,
}

#[async_trait]
impl Witness for Evasive<'_> {
    async fn roots(&mut self) -> Words<Vec<[u8; 32]>> {
        Ok(self.roots.clone())
    }

    async fn operator(&mut self, number: u32) -> Words<OperatorTrace> {
        let honest = self.honest.operator(number).await?;
        Ok(honest.and_then(|honest| (self.say)(number, honest)))
    }

    async fn batch(&mut self, _: u32, _: Cid) -> Words<Bytes> {
        Ok(Some(Bytes::from_static(b"nonsense")))
    }
}

#[tokio::test]
async fn who_does_not_back_its_output_up_has_lost() {
    let task = task("select k, v from t where v % 3 = 0", false).await;
    let honest = blocks_of(&run_task(&task, nothing()).await.unwrap());
    let mut lie = honest.clone();
    lie[1].cid = Cid::raw(b"lie");
    let roots = Replay::new(task.clone(), nothing()).trace().await.unwrap().roots();
    let mut bent_roots = roots.clone();
    bent_roots[0] = [7; 32];
    let told = |trace: OperatorTrace| Some(trace);
    let mut unended = Replay::new(task.clone(), nothing()).operator(1).await.unwrap().unwrap();
    unended.partitions[0].ended = false;
    let mut unended_roots = roots.clone();
    unended_roots[0] = unended.root();
    type Say<'a> = Box<dyn Fn(u32, OperatorTrace) -> Option<OperatorTrace> + Sync + 'a>;
    type Case<'a> = (&'a str, Option<Vec<[u8; 32]>>, Say<'a>);
    let cases: Vec<Case<'_>> = vec![
        ("no trace", None, Box::new(move |_, trace| told(trace))),
        ("another number of operators", Some(roots[1..].to_vec()), Box::new(move |_, trace| told(trace))),
        ("another trace than", Some(bent_roots.clone()), Box::new(move |_, trace| told(trace))),
        ("no trace of operator", Some(bent_roots), Box::new(|_, _| None)),
        ("impossible", Some(unended_roots), Box::new(|_, _| Some(unended.clone()))),
        ("over what both agree on", Some(roots), Box::new(move |_, trace| told(trace))),
    ];
    for (why, roots, say) in cases {
        let mut replay = Replay::new(task.clone(), nothing());
        let mut evasive = Evasive { honest: Replay::new(task.clone(), nothing()), say: &*say, roots };
        let ruling = decide(&task, [&lie, &honest], [&mut evasive, &mut replay], nothing()).await.unwrap();
        assert_eq!(ruling.right, Some(Party::Second), "{why}: {ruling:?}");
        assert!(ruling.why.contains(why), "{why}: {ruling:?}");
    }
    let silent = || Evasive { honest: Replay::new(task.clone(), nothing()), say: &|_, _| None, roots: None };
    let ruling = decide(&task, [&lie, &honest], [&mut silent(), &mut silent()], nothing()).await.unwrap();
    assert_eq!((ruling.right, ruling.place), (None, None));
}

#[tokio::test]
async fn two_liars_are_both_wrong_and_a_lie_after_the_last_operator_is_the_writers() {
    let task = task("select k, v from t where v % 3 = 0", true).await;
    let honest = blocks_of(&run_task(&task, nothing()).await.unwrap());
    let mut first = Liar::new(&task, 2, without_last_row).await.unwrap();
    let mut second = Liar::new(&task, 2, one_more).await.unwrap();
    let votes = [first.blocks.clone(), second.blocks.clone()];
    let ruling = decide(&task, [&votes[0], &votes[1]], [&mut first, &mut second], nothing()).await.unwrap();
    assert_eq!((ruling.right, ruling.place.map(|p| p.operator)), (None, Some(2)));

    let mut lie = honest.clone();
    lie[2].cid = Cid::raw(b"lie");
    let mut replays = [(); 2].map(|()| Replay::new(task.clone(), nothing()));
    let [first, second] = &mut replays;
    let ruling = decide(&task, [&lie, &honest], [first, second], nothing()).await.unwrap();
    assert_eq!(ruling.right, Some(Party::Second));
    assert_eq!(ruling.place.map(|p| p.to_string()), Some("writer (#0), block 2".to_owned()));
}

/// What two that tell the same honest trace are ruled, with these votes.
async fn ruled(task: &TaskEnvelope, first: &[OutputBlock], second: &[OutputBlock]) -> Ruling {
    let mut replays = [(); 2].map(|()| Replay::new(task.clone(), nothing()));
    let [a, b] = &mut replays;
    decide(task, [first, second], [a, b], nothing()).await.unwrap()
}

#[tokio::test]
async fn a_claim_is_the_whole_block_and_the_whole_list() {
    let task = task("select k, v from t where v % 3 = 0", true).await;
    let honest = blocks_of(&run_task(&task, nothing()).await.unwrap());
    type Lie = fn(&mut Vec<OutputBlock>);
    let lies: [(&str, u32, Lie); 5] = [
        ("rows", 1, |blocks| blocks[1].rows += 1),
        ("bytes", 1, |blocks| blocks[1].bytes += 1),
        ("its partition", 2, |blocks| blocks[2].partition = 0),
        ("a block more", 3, |blocks| blocks.push(OutputBlock { partition: 3, ..blocks[0] })),
        ("a block less", 2, |blocks| blocks.truncate(2)),
    ];
    for (what, block, bend) in lies {
        let mut lie = honest.clone();
        bend(&mut lie);
        let found = [ruled(&task, &lie, &honest).await, ruled(&task, &honest, &lie).await];
        assert_eq!(found.each_ref().map(|r| r.right), [Some(Party::Second), Some(Party::First)], "{what}: {found:?}");
        assert!(
            found.iter().all(|r| r.place.as_ref().map(|p| (p.operator, p.partition)) == Some((0, block))),
            "{what}"
        );
    }
    let (mut first, mut second) = (honest.clone(), honest.clone());
    (first[1].rows, second[2].rows) = (7, 7);
    assert_eq!(ruled(&task, &first, &second).await.right, None, "each is wrong in a block of its own");
}

#[tokio::test]
async fn who_claims_the_same_has_no_dispute_whatever_is_told() {
    let task = task("select k, v from t where v % 3 = 0", false).await;
    let honest = blocks_of(&run_task(&task, nothing()).await.unwrap());
    let mut liar = Liar::new(&task, 2, without_last_row).await.unwrap();
    let mut replay = Replay::new(task.clone(), nothing());
    let ruling = decide(&task, [&honest, &honest], [&mut replay, &mut liar], nothing()).await.unwrap();
    assert_eq!((ruling.right, ruling.place), (None, None));
}

/// An honest witness whose machine fails at one question.
struct Failing {
    honest: Replay,
    at: &'static str,
    failure: Failure,
}

impl Failing {
    fn fails(&self, at: &str) -> Result<(), Failure> {
        if self.at == at { Err(self.failure.clone()) } else { Ok(()) }
    }
}

#[async_trait]
impl Witness for Failing {
    async fn roots(&mut self) -> Words<Vec<[u8; 32]>> {
        self.fails("roots")?;
        self.honest.roots().await
    }

    async fn operator(&mut self, number: u32) -> Words<OperatorTrace> {
        self.fails("operator")?;
        self.honest.operator(number).await
    }

    async fn batch(&mut self, number: u32, cid: Cid) -> Words<Bytes> {
        self.fails("batch")?;
        self.honest.batch(number, cid).await
    }
}

#[tokio::test]
async fn a_machine_that_fails_is_no_lie() {
    let task = task("select k, v from t where v % 3 = 0", false).await;
    let honest = blocks_of(&run_task(&task, nothing()).await.unwrap());
    let failures = [Failure::MemoryExceeded, Failure::Node("it takes longer than 600s".into())];
    for at in ["roots", "operator", "batch"] {
        for failure in failures.clone() {
            // Batches may come from either; a liar that keeps its own to itself leaves the honest party's.
            let mut liar = Evasive {
                honest: Replay::new(task.clone(), nothing()),
                say: &|number: u32, mut told: OperatorTrace| {
                    if number == 1 {
                        told.partitions[0].batches[0] = Cid::raw(b"lie");
                    }
                    Some(told)
                },
                roots: None,
            };
            let mut roots = Replay::new(task.clone(), nothing()).roots().await.unwrap().unwrap();
            roots[0] = liar.operator(1).await.unwrap().unwrap().root();
            liar.roots = Some(roots);
            let mut lie = honest.clone();
            lie[0].cid = Cid::raw(b"lie");
            let mut failing = Failing { honest: Replay::new(task.clone(), nothing()), at, failure: failure.clone() };
            let ruling = decide(&task, [&honest, &lie], [&mut failing, &mut liar], nothing()).await.unwrap();
            assert_eq!(ruling.right, None, "{at}: {ruling:?}");
            assert!(ruling.why.contains("stays open") && ruling.why.contains(&failure.to_string()), "{ruling:?}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_traced_stays_open() {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3));
    let field = |name, column: &ArrayRef| Arc::new(Field::new(name, column.data_type().clone(), true));
    let fields = UnionFields::try_new([0], [field("v", &values)]).unwrap();
    let union: ArrayRef = Arc::new(UnionArray::try_new(fields, vec![0i8; 3].into(), None, vec![values]).unwrap());
    let batch = RecordBatch::try_from_iter([("u", union)]).unwrap();
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
    let task = task_over(table, "select union_tag(u) as tag from t", false).await;
    let honest = blocks_of(&run_task(&task, nothing()).await.unwrap());
    let failed = record(&task, nothing()).await.unwrap_err();
    assert!(matches!(&failed, Failure::Node(why) if why.contains("cannot be traced")), "{failed:?}");
    let mut lie = honest.clone();
    lie[0].cid = Cid::raw(b"lie");
    let silent = || Evasive { honest: Replay::new(task.clone(), nothing()), say: &|_, _| None, roots: None };
    let mut liar = Evasive { roots: Some(vec![[7; 32]; 2]), ..silent() };
    let ruling = decide(&task, [&honest, &lie], [&mut silent(), &mut liar], nothing()).await.unwrap();
    assert_eq!((ruling.right, ruling.place), (None, None), "who can have no trace has not lost");
    assert!(ruling.why.contains("cannot be traced") && ruling.why.contains("DataSourceExec"), "{}", ruling.why);
}

#[tokio::test]
async fn who_alone_names_rows_has_to_give_them_where_they_are_read() {
    let task = task("select v, k from t where v > 3 limit 7", false).await;
    let honest = blocks_of(&run_task(&task, nothing()).await.unwrap());
    let whole = Replay::new(task.clone(), nothing()).trace().await.unwrap().clone();
    let had_enough = |operator: &OperatorTrace| operator.partitions.iter().all(|p| !p.ended);
    let child = whole.operators.iter().position(had_enough).unwrap();
    assert_eq!(whole.operators[child].partitions[0].batches.len(), 1, "{whole:?}");
    let (limit, place) = (child - 1, Some(child as u32));
    // A liar whose limit gives something else, and whose child read on, or less, than is true.
    let mut lie = honest.clone();
    lie[0].cid = Cid::raw(b"lie");
    type Bend<'a> = &'a dyn Fn(&mut Vec<Batches>);
    let bent = |bend: Bend<'_>| {
        let mut trace = whole.clone();
        trace.operators[limit].partitions[0].batches[0] = Cid::raw(b"lie");
        bend(&mut trace.operators[child].partitions);
        Told::new(Some(trace), nothing())
    };
    let shrink = |partitions: &mut Vec<Batches>| partitions[0] = Batches::default();
    let bends: [(&str, Bend<'_>); 4] = [
        ("a made-up batch more", &|partitions| partitions[0].batches.push(Cid::raw(b"made up"))),
        ("in a partition that nobody asked for", &|partitions| partitions[2].batches.push(Cid::raw(b"made up"))),
        ("to a made-up end", &|partitions| partitions[0] = Batches { ended: true, ..partitions[0].clone() }),
        ("nothing", &shrink),
    ];
    for (what, bend) in bends {
        let mut replay = Replay::new(task.clone(), nothing());
        let ruling = decide(&task, [&honest, &lie], [&mut replay, &mut bent(bend)], nothing()).await.unwrap();
        assert_eq!((ruling.right, operator_of(&ruling)), (Some(Party::First), place), "{what}: {ruling:?}");
        let turned = decide(&task, [&lie, &honest], [&mut bent(bend), &mut replay], nothing()).await.unwrap();
        assert_eq!((turned.right, turned.place), (Some(Party::Second), ruling.place), "{what}");
    }

    let mut mute = Told::new(Some(whole.clone()), nothing());
    let ruling = decide(&task, [&honest, &lie], [&mut mute, &mut bent(&shrink)], nothing()).await.unwrap();
    assert_eq!((ruling.right, operator_of(&ruling)), (Some(Party::Second), place), "{ruling:?}");
    assert!(ruling.why.contains("the first party alone named batch"), "{}", ruling.why);
    let failure = Failure::Node("it takes longer than 600s".into());
    let mut failing = Failing { honest: Replay::new(task.clone(), nothing()), at: "batch", failure };
    let ruling = decide(&task, [&honest, &lie], [&mut failing, &mut bent(&shrink)], nothing()).await.unwrap();
    assert!(ruling.right.is_none() && ruling.why.contains("stays open"), "{ruling:?}");
}

fn operator_of(ruling: &Ruling) -> Option<u32> {
    ruling.place.as_ref().map(|place| place.operator)
}
