//! What is foreseen of a statement, as rows: what `EXPLAIN COST` and `EXPLAIN VERIFY` answer.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, Decimal128Array, Float64Array, RecordBatch, UInt32Array, UInt64Array},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use conun_planner::Foresight;
use conun_trust::Forecast;
use conun_types::{Amount, Error, Result, WorkUnits};
use datafusion::{
    datasource::{MemTable, provider_as_source},
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
};

use crate::pilot::{Quote, QuotedStage};

/// Digits and decimal places of tokens.
const TOKENS: (u8, i8) = (38, 18);

/// Columns of a quote: a row a stage, and one with no stage for the sum. `replicas` is how many nodes run each task, `cost`
/// is in tokens and NULL where the coordinator does not pay, `sampled` the share of the tables that was read for the quote.
fn columns() -> SchemaRef {
    let field = |name: &str, data_type, nullable| Field::new(name, data_type, nullable);
    Arc::new(Schema::new(vec![
        field("stage", DataType::UInt32, true),
        field("tasks", DataType::UInt64, false),
        field("rows", DataType::UInt64, false),
        field("bytes", DataType::UInt64, false),
        field("units", DataType::UInt64, false),
        field("replicas", DataType::Float64, false),
        field("cost", DataType::Decimal128(TOKENS.0, TOKENS.1), true),
        field("sampled", DataType::Float64, false),
    ]))
}

/// Columns of what verification takes: a row a stage, and one with no stage for the sum. `replicas` is how many nodes run
/// each task in the mean, `extra_tasks` how many more tasks run than without verification, `error_bound` the probability
/// that the accepted answer of one task is wrong, at most.
fn verify_columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("stage", DataType::UInt32, true),
        Field::new("tasks", DataType::UInt64, false),
        Field::new("replicas", DataType::Float64, false),
        Field::new("extra_tasks", DataType::Float64, false),
        Field::new("error_bound", DataType::Float64, false),
    ]))
}

/// Columns of the answer, if `sql` is an `EXPLAIN COST` or `EXPLAIN VERIFY`.
#[must_use]
pub(crate) fn quote_schema(sql: &str) -> Option<SchemaRef> {
    conun_planner::foreseen(sql).map(|(foresight, _)| match foresight {
        Foresight::Cost => columns(),
        Foresight::Verify => verify_columns(),
    })
}

/// A plan that answers with `quote`, where `replicas` nodes run each task for `price` a unit.
pub(crate) fn rows(quote: &Quote, replicas: f64, price: Option<Amount>) -> Result<LogicalPlan> {
    table(batch(quote, replicas, price)?)
}

/// A plan that answers with what it takes to verify a job of so many tasks by stage.
pub(crate) fn verify_rows(tasks: &BTreeMap<u32, u64>, forecast: Forecast) -> Result<LogicalPlan> {
    table(verify_batch(tasks, forecast)?)
}

fn verify_batch(tasks: &BTreeMap<u32, u64>, forecast: Forecast) -> Result<RecordBatch> {
    // What no node runs, no node can answer wrongly.
    let forecast = if tasks.is_empty() { Forecast { replicas: 0.0, bound: 0.0, ..forecast } } else { forecast };
    let (sum, n) = (tasks.values().sum(), tasks.len() + 1);
    let counts: Vec<u64> = tasks.values().copied().chain([sum]).collect();
    // What a person reads: 1.05 - 1 is no 0.05 in binary.
    let extra = counts.iter().map(|tasks| (*tasks as f64 * (forecast.replicas - 1.0).max(0.0) * 1e6).round() / 1e6);
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter(tasks.keys().copied().map(Some).chain([None]))),
        Arc::new(UInt64Array::from(counts.clone())),
        Arc::new(Float64Array::from(vec![forecast.replicas; n])),
        Arc::new(Float64Array::from_iter_values(extra)),
        Arc::new(Float64Array::from(vec![forecast.bound; n])),
    ];
    RecordBatch::try_new(verify_columns(), arrays).map_err(|e| Error::internal(e.to_string()))
}

fn table(batch: RecordBatch) -> Result<LogicalPlan> {
    let broken = |e: datafusion::error::DataFusionError| conun_planner::plan_error(&e);
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(broken)?;
    let scan = LogicalPlanBuilder::scan("quote", provider_as_source(Arc::new(table)), None).map_err(broken)?;
    scan.build().map_err(broken)
}

fn batch(quote: &Quote, replicas: f64, price: Option<Amount>) -> Result<RecordBatch> {
    let stages = &quote.stages;
    let sum = |of: fn(&QuotedStage) -> u64| -> u64 { stages.iter().map(of).sum() };
    let with_sum = |of: fn(&QuotedStage) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(stages.iter().map(of).chain([sum(of)])))
    };
    let cost = |units: u64| price.map(|price| cost(price, units, replicas));
    let costs = stages.iter().map(|s| s.units.0).chain([sum(|s| s.units.0)]).map(cost);
    let costs: Decimal128Array = costs.collect();
    let n = stages.len() + 1;
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter(stages.iter().map(|s| Some(s.stage)).chain([None]))),
        with_sum(|s| s.tasks),
        with_sum(|s| s.output.rows),
        with_sum(|s| s.output.bytes),
        with_sum(|s| s.units.0),
        Arc::new(Float64Array::from(vec![replicas; n])),
        Arc::new(costs.with_precision_and_scale(TOKENS.0, TOKENS.1).map_err(|e| Error::internal(e.to_string()))?),
        Arc::new(Float64Array::from(vec![quote.sampled; n])),
    ];
    RecordBatch::try_new(columns(), arrays).map_err(|e| Error::internal(e.to_string()))
}

/// Tokens, in the smallest unit, that `units` cost if so many replicas run.
fn cost(price: Amount, units: u64, replicas: f64) -> i128 {
    // Thousandths of a replica: audits take a fraction more than one on average.
    let thousandths = (replicas * 1000.0).round() as u128;
    let amount = price.times(WorkUnits(units)).0.saturating_mul(thousandths) / 1000;
    i128::try_from(amount).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;
    use conun_types::Volume;

    #[test]
    fn what_verification_takes_is_told_by_stage() -> Result<()> {
        let forecast = Forecast { replicas: 2.0, bound: 0.012, reached: true };
        let rows = verify_batch(&BTreeMap::from([(1, 12), (2, 3)]), forecast)?;
        let of = |rows: &RecordBatch, column: usize| {
            rows.column(column).as_any().downcast_ref::<Float64Array>().map(|c| c.values().to_vec())
        };
        assert_eq!(of(&rows, 3), Some(vec![12.0, 3.0, 15.0]));
        assert!(rows.column(0).is_null(2));
        let audits = verify_batch(&BTreeMap::from([(1, 3)]), Forecast { replicas: 1.05, ..forecast })?;
        assert_eq!(of(&audits, 3), Some(vec![0.15, 0.15]), "as people write it");
        let local = verify_batch(&BTreeMap::new(), forecast)?;
        assert_eq!([of(&local, 2), of(&local, 3), of(&local, 4)].map(Option::unwrap_or_default), [[0.0]; 3]);
        Ok(())
    }

    #[test]
    fn the_last_row_is_the_sum() -> Result<()> {
        let stage = |stage, units| QuotedStage {
            stage,
            tasks: 2,
            output: Volume { rows: 3, bytes: 4 },
            units: WorkUnits(units),
        };
        let quote = Quote { stages: vec![stage(1, 10), stage(2, 20)], sampled: 1.0 };
        let rows = batch(&quote, 2.0, Some(Amount(5)))?;
        let costs = rows.column(6).as_any().downcast_ref::<Decimal128Array>().map(|c| c.values().to_vec());
        assert_eq!(costs, Some(vec![100, 200, 300]));
        assert!(rows.column(0).is_null(2));
        let free = batch(&quote, 1.1, None)?;
        assert_eq!(free.column(6).null_count(), 3);
        assert_eq!(cost(Amount(10), 100, 1.1), 1100);
        Ok(())
    }
}
