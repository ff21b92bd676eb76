//! Whether a plan is the same after it was encoded and decoded, as it is for every task: what DataFusion's encoding leaves out,
//! replicas would agree on leaving out.

use std::sync::Arc;

use conun_executor::{decode_plan, encode_plan, session::bare_context};
use datafusion::physical_plan::ExecutionPlan;

/// What is worked out anew where a plan is decoded: what is known of the order of rows, schemas of what functions take, and filters
/// that are numbered through a process.
const WORKED_OUT: &[&str] =
    &["eq_properties: EquivalenceProperties {", "schema: Schema {", "DynamicFilterPhysicalExpr {"];
/// Hints for optimizers, which are through with a plan that is encoded.
const HINTS: &[&str] = &["can_repartition", "is_input_pre_ordered", "is_requirement_satisfied"];

/// Whether a node decodes another plan than `plan`, or none.
pub(crate) fn is_another(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let decoded = encode_plan(plan).and_then(|bytes| decode_plan(&bytes, &bare_context()));
    let Ok(decoded) = decoded else { return true };
    format!("{plan:?}") != format!("{decoded:?}") && told(plan) != told(&decoded)
}

/// All that a plan is made of, but for what may differ.
fn told(plan: &Arc<dyn ExecutionPlan>) -> String {
    let text = HINTS
        .iter()
        .fold(format!("{plan:?}"), |text, hint| text.replace(&format!("{hint}: true"), &format!("{hint}: false")));
    WORKED_OUT.iter().fold(text, |text, head| without(&text, head))
}

/// `text` without what stands in braces behind each `head`.
fn without(text: &str, head: &str) -> String {
    let mut parts = text.split(head);
    let mut left = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        left.push_str(&part[closed(part)..]);
    }
    left
}

/// Where the brace ends in which `text` begins; inside, a head may come again.
fn closed(text: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (1, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => depth -= 1,
            _ => (),
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}
