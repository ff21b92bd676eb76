//! The operators of a plan by their numbers: what they are called, whose rows they need, and one of them alone.

use std::sync::Arc;

use conun_types::{Failure, TaskEnvelope};
use datafusion::{
    error::DataFusionError,
    physical_plan::{ExecutionPlan, ExecutionPlanProperties, scalar_subquery::ScalarSubqueryExec},
};

use crate::{canonical, inputs::MemoryInputs, pin, run::Ready};

/// Makes what stands in for the operator of a number.
pub(crate) type Source<'a> = dyn FnMut(u32, &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> + 'a;

/// One operator of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutlineOperator {
    /// Its name.
    pub(crate) name: String,
    /// Its partitions.
    pub(crate) partitions: usize,
    /// Whose rows determine its own: its children, and the subqueries whose values its expressions may use. All have
    /// greater numbers.
    pub(crate) needs: Vec<u32>,
}

/// The operators of a task. To know them a stranger's plan is decoded: that is for runners to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outline {
    /// Operator `n` is at `n - 1`.
    pub(crate) operators: Vec<OutlineOperator>,
    /// Why no trace can be made of the task, where its plan shows it: batches of a type without a canonical form.
    pub(crate) untraceable: Option<String>,
}

impl Outline {
    /// The operators of the task that `envelope` describes.
    ///
    /// # Errors
    /// [`Failure::Refused`] as when it is run.
    pub(crate) fn of(envelope: &TaskEnvelope) -> Result<Self, Failure> {
        let task = Ready::new(envelope, Arc::new(MemoryInputs::default()))?;
        Ok(Self { operators: operators(&task.plan), untraceable: untraceable(&task.plan, 1) })
    }

    /// Operator `number`.
    #[must_use]
    pub(crate) fn operator(&self, number: u32) -> Option<&OutlineOperator> {
        self.operators.get((number as usize).checked_sub(1)?)
    }

    /// What people call operator `number`.
    #[must_use]
    pub(crate) fn name(&self, number: u32) -> String {
        self.operator(number).map_or_else(|| "writer".to_owned(), |operator| operator.name.clone())
    }

    /// Whose rows determine those of operator `number`; the writer's are those of the first.
    #[must_use]
    pub(crate) fn needs(&self, number: u32) -> Vec<u32> {
        self.operator(number).map_or_else(|| vec![1], |operator| operator.needs.clone())
    }
}

/// The operators of `plan`, by number.
pub(crate) fn operators(plan: &Arc<dyn ExecutionPlan>) -> Vec<OutlineOperator> {
    let mut operators = Vec::new();
    list(plan, &[], &mut operators);
    operators
}

/// The first operator in `plan`, which has `number`, whose batches have no canonical form, and why.
fn untraceable(plan: &Arc<dyn ExecutionPlan>, number: u32) -> Option<String> {
    if let Err(error) = canonical::canonical_schema(&plan.schema()) {
        return Some(format!("operator {} (#{number}): {}", plan.name(), error.message));
    }
    let mut next = number + 1;
    plan.children().into_iter().find_map(|child| {
        let found = untraceable(child, next);
        next += size(child);
        found
    })
}

fn list(plan: &Arc<dyn ExecutionPlan>, subqueries: &[u32], operators: &mut Vec<OutlineOperator>) {
    let at = operators.len();
    let partitions = plan.output_partitioning().partition_count();
    operators.push(OutlineOperator { name: plan.name().to_owned(), partitions, needs: Vec::new() });
    let mut children = Vec::new();
    let mut next = at as u32 + 2;
    for child in plan.children() {
        children.push(next);
        next += size(child);
    }
    for (index, child) in plan.children().into_iter().enumerate() {
        let mut known = subqueries.to_vec();
        if index == 0 && plan.is::<ScalarSubqueryExec>() {
            known.extend(&children[1..]);
        }
        list(child, &known, operators);
    }
    children.extend(subqueries);
    operators[at].needs = children;
}

fn size(plan: &Arc<dyn ExecutionPlan>) -> u32 {
    1 + plan.children().into_iter().map(size).sum::<u32>()
}

/// `plan` with each operator replaced by what `wrap` makes of its number and of it, children first.
pub(crate) fn rewrite_all(
    plan: Arc<dyn ExecutionPlan>,
    wrap: &mut dyn FnMut(u32, Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>, Failure> {
    rewrite(plan, 1, wrap).map_err(|e| unfit(&e))
}

fn rewrite(
    plan: Arc<dyn ExecutionPlan>,
    number: u32,
    wrap: &mut dyn FnMut(u32, Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let mut next = number + 1;
    let mut children = Vec::new();
    for child in plan.children() {
        children.push(rewrite(child.clone(), next, wrap)?);
        next += size(child);
    }
    Ok(wrap(number, pin::over(&plan, children)?))
}

/// Operator `target` of `plan` alone: `source` stands in for every operator whose rows it needs.
///
/// # Errors
/// [`Failure::Refused`] where there is none of that number, or it does not take the sources.
pub(crate) fn isolate(
    plan: &Arc<dyn ExecutionPlan>,
    target: u32,
    source: &mut Source<'_>,
) -> Result<Arc<dyn ExecutionPlan>, Failure> {
    let isolated = descend(plan, 1, target, source).map_err(|e| unfit(&e))?;
    isolated.ok_or_else(|| Failure::Refused(format!("the plan has no operator {target}")))
}

fn descend(
    plan: &Arc<dyn ExecutionPlan>,
    number: u32,
    target: u32,
    source: &mut Source<'_>,
) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
    let mut next = number + 1;
    let mut numbered = Vec::new();
    for child in plan.children() {
        numbered.push((next, child));
        next += size(child);
    }
    if number == target {
        let sources: Vec<_> = numbered.iter().map(|(number, child)| source(*number, child)).collect();
        return pin::over(plan, sources).map(Some);
    }
    let Some(at) = numbered.iter().rposition(|(number, _)| *number <= target) else { return Ok(None) };
    let (child_number, child) = numbered[at];
    let isolated = descend(child, child_number, target, source)?;
    match isolated {
        // Expressions below read the subqueries' values from this operator: it stays, over agreed values.
        Some(isolated) if at == 0 && plan.is::<ScalarSubqueryExec>() => {
            let subqueries = numbered[1..].iter().map(|(number, subquery)| source(*number, subquery));
            let children = std::iter::once(isolated).chain(subqueries).collect();
            pin::over(plan, children).map(Some)
        }
        isolated => Ok(isolated),
    }
}

fn unfit(error: &DataFusionError) -> Failure {
    Failure::Refused(format!("an operator does not take another input: {}", error.strip_backtrace()))
}
