//! Errors on their way over gRPC: a `tonic::Status` for every driver, with Conun's error as JSON in its metadata, so
//! that Conun's own client gets kind and hint back.

use std::error::Error as StdError;

use arrow_flight::error::FlightError;
use conun_types::{Error, ErrorKind};
use datafusion::error::DataFusionError;
use tonic::{Code, Status, metadata::MetadataValue};

/// Metadata key of the JSON.
pub const ERROR_METADATA: &str = "conun-error-bin";

/// Longest message that is sent, in bytes: metadata travels in HTTP/2 headers, which are small.
const MAX_MESSAGE: usize = 2048;

/// `error` for the wire.
#[must_use]
pub fn to_status(error: &Error) -> Status {
    let mut error = error.clone();
    truncate(&mut error.message);
    let message = match &error.hint {
        Some(hint) => format!("{} (hint: {hint})", error.message),
        None => error.message.clone(),
    };
    let mut status = Status::new(code(error.kind), message);
    if let Ok(json) = serde_json::to_vec(&error) {
        status.metadata_mut().insert_bin(ERROR_METADATA, MetadataValue::from_bytes(&json));
    }
    status
}

fn truncate(message: &mut String) {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        message.push('…');
    }
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Usage | ErrorKind::Data => Code::InvalidArgument,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Budget => Code::ResourceExhausted,
        ErrorKind::Verification => Code::Aborted,
        _ => Code::Internal,
    }
}

/// What the wire said.
#[must_use]
pub fn from_status(status: &Status) -> Error {
    let json = status.metadata().get_bin(ERROR_METADATA).and_then(|v| v.to_bytes().ok());
    if let Some(error) = json.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        return error;
    }
    match status.code() {
        Code::InvalidArgument => Error::data(status.message()),
        Code::Unauthenticated | Code::PermissionDenied => {
            Error::usage(format!("the coordinator refused: {}", status.message()))
                .with_hint("set CONUN_TOKEN, or token in conun.toml")
        }
        Code::Unimplemented => Error::unavailable("the coordinator does not know this operation")
            .with_hint("is it a conun coordinator, of the same version?"),
        Code::Internal if !is_transport(status) => Error::internal(status.message()),
        _ => Error::unavailable(format!("the coordinator went away: {}", deepest(status)))
            .with_hint("is it still running? its log says more"),
    }
}

/// Broken connections come as `Internal` or `Unknown` with a cause; answers of the peer have none.
fn is_transport(status: &Status) -> bool {
    status.source().is_some() || status.message().starts_with("h2 protocol error")
}

/// The innermost cause: transports wrap "Connection refused" three times over.
#[must_use]
pub fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    match inner.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => inner.to_string(),
    }
}

/// What a Flight client met.
#[must_use]
pub fn from_flight(error: FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => from_status(&status),
        FlightError::ExternalError(inner) => {
            inner.downcast::<Error>().map_or_else(|e| Error::internal(e.to_string()), |e| *e)
        }
        other => Error::unavailable(format!("the coordinator sent a malformed answer: {other}")),
    }
}

/// `error` for a stream that Flight encodes.
#[must_use]
pub fn into_flight(error: &Error) -> FlightError {
    FlightError::Tonic(Box::new(to_status(error)))
}

/// A failure of a result stream: Conun's own error where one is inside, else by DataFusion's kind.
#[must_use]
pub fn from_datafusion(error: &DataFusionError) -> Error {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref::<Error>() {
            return found.clone();
        }
        cause = inner.source();
    }
    let root = error.find_root();
    let text = root.strip_backtrace();
    let line = text.lines().next().unwrap_or_default();
    match root {
        DataFusionError::Internal(_) | DataFusionError::External(_) | DataFusionError::ExecutionJoin(_) => {
            Error::internal(line)
        }
        _ => Error::data(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_wire() {
        for error in [
            Error::data("no table 'x'").with_hint("conun tables"),
            Error::usage("größer"),
            Error::unavailable("nobody"),
            Error::verification("no quorum"),
            Error::new(ErrorKind::Budget, "too dear"),
            Error::internal("defect"),
        ] {
            let mut headers = tonic::codegen::http::HeaderMap::new();
            to_status(&error).add_header(&mut headers).unwrap();
            let received = Status::from_header_map(&headers).unwrap();
            assert_eq!(from_status(&received), error);
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let error = from_status(&to_status(&Error::data("ü".repeat(5000))));
        assert!(error.message.len() < 2100 && error.message.ends_with('…'));
    }

    #[test]
    fn foreign_errors_get_the_right_kind() {
        let kind = |status: Status| from_status(&status).kind;
        assert_eq!(kind(Status::invalid_argument("x")), ErrorKind::Data);
        assert_eq!(kind(Status::unauthenticated("x")), ErrorKind::Usage);
        assert_eq!(kind(Status::unavailable("x")), ErrorKind::Unavailable);
        assert_eq!(kind(Status::unimplemented("x")), ErrorKind::Unavailable);
        assert_eq!(kind(Status::internal("x")), ErrorKind::Internal);
    }

    #[test]
    fn conun_errors_are_found_inside_of_datafusions() {
        let inner = Error::verification("no quorum").with_hint("more nodes");
        let wrapped = DataFusionError::External(Box::new(inner.clone())).context("stage 2");
        assert_eq!(from_datafusion(&wrapped), inner);
        assert_eq!(from_datafusion(&DataFusionError::Plan("no column".into())).kind, ErrorKind::Data);
    }
}
