//! Actions with JSON bodies, from the caller's side.

use arrow_flight::Action;
use bytes::Bytes;
use conun_types::{Error, Result};
use futures::TryStreamExt;
use serde::{Serialize, de::DeserializeOwned};

use super::Client;
use crate::status::from_flight;

impl Client {
    /// An action that answers with bytes.
    pub(super) async fn call(&self, action: &str, body: &(impl Serialize + Sync)) -> Result<Vec<Bytes>> {
        let body =
            serde_json::to_vec(body).map_err(|e| Error::internal(format!("a request cannot be encoded: {e}")))?;
        let answers = self.flight()?.do_action(Action::new(action, body)).await.map_err(from_flight)?;
        answers.try_collect().await.map_err(from_flight)
    }

    /// An action that answers with a list.
    pub(super) async fn many<T: DeserializeOwned>(
        &self,
        action: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<Vec<T>> {
        self.call(action, body).await?.iter().map(|bytes| parse(bytes)).collect()
    }

    /// An action that answers with one value.
    pub(super) async fn one<T: DeserializeOwned>(&self, action: &str, body: &(impl Serialize + Sync)) -> Result<T> {
        let answers = self.call(action, body).await?;
        parse(answers.first().ok_or_else(|| Error::unavailable("the coordinator gave no answer"))?)
    }

    /// An action without an answer.
    pub(super) async fn none(&self, action: &str, body: &(impl Serialize + Sync)) -> Result<()> {
        self.call(action, body).await.map(drop)
    }
}

/// Reads an answer.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| {
        Error::unavailable(format!("the coordinator's answer makes no sense: {e}"))
            .with_hint("is it of the same version?")
    })
}
