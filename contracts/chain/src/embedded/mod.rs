//! An EVM chain in a folder, for development: no server, no other process. Every process that opens the folder executes
//! the blocks in its log, and follows what others append; each transaction has a block of its own at once. It speaks
//! JSON-RPC as a [`tower::Service`], so that what drives it cannot tell it from a node of Ethereum.

mod chain;
mod log;
mod machine;
mod rpc;
mod views;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use alloy::{
    rpc::json_rpc::{ErrorPayload, RequestPacket, Response, ResponsePacket, ResponsePayload, SerializedRequest},
    transports::{TransportError, TransportErrorKind, TransportFut},
};
use conun_types::{ambient::Clock, error::Result};
use serde_json::value::{RawValue, to_raw_value};
use tower::Service;

pub(crate) use self::machine::CHAIN_ID;
use self::{chain::Chain, rpc::Fault};

/// A handle to an embedded chain; clones share it.
#[derive(Clone)]
pub(crate) struct Embedded(Arc<Mutex<Chain>>);

impl Embedded {
    /// Opens the chain in `folder`; where there is none, one is made, with the contracts on it.
    ///
    /// # Errors
    /// Data where the folder's log is damaged, or cannot be read.
    pub(crate) fn open(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Chain::open(folder, clock)?))))
    }

    fn answer(&self, request: &SerializedRequest) -> Response {
        let params = request.params().map_or("[]", RawValue::get);
        // A panic while the lock was held left a chain that the log can only be ahead of.
        let mut chain = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = rpc::answer(&mut chain, request.method(), params).and_then(|value| {
            to_raw_value(&value).map_err(|e| Fault { code: -32603, message: e.to_string(), data: None })
        });
        let payload = match answer {
            Ok(value) => ResponsePayload::Success(value),
            Err(fault) => ResponsePayload::Failure(payload_of(fault)),
        };
        Response { id: request.id().clone(), payload }
    }

    fn answer_all(&self, packet: &RequestPacket) -> ResponsePacket {
        match packet {
            RequestPacket::Single(request) => ResponsePacket::Single(self.answer(request)),
            RequestPacket::Batch(requests) => ResponsePacket::Batch(requests.iter().map(|r| self.answer(r)).collect()),
        }
    }
}

fn payload_of(fault: Fault) -> ErrorPayload {
    let data = fault.data.and_then(|data| to_raw_value(&data).ok());
    ErrorPayload { code: fault.code, message: fault.message.into(), data }
}

impl Service<RequestPacket> for Embedded {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> TransportFut<'static> {
        let this = self.clone();
        // Another process may hold the file's lock: not on a thread that others wait for.
        let work = tokio::task::spawn_blocking(move || this.answer_all(&packet));
        Box::pin(async move { work.await.map_err(TransportErrorKind::custom) })
    }
}
