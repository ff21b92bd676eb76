//! One pass through a job's stages: tasks as they become ready, what is to be looked at again beside them, and at the end
//! whatever must be looked at before the answer is released.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use conun_types::{Error, InputBlock, Result};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};

use crate::{
    credit::Look,
    job::prepare,
    stage::{StageGraph, TaskKey},
    task::{Prepared, Settled, Settler},
};

/// What a running job waits for.
enum Done {
    Task(Box<Settled>),
    Looked(Look),
}

/// One pass through the stages.
pub(crate) struct Pass<'a> {
    settler: &'a Settler,
    graph: StageGraph,
    waiting: VecDeque<Arc<Prepared>>,
    running: FuturesUnordered<BoxFuture<'a, Result<Done>>>,
    /// What is to be looked at again and is not begun: outlives the pass, as audits are drawn once.
    open: &'a mut BTreeSet<Look>,
    /// What is being looked at.
    begun: BTreeSet<Look>,
    /// Tasks whose verdict is in, in this pass.
    settled: BTreeSet<TaskKey>,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(settler: &'a Settler, graph: StageGraph, open: &'a mut BTreeSet<Look>) -> Self {
        let (waiting, running, begun, settled) = Default::default();
        Self { settler, graph, waiting, running, open, begun, settled }
    }

    /// The blocks of the answer, once nothing of the job is in doubt; `None` where an accepted answer was overturned.
    ///
    /// # Errors
    /// As [`Settler::settle`].
    pub(crate) async fn finish(mut self) -> Result<Option<Vec<InputBlock>>> {
        let context = self.settler.context();
        let mut examined = false;
        loop {
            self.take_ready()?;
            self.look(false);
            self.start();
            let done = self.running.next().await;
            // Whatever came of a task that reads what was overturned means nothing.
            if self.settler.was_overturned() {
                self.open.append(&mut self.begun);
                return Ok(None);
            }
            match done.transpose()? {
                Some(Done::Task(settled)) => {
                    self.settled.insert(settled.task.stage.key);
                    self.graph.complete(&settled.task.stage, &settled.outputs)?;
                }
                Some(Done::Looked(look)) => _ = self.begun.remove(&look),
                None if !self.graph.is_done() => {
                    return Err(Error::internal("the stage graph has no task left and is not done"));
                }
                None if !examined => {
                    examined = true;
                    self.settler.examine().await;
                }
                None if self.look(true) => {}
                None if self.open.is_empty() && context.credit.release(context.job) => {
                    return Ok(Some(self.graph.answer()?));
                }
                // Another job has caught somebody meanwhile.
                None if context.credit.has_doubts(context.job) => {}
                None => return Err(Error::internal("a job with nothing left to look at cannot be released")),
            }
        }
    }

    fn take_ready(&mut self) -> Result<()> {
        for task in self.graph.ready_tasks()? {
            self.settler.notes().tasks(task.key.stage, 1);
            self.waiting.push_back(Arc::new(prepare(self.settler.context(), task)?));
        }
        Ok(())
    }

    /// Begins to look again at what is due; tells whether there is anything.
    fn look(&mut self, closing: bool) -> bool {
        let (settler, context) = (self.settler, self.settler.context());
        self.open.extend(context.credit.looks(context.job, closing));
        // A task may be in doubt a moment before its verdict is written down, or wait for its turn in a second pass.
        // What is in doubt again while it is looked at is looked at again afterwards.
        let due = self.open.difference(&self.begun).filter(|look| self.settled.contains(&look.task()));
        let due: Vec<Look> = due.copied().collect();
        self.open.retain(|look| !due.contains(look));
        for look in &due {
            let look = *look;
            self.running.push(async move { settler.look(look).await.map(|()| Done::Looked(look)) }.boxed());
        }
        self.begun.extend(&due);
        !due.is_empty()
    }

    fn start(&mut self) {
        let settler = self.settler;
        while self.running.len() < settler.context().config.tasks_in_flight
            && let Some(task) = self.waiting.pop_front()
        {
            self.running.push(async move { settler.settle(task).await.map(|s| Done::Task(Box::new(s))) }.boxed());
        }
    }
}
