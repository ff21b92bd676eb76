//! The one encoding of values that are hashed, signed or sent: DAG-CBOR (deterministic: sorted map keys, shortest
//! integers, no indefinite lengths).

use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// Encodes `value` as DAG-CBOR.
///
/// # Errors
/// [`crate::ErrorKind::Internal`] where a value has no DAG-CBOR form (a map with keys that are not strings).
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_ipld_dagcbor::to_vec(value).map_err(|e| Error::internal(format!("cannot encode a message: {e}")))
}

/// Decodes DAG-CBOR that may come from a peer. Callers bound `bytes` before they read them from a socket.
///
/// # Errors
/// [`crate::ErrorKind::Data`] where `bytes` are not the encoding of a `T`, or are followed by more.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_ipld_dagcbor::from_slice(bytes).map_err(|e| Error::data(format!("malformed message: {e}")))
}
