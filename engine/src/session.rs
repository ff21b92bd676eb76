//! A DataFusion session whose queries run on the network, so that `ctx.sql(..)` and dataframes need no other API.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use conun_planner::{Placement, external};
use conun_types::Error;
use datafusion::{
    catalog::Session,
    error::Result,
    execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext, context::QueryPlanner},
    logical_expr::LogicalPlan,
    physical_expr::EquivalenceProperties,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
    },
    physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner},
};

use crate::{
    engine::{Engine, Submitted},
    record::JobOptions,
};

/// `state`, with a planner that submits what reads the network's tables.
pub(crate) fn network_session(state: SessionState, engine: Weak<Engine>) -> SessionState {
    let planner = Arc::new(NetworkPlanner { engine, plain: state.clone() });
    SessionStateBuilder::new_from_existing(conun_planner::refusing(state)).with_query_planner(planner).build()
}

struct NetworkPlanner {
    engine: Weak<Engine>,
    /// The same session without this planner: jobs are planned by it.
    plain: SessionState,
}

impl fmt::Debug for NetworkPlanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkPlanner")
    }
}

#[async_trait]
impl QueryPlanner for NetworkPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, state: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        if conun_planner::placement(plan).map_err(external)? == Placement::Local {
            return DefaultPhysicalPlanner::default().create_physical_plan(plan, state).await;
        }
        let engine = self.engine.upgrade().ok_or_else(|| external(Error::unavailable("the coordinator stopped")))?;
        let text = plan.display_indent().to_string();
        let job =
            engine.submit_plan(&self.plain, plan.clone(), &text, &JobOptions::default()).await.map_err(external)?;
        Ok(Arc::new(NetworkExec::new(engine, job)))
    }
}

/// The answer of a job as a leaf of a plan.
struct NetworkExec {
    engine: Arc<Engine>,
    job: Submitted,
    properties: Arc<PlanProperties>,
}

impl NetworkExec {
    fn new(engine: Arc<Engine>, job: Submitted) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&job.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { engine, job, properties: Arc::new(properties) }
    }
}

impl fmt::Debug for NetworkExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkExec({})", self.job.id)
    }
}

impl DisplayAs for NetworkExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkExec: job={}", self.job.id)
    }
}

impl ExecutionPlan for NetworkExec {
    fn name(&self) -> &'static str {
        "NetworkExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    conun_executor::leaf_plan!();

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.engine.results(self.job.id).map_err(external)
    }
}
