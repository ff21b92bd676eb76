//! What DataFusion's errors mean for a task: the query's fault, memory, a missing input, or this machine.
//!
//! Replicas vote on [`Failure::Query`] too, so its text must be the same on every host: no paths, no backtraces.

use std::error::Error as StdError;

use conun_types::{Error, ErrorKind, Failure};
use datafusion::{arrow::error::ArrowError, error::DataFusionError};

use crate::inputs::Fault;

/// Longest text of a failure, in bytes.
const MAX_TEXT: usize = 1000;

/// The failure that an operator's error stands for.
pub(crate) fn of(error: &DataFusionError) -> Failure {
    if let Some(fault) = find_fault(error) {
        return fault;
    }
    let root = error.find_root();
    match root {
        DataFusionError::ResourcesExhausted(_) => Failure::MemoryExceeded,
        DataFusionError::ArrowError(arrow, _) if is_memory(arrow) => Failure::MemoryExceeded,
        DataFusionError::Internal(_) | DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) => {
            Failure::Node(text(root))
        }
        _ => Failure::Query(text(root)),
    }
}

/// The failure that an error of the canonical encoding stands for.
pub(crate) fn of_encoding(error: Error) -> Failure {
    match error.kind {
        ErrorKind::Data => Failure::Query(error.message),
        _ => Failure::Node(error.message),
    }
}

fn find_fault(error: &DataFusionError) -> Option<Failure> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error.find_root());
    while let Some(error) = next {
        if let Some(Fault(failure)) = error.downcast_ref::<Fault>() {
            return Some(failure.clone());
        }
        next = match error.downcast_ref::<DataFusionError>() {
            // Its `source` is the inner error's source: the inner error itself would be skipped.
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            _ => error.source(),
        };
    }
    None
}

fn is_memory(error: &ArrowError) -> bool {
    matches!(error, ArrowError::MemoryError(_))
}

/// The first line of the innermost message, without a backtrace.
fn text(error: &DataFusionError) -> String {
    let message = error.message();
    let line = message.lines().next().unwrap_or_default();
    let end = (0..=line.len().min(MAX_TEXT)).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
    line[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use conun_types::Cid;

    use super::*;
    use crate::inputs::fault;

    #[test]
    fn kinds() {
        let missing = Failure::InputMissing(Cid::raw(b"x"));
        let arrow = |e| DataFusionError::ArrowError(Box::new(e), None);
        let cases = [
            (fault(missing.clone()), missing.clone()),
            (DataFusionError::Shared(Arc::new(fault(missing.clone()))), missing.clone()),
            (fault(missing.clone()).context("reading"), missing.clone()),
            (arrow(ArrowError::ExternalError(Box::new(fault(missing.clone())))), missing.clone()),
            (DataFusionError::ResourcesExhausted("x".into()), Failure::MemoryExceeded),
            (arrow(ArrowError::DivideByZero), Failure::Query("Divide by zero error".into())),
            (DataFusionError::Execution("bad cast\n\nbacktrace: 0x7f".into()), Failure::Query("bad cast".into())),
            (DataFusionError::Internal("bug".into()), Failure::Node("bug.".into())),
        ];
        for (error, expected) in cases {
            assert_eq!(of(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn store_errors_keep_their_fault() {
        let missing = Failure::InputMissing(Cid::raw(b"x"));
        let inner = object_store::Error::Generic { store: "conun", source: Box::new(Fault(missing.clone())) };
        assert_eq!(of(&DataFusionError::ObjectStore(Box::new(inner))), missing);
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let Failure::Query(text) = of(&DataFusionError::Execution("é".repeat(MAX_TEXT))) else { panic!() };
        assert!(text.len() <= MAX_TEXT && text.chars().all(|c| c == 'é'));
    }
}
