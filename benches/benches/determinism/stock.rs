//! DataFusion as it comes: its own operators and functions, plain uncompressed IPC between stages, read without checks.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use async_trait::async_trait;
use bytes::Bytes;
use conun_benches::tpch::Error;
use datafusion::{
    datasource::{memory::MemorySourceConfig, source::DataSourceExec},
    execution::TaskContext,
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties,
        metrics::Time,
        repartition::{BatchPartitioner, RepartitionExec},
    },
};
use futures::StreamExt;

use crate::{
    stages::{Seen, Side},
    workload::Workload,
};

/// A session's context.
pub(crate) struct Stock(Arc<TaskContext>);

impl Stock {
    pub(crate) fn new(workload: &Workload) -> Result<Self, Error> {
        Ok(Self(workload.stock_context()?))
    }
}

#[async_trait(?Send)]
impl Side for Stock {
    async fn run(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<Bytes>, Error> {
        let schema = plan.schema();
        let writer = || StreamWriter::try_new(Vec::new(), &schema);
        let mut writers =
            (0..plan.output_partitioning().partition_count()).map(|_| writer()).collect::<Result<Vec<_>, _>>()?;
        if let Some(root) = plan.downcast_ref::<RepartitionExec>() {
            let mut scatter = BatchPartitioner::try_new(root.partitioning().clone(), Time::default(), 0, 1)?;
            for partition in 0..root.input().output_partitioning().partition_count() {
                let mut batches = root.input().execute(partition, Arc::clone(&self.0))?;
                while let Some(batch) = batches.next().await {
                    scatter.partition(batch?, |to, rows| Ok(writers[to].write(&rows)?))?;
                }
            }
        } else {
            for (partition, writer) in writers.iter_mut().enumerate() {
                let mut batches = plan.execute(partition, Arc::clone(&self.0))?;
                while let Some(batch) = batches.next().await {
                    writer.write(&batch?)?;
                }
            }
        }
        writers.into_iter().map(|writer| Ok(writer.into_inner()?.into())).collect()
    }

    fn reader(&self, blocks: Vec<Bytes>, seen: Seen) -> Result<Arc<dyn ExecutionPlan>, Error> {
        let partitions = blocks.iter().map(|block| read(block)).collect::<Result<Vec<_>, _>>()?;
        let mut source = MemorySourceConfig::try_new(&partitions, seen.schema, None)?;
        if let Some(ordering) = seen.ordering {
            source = source.try_with_sort_information(vec![ordering; partitions.len().min(1)])?;
        }
        Ok(DataSourceExec::from_data_source(source))
    }
}

fn read(block: &Bytes) -> Result<Vec<RecordBatch>, Error> {
    let reader = StreamReader::try_new(block.as_ref(), None)?;
    #[expect(unsafe_code, reason = "these bytes were written a moment ago, and Ballista does not check them either")]
    // SAFETY: `Stock::run` wrote them from valid batches.
    let reader = unsafe { reader.with_skip_validation(true) };
    Ok(reader.collect::<Result<_, _>>()?)
}
