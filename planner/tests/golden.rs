//! What each rewriting pass makes of a plan, as text: before and after, and as a node pins it. After a change on purpose, rewrite the files with
//! `INSTA_UPDATE=always cargo nextest run --release -p conun-planner` and read the difference.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fmt::Write, sync::Arc};

use common::{plan, session};
use datafusion::{
    execution::SessionState,
    physical_plan::{ExecutionPlan, displayable},
};

/// Statement by statement: the plan as parsed and as optimized, with the passes in between, what tasks are cut from, and
/// what the executor's passes make of that.
async fn plans(statements: &[&str]) -> String {
    let (state, mut text) = (session(), String::new());
    for sql in statements {
        let (parsed, physical) = plan(&state, sql).await.unwrap();
        writeln!(text, "{sql}\n\nbefore:\n{}\n", parsed.display_indent()).unwrap();
        writeln!(text, "after:\n{}\n", state.optimize(&parsed).unwrap().display_indent()).unwrap();
        writeln!(text, "physical:\n{}\n", shown(&physical)).unwrap();
        let on_nodes = shown(&conun_executor::pin::pin(physical.clone()).unwrap());
        if on_nodes != shown(&physical) {
            writeln!(text, "pinned on a node:\n{on_nodes}\n").unwrap();
        }
    }
    text
}

/// Without addresses of shards: they are long and say nothing here.
fn shown(plan: &Arc<dyn ExecutionPlan>) -> String {
    let plan = displayable(plan.as_ref()).indent(false).to_string();
    let shorten = |line: &str| match (line.find("file_groups="), line.find(", projection=")) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &line[..from], &line[to + 2..]),
        _ => line.to_owned(),
    };
    plan.lines().map(shorten).collect::<Vec<_>>().join("\n")
}

macro_rules! golden {
    ($($name:ident: $statements:expr;)*) => {$(
        #[tokio::test]
        async fn $name() {
            let plans = plans(&$statements).await;
            insta::with_settings!({ snapshot_path => "golden", prepend_module_to_snapshot => false, omit_expression => true }, {
                insta::assert_snapshot!(stringify!($name), plans);
            });
        }
    )*};
}

golden! {
    moment: [
        "select k, now() as n, current_date, current_time from t where at < now() - interval '1 hour'",
        "select k from t group by k having max(at) < now() order by now()",
    ];
    distinct_order: [
        "select array_agg(distinct name) from t",
        "select k, array_agg(distinct name), string_agg(distinct name, ',') as s from t group by k",
        "select array_agg(distinct name order by name desc) from t",
    ];
    window_distinct: ["select k, array_agg(distinct name) over (partition by k order by v) as names from t"];
    window_words: [
        "select k, sum(v) filter (where v > 7) over (partition by k) as s, count(*) filter (where k > 1) over (order by v) from t",
        "select k, lag(v) ignore nulls over (order by k) as l, first_value(v) over (order by k desc) as f from t",
    ];
    single_row: [
        "select k, (select name from small) as n from t where v > (select max(k) from small)",
    ];
    subquery_flags: [
        "select k, exists (select 1 from small where small.k = t.k) as e, v in (select k from small) as i from t",
    ];
    subquery_places: [
        "select k from t order by v + (select max(k) from small)",
        "select k, sum(v + (select max(k) from small)) as s from t group by k",
        "select t.k from t join small on t.k = small.k and t.v > (select max(k) from small)",
    ];
    false_equivalences: [
        "select k, v, count(*) as n from t where k = 3 and v > 7 group by rollup(v, k) order by k, v desc",
        "select b.k, t.v from t left join (select * from small where k = 3) b on t.v = b.k order by b.k, t.v",
        "select t.v, s.name from (select * from small order by name limit 9) s join (select * from t order by v limit 99) t \
            on s.k = t.k order by t.v, s.name",
    ];
    // No pass of the planner changes them: order is pinned on nodes.
    pinned: [
        "select * from t limit 10",
        "select array_agg(v), first_value(name) from t",
        "select k, row_number() over (order by v) from t",
        "select distinct on (k) k, v from t order by k, v desc",
        "select k from t union all select k from small",
        "select count(distinct name), count(distinct k) from t",
    ];
}

#[tokio::test]
async fn the_moment_is_the_one_that_was_given() {
    let state: SessionState = session();
    let plan = conun_planner::logical_plan(&state, "select now() from t").await.unwrap();
    let plan = state.optimize(&plan).unwrap().display_indent().to_string();
    assert!(plan.contains("1700000000000000000"), "{plan}");
}
