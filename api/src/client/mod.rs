//! The client of a coordinator: one typed method an operation. What the wire says becomes Conun's errors again.

mod call;
mod transfer;

use std::time::Duration;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use arrow_flight::{FlightClient, Ticket, flight_service_client::FlightServiceClient};
use bytes::Bytes;
use conun_engine::{JobOptions, JobRecord, PayStatus, ReceiptRecord, Settled};
use conun_storage::tables::TableInfo;
use conun_types::{Cid, Error, JobId, Result, Signature};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use tonic::transport::{Channel, Endpoint};

use crate::{
    message::{Block, MAX_GRPC_MESSAGE, Name, SqlReply, SqlRequest, Status, action},
    status::{deepest, from_flight},
};

/// How long a coordinator may take to answer the first call.
const GREETING: Duration = Duration::from_secs(10);

/// Rows of an answer as they arrive.
pub type BatchStream = BoxStream<'static, Result<RecordBatch>>;

/// A connection to a coordinator. Cheap to clone; calls run side by side.
#[derive(Clone)]
pub struct Client {
    inner: FlightServiceClient<Channel>,
    token: Option<String>,
}

impl Client {
    /// Connects to the coordinator at `url` (`http://127.0.0.1:7400`, `grpc://…` or just `host:port`), showing `token`
    /// if there is one.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Usage`] where `url` is none; [`conun_types::ErrorKind::Unavailable`] where nobody or
    /// something else answers.
    pub async fn connect(url: &str, token: Option<&str>) -> Result<Self> {
        let endpoint = endpoint(url)?;
        let channel = endpoint.connect().await.map_err(|e| nobody(url, &deepest(&e)))?;
        let inner = FlightServiceClient::new(channel)
            .max_decoding_message_size(MAX_GRPC_MESSAGE)
            .max_encoding_message_size(MAX_GRPC_MESSAGE);
        let client = Self { inner, token: token.map(str::to_owned) };
        match tokio::time::timeout(GREETING, client.status()).await {
            Ok(Ok(_)) => Ok(client),
            Ok(Err(error)) if error.kind == conun_types::ErrorKind::Usage => Err(error),
            Ok(Err(error)) => Err(nobody(url, &error.message)),
            Err(_) => Err(nobody(url, "no answer")),
        }
    }

    fn flight(&self) -> Result<FlightClient> {
        let mut flight = FlightClient::new_from_inner(self.inner.clone());
        if let Some(token) = &self.token {
            let malformed = |_| Error::usage("the token has characters that cannot be sent");
            flight.add_header("authorization", &format!("Bearer {token}")).map_err(malformed)?;
        }
        Ok(flight)
    }

    /// Who serves, and which volunteers it sees.
    ///
    /// # Errors
    /// As every call: the coordinator's own, or [`conun_types::ErrorKind::Unavailable`] where it went away.
    pub async fn status(&self) -> Result<Status> {
        self.one(action::STATUS, &()).await
    }

    /// Every table.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn tables(&self) -> Result<Vec<TableInfo>> {
        self.many(action::TABLES, &()).await
    }

    /// One table, with the nodes that hold it.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`] where there is none of that name.
    pub async fn table(&self, name: &str) -> Result<TableInfo> {
        self.one(action::SHOW, &named(name)).await
    }

    /// Removes a table.
    ///
    /// # Errors
    /// As [`Client::table`].
    pub async fn remove(&self, name: &str) -> Result<()> {
        self.none(action::RM, &named(name)).await
    }

    /// Keeps a block until it is unpinned.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn pin(&self, cid: Cid) -> Result<()> {
        self.none(action::PIN, &Block { cid }).await
    }

    /// Lets a pinned block go.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn unpin(&self, cid: Cid) -> Result<()> {
        self.none(action::UNPIN, &Block { cid }).await
    }

    /// Every pinned block.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn pins(&self) -> Result<Vec<Cid>> {
        let blocks: Vec<Block> = self.many(action::PINS, &()).await?;
        Ok(blocks.into_iter().map(|block| block.cid).collect())
    }

    /// Every job, the newest first.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn jobs(&self) -> Result<Vec<JobRecord>> {
        self.many(action::JOBS, &()).await
    }

    /// One job, by its id or a unique prefix.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`] where there is none, or more than one.
    pub async fn job(&self, id: &str) -> Result<JobRecord> {
        self.one(action::JOB, &named(id)).await
    }

    /// Cancels a job.
    ///
    /// # Errors
    /// As [`Client::job`].
    pub async fn cancel(&self, id: &str) -> Result<JobRecord> {
        self.one(action::CANCEL, &named(id)).await
    }

    /// The receipts of a job.
    ///
    /// # Errors
    /// As [`Client::job`].
    pub async fn receipts(&self, id: &str) -> Result<Vec<ReceiptRecord>> {
        self.many(action::RECEIPTS, &named(id)).await
    }

    /// The coordinator's signature over everything that was signed for a job.
    ///
    /// # Errors
    /// As [`Client::job`].
    pub async fn seal(&self, id: &str) -> Result<Signature> {
        self.one(action::SEAL, &named(id)).await
    }

    /// What is needed to run a job's disputed tasks again: envelopes, inputs, and blocks that somebody claimed.
    ///
    /// # Errors
    /// As [`Client::job`].
    pub async fn evidence(&self, id: &str) -> Result<Vec<Bytes>> {
        self.call(action::EVIDENCE, &named(id)).await
    }

    /// The account from which the coordinator pays.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Usage`] where it does not pay.
    pub async fn account(&self) -> Result<PayStatus> {
        self.one(action::ACCOUNT, &()).await
    }

    /// Settles on the chain what is owed; one answer a batch.
    ///
    /// # Errors
    /// As [`Client::account`], and the chain's. Trying again never pays twice.
    pub async fn settle(&self) -> Result<Vec<Settled>> {
        self.many(action::SETTLE, &()).await
    }

    /// Plans a statement as a job; it runs once [`Client::results`] are asked for.
    ///
    /// # Errors
    /// The planner's: [`conun_types::ErrorKind::Data`].
    pub async fn submit(&self, sql: &str, options: &JobOptions) -> Result<SqlReply> {
        self.one(action::SQL, &SqlRequest { sql: sql.to_owned(), options: options.clone() }).await
    }

    /// Columns and rows of a job, which runs if it has not yet.
    ///
    /// # Errors
    /// Those of the job; later ones come in the stream.
    pub async fn results(&self, job: JobId) -> Result<(SchemaRef, BatchStream)> {
        let ticket = Ticket::new(crate::server::ticket(job));
        let mut rows = self.flight()?.do_get(ticket).await.map_err(from_flight)?;
        let first = rows.next().await.transpose().map_err(from_flight)?;
        let schema = rows.schema().cloned().ok_or_else(|| Error::unavailable("the answer has no columns"))?;
        Ok((schema, stream::iter(first.map(Ok)).chain(rows.map_err(from_flight)).boxed()))
    }
}

fn named(name: &str) -> Name {
    Name { name: name.to_owned() }
}

fn nobody(url: &str, reason: &str) -> Error {
    Error::unavailable(format!("no coordinator answers at {url}: {reason}"))
        .with_hint("check --connect, or start one with: conun devnet up --dir DIR --detach")
}

/// The address that tonic wants, from what people type.
fn endpoint(url: &str) -> Result<Endpoint> {
    let wrong = |why: &str| {
        Error::usage(format!("'{url}' is not the URL of a coordinator: {why}"))
            .with_hint("write it like http://127.0.0.1:7400")
    };
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    if !matches!(scheme, "http" | "grpc" | "grpc+tcp") {
        return Err(wrong("only http and grpc are spoken"));
    }
    let authority = rest.trim_end_matches('/');
    if authority.is_empty() || authority.contains('/') {
        return Err(wrong("host and port expected"));
    }
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|e| wrong(&deepest(&e)))?;
    Ok(endpoint.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true))
}

#[cfg(test)]
mod tests {
    use conun_types::ErrorKind;

    use super::*;

    #[test]
    fn urls_are_forgiving_but_not_silly() {
        for good in
            ["http://127.0.0.1:7400", "http://localhost:7400/", "grpc://h:1", "grpc+tcp://h:1", "127.0.0.1:7400"]
        {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in ["https://h:1", "ftp://h", "http://", "", "http://h:1/path", "a b"] {
            assert_eq!(endpoint(bad).err().map(|e| e.kind), Some(ErrorKind::Usage), "{bad}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_unavailable_with_a_hint() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let error = Client::connect(&addr.to_string(), None).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.hint.is_some() && error.message.contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn something_else_there_is_unavailable() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let impostor = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
                let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, answer).await;
            }
        });
        let error = Client::connect(&addr.to_string(), None).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        impostor.abort();
    }
}
