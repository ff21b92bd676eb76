//! Plans as bytes: what DataFusion's encoding would cut off is there again, and what no planner makes is refused.

use std::sync::Arc;

use conun_executor::{EquivalenceBarrierExec, decode_plan, encode_plan, equivalence_barrier::Known, session};
use datafusion::{
    arrow::{
        array::{Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema},
    },
    physical_plan::{ExecutionPlan, aggregates::AggregateExec, displayable},
};
use datafusion_proto::protobuf::{AggregateExecNode, PhysicalPlanNode, physical_plan_node::PhysicalPlanType};
use prost::Message;

use crate::common::{Shards, plan};

async fn planned(sql: &str) -> Arc<dyn ExecutionPlan> {
    let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, false)]));
    let rows = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![3, 1, 2]))]).unwrap();
    plan(sql, Shards::new(&[rows])).await.0
}

fn decoded(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    decode_plan(&encode_plan(plan).unwrap(), &session::bare_context()).unwrap()
}

#[tokio::test]
async fn limits_beyond_32_bits_are_whole() {
    let sqls = [
        "select v from t limit 9223372036854775807 offset 10",
        "select v from t offset 4294967297",
        "select v from t where v > 1 limit 4294967297",
        "select v from t order by v + 1 limit 4294967297 offset 4294967298",
        "select distinct v from t limit 4294967297",
    ];
    for sql in sqls {
        let plan = planned(sql).await;
        let (before, after) = (displayable(plan.as_ref()), decoded(&plan));
        let before = before.indent(true).to_string();
        assert!(before.contains("42949672") || before.contains("9223372036854775807"), "{sql}\n{before}");
        assert_eq!(before, displayable(after.as_ref()).indent(true).to_string(), "{sql}");
    }
}

#[tokio::test]
async fn barriers_hide_the_same_and_what_is_below_is_whole() {
    let whole = "select count(*) from t group by grouping sets (())";
    for known in
        [Known::NOTHING, Known::EQUALITIES, Known::ORDERS, Known::ALL, Known { equalities: true, orders_before: 1 }]
    {
        let barrier: Arc<dyn ExecutionPlan> = Arc::new(EquivalenceBarrierExec::new(planned(whole).await, known));
        let decoded = decoded(&barrier);
        assert_eq!(decoded.downcast_ref::<EquivalenceBarrierExec>().map(EquivalenceBarrierExec::known), Some(known));
        assert_eq!(aggregates(&decoded), aggregates(&barrier));
    }
}

fn aggregates(plan: &Arc<dyn ExecutionPlan>) -> Vec<String> {
    let own = plan.downcast_ref::<AggregateExec>().map(|aggregate| format!("{:?}", aggregate.group_expr()));
    let children = plan.children().into_iter().flat_map(aggregates);
    own.into_iter().chain(children).collect()
}

#[tokio::test]
async fn floats_of_16_bits_stay_as_small() {
    for sql in [
        "lag(arrow_cast(v, 'Float16'), 1, arrow_cast(2.5, 'Float16')) over (order by v)",
        "arrow_cast(v, 'Float16') in (arrow_cast(2.5, 'Float16'), arrow_cast(null, 'Float16'))",
        "arrow_cast(2.5, 'Float16')",
    ] {
        let plan = planned(&format!("select {sql} from t")).await;
        assert_eq!(decoded(&plan).schema().field(0).data_type(), plan.schema().field(0).data_type());
    }
}

#[tokio::test]
async fn grouping_sets_without_columns_are_counted() {
    for sql in
        ["select sum(v) from t group by grouping sets (())", "select sum(v) from t group by grouping sets ((), ())"]
    {
        let plan = planned(sql).await;
        assert_eq!(aggregates(&plan), aggregates(&decoded(&plan)), "{sql}");
    }
}

#[tokio::test]
async fn grouping_sets_of_other_columns_are_refused() {
    fn aggregate(node: &mut PhysicalPlanNode) -> Option<&mut AggregateExecNode> {
        match node.physical_plan_type.as_mut()? {
            PhysicalPlanType::Aggregate(node) => match node.has_grouping_set {
                true => Some(node),
                false => aggregate(node.input.as_mut()?),
            },
            PhysicalPlanType::Projection(projection) => aggregate(projection.input.as_mut()?),
            _ => None,
        }
    }
    let plan = planned("select v, count(*) from t group by grouping sets ((v), ())").await;
    let node = PhysicalPlanNode::decode(encode_plan(&plan).unwrap().as_slice()).unwrap();
    let changed = |change: fn(&mut AggregateExecNode)| {
        let mut node = node.clone();
        change(aggregate(&mut node).expect("it aggregates"));
        decode_plan(&node.encode_to_vec(), &session::bare_context())
    };
    assert!(changed(|_| ()).is_ok());
    let wrong: [fn(&mut AggregateExecNode); 3] = [
        |node| node.null_expr.clear(),
        |node| (node.group_expr.clear(), node.has_grouping_set = false).0,
        |node| node.null_expr.push(node.null_expr[0].clone()),
    ];
    for change in wrong {
        let error = changed(change).unwrap_err();
        assert!(error.message.contains("grouping sets"), "{error}");
    }
}
