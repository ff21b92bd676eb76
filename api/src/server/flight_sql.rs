//! Arrow Flight SQL over the engine: statements, prepared statements without parameters, and the catalog.
//!
//! Nothing is kept for a client: a prepared statement's handle is its text, a ticket is a job's id.

use std::{pin::Pin, sync::Arc};

use arrow::array::RecordBatch;
use arrow_flight::{
    Action, ActionType, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse,
    IpcMessage, PutResult, SchemaAsIpc, Ticket,
    encode::FlightDataEncoderBuilder,
    error::FlightError,
    flight_service_server::FlightService,
    sql::{
        ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
        ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandGetCatalogs,
        CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandPreparedStatementQuery,
        CommandStatementQuery, CommandStatementUpdate, ProstMessageExt, SqlInfo, TicketStatementQuery,
        metadata::SqlInfoData,
        server::{FlightSqlService, PeekableFlightDataStream},
    },
};
use conun_engine::{Engine, JobOptions, Submitted};
use conun_types::{Error, JobId, Result};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{actions, download, metadata, upload};
use crate::{
    message::{BUDGET_HEADER, MAX_ERROR_HEADER, NO_CACHE_HEADER, SHARD_TICKET, VERIFY_HEADER, action},
    status::{from_datafusion, into_flight, to_status},
};

/// A stream of answers as tonic wants it.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

/// The service behind the port.
#[derive(Clone)]
pub(super) struct Service {
    engine: Arc<Engine>,
    info: Arc<SqlInfoData>,
}

impl Service {
    pub(super) fn new(engine: Arc<Engine>) -> Result<Self> {
        Ok(Self { engine, info: Arc::new(metadata::sql_info()?) })
    }

    /// Plans a statement as a job, with the options that the call's metadata choose.
    async fn submit(&self, sql: &str, headers: &MetadataMap) -> Result<Submitted> {
        self.engine.submit(sql, &options(headers)?).await
    }

    async fn info_of_statement(
        &self,
        sql: &str,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let job = self.submit(sql, request.metadata()).await.map_err(|e| to_status(&e))?;
        flight_info(request.into_inner(), &job.schema, ticket(job.id))
    }

    async fn rows(&self, job: JobId) -> Result<Response<Answers<FlightData>>, Status> {
        let rows = self.engine.results(job).map_err(|e| to_status(&e))?;
        let schema = rows.schema();
        let rows = rows.map_err(|e| into_flight(&from_datafusion(&e)));
        let encoded = FlightDataEncoderBuilder::new().with_schema(schema).build(rows);
        Ok(Response::new(encoded.map_err(Status::from).boxed()))
    }
}

/// The ticket that gives the rows of `job`.
pub(crate) fn ticket(job: JobId) -> Vec<u8> {
    TicketStatementQuery { statement_handle: job.to_string().into() }.as_any().encode_to_vec()
}

fn job_of(handle: &[u8]) -> Result<JobId, Status> {
    let text = std::str::from_utf8(handle).map_err(|_| Status::invalid_argument("not a ticket of this coordinator"))?;
    text.parse().map_err(|e| to_status(&e))
}

/// How the call wants its statement verified.
fn options(headers: &MetadataMap) -> Result<JobOptions> {
    let text = |name: &'static str| headers.get(name).and_then(|v| v.to_str().ok());
    let max_error = text(MAX_ERROR_HEADER)
        .map(|t| t.parse().map_err(|_| Error::usage(format!("{MAX_ERROR_HEADER}: '{t}' is not a number"))));
    Ok(JobOptions {
        verify: text(VERIFY_HEADER).map(str::parse).transpose()?,
        max_error: max_error.transpose()?,
        budget: text(BUDGET_HEADER).map(str::parse).transpose()?,
        no_cache: no_cache(text(NO_CACHE_HEADER))?,
    })
}

fn no_cache(text: Option<&str>) -> Result<bool> {
    text.map_or(Ok(false), |t| {
        t.parse().map_err(|_| Error::usage(format!("{NO_CACHE_HEADER}: '{t}' is not true or false")))
    })
}

fn flight_info(
    descriptor: FlightDescriptor,
    schema: &arrow::datatypes::Schema,
    ticket: Vec<u8>,
) -> Result<Response<FlightInfo>, Status> {
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(|e| Status::internal(e.to_string()))?
        .with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(ticket)))
        .with_descriptor(descriptor);
    Ok(Response::new(info))
}

/// The info of a catalog command: its ticket is the command itself.
fn command_info(
    command: &impl ProstMessageExt,
    request: Request<FlightDescriptor>,
    schema: &arrow::datatypes::Schema,
) -> Result<Response<FlightInfo>, Status> {
    flight_info(request.into_inner(), schema, command.as_any().encode_to_vec())
}

/// The answer to a catalog command.
fn one_batch(batch: Result<RecordBatch, FlightError>) -> Result<Response<Answers<FlightData>>, Status> {
    let batch = batch?;
    let rows = FlightDataEncoderBuilder::new().with_schema(batch.schema()).build(stream::iter([Ok(batch)]));
    Ok(Response::new(rows.map_err(Status::from).boxed()))
}

fn schema_bytes(schema: &arrow::datatypes::Schema) -> Result<prost::bytes::Bytes, Status> {
    let options = arrow::ipc::writer::IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &options)
        .try_into()
        .map_err(|e: arrow::error::ArrowError| Status::internal(e.to_string()))?;
    Ok(bytes)
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Service;

    /// Drivers that were given a name and a password ask for a token; the interceptor has already let them in.
    async fn do_handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Answers<HandshakeResponse>>, Status> {
        Ok(Response::new(stream::iter([Ok(HandshakeResponse::default())]).boxed()))
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.info_of_statement(&query.query, request).await
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        _request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        self.rows(job_of(&ticket.statement_handle)?).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let schema = self.engine.answer_schema(&query.query).await.map_err(|e| to_status(&e))?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: query.query.into_bytes().into(),
            dataset_schema: schema_bytes(&schema)?,
            parameter_schema: schema_bytes(&arrow::datatypes::Schema::empty())?,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let sql = std::str::from_utf8(&query.prepared_statement_handle)
            .map_err(|_| Status::invalid_argument("not a prepared statement of this coordinator"))?;
        self.info_of_statement(sql, request).await
    }

    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        _request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let malformed = || Status::invalid_argument("malformed flight info");
        let info = FlightInfo::decode(query.info).map_err(|_| malformed())?;
        let ticket = info.endpoint.first().and_then(|e| e.ticket.as_ref()).ok_or_else(malformed)?;
        let any = Any::decode(&*ticket.ticket).map_err(|_| malformed())?;
        let ticket: TicketStatementQuery = any.unpack().ok().flatten().ok_or_else(malformed)?;
        self.engine.cancel(&job_of(&ticket.statement_handle)?.to_string()).map_err(|e| to_status(&e))?;
        Ok(ActionCancelQueryResult { result: 1 })
    }

    async fn do_put_statement_update(
        &self,
        _ticket: CommandStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(to_status(
            &Error::data("only queries run on the network").with_hint("store data with: conun put TABLE PATH"),
        ))
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query, request, &query.into_builder().schema())
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        _request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        one_batch(metadata::catalogs(query))
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query.clone(), request, &query.into_builder().schema())
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        _request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        one_batch(metadata::schemas(query))
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query.clone(), request, &query.into_builder().schema())
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        _request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        one_batch(metadata::tables(&self.engine, query))
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query, request, &query.into_builder().schema())
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        _request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        one_batch(metadata::table_types(query))
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query, request, &self.info.schema())
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        _request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        one_batch(query.into_builder(&self.info).build())
    }

    async fn do_get_fallback(
        &self,
        _request: Request<Ticket>,
        message: Any,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        if message.type_url != SHARD_TICKET {
            return Err(Status::invalid_argument("not a ticket of this coordinator"));
        }
        let bytes = download::shard(&self.engine, &message.value).await.map_err(|e| to_status(&e))?;
        Ok(Response::new(bytes))
    }

    async fn do_put_fallback(
        &self,
        request: Request<PeekableFlightDataStream>,
        _message: Any,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        let answers = upload::put(Arc::clone(&self.engine), request.into_inner()).await.map_err(|e| to_status(&e))?;
        Ok(Response::new(answers as Answers<PutResult>))
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        let bodies = actions::run(&self.engine, request.into_inner()).await.map_err(|e| to_status(&e))?;
        let results = bodies.into_iter().map(|body| Ok(arrow_flight::Result { body: body.into() }));
        Ok(Response::new(stream::iter(results).boxed()))
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        let named = |(name, about): &(&str, &str)| {
            Ok(ActionType { r#type: (*name).to_owned(), description: (*about).to_owned() })
        };
        Some(action::ALL.iter().map(named).collect())
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}

#[cfg(test)]
mod tests {
    use conun_engine::Verify;

    use super::*;

    #[test]
    fn headers_say_how_a_statement_is_run() -> Result<()> {
        let mut headers = MetadataMap::new();
        assert_eq!(options(&headers)?, JobOptions::default());
        for (name, value) in [(VERIFY_HEADER, "audit"), (MAX_ERROR_HEADER, "1e-4"), (NO_CACHE_HEADER, "true")] {
            headers.insert(name, tonic::metadata::MetadataValue::from_static(value));
        }
        let asked =
            JobOptions { verify: Some(Verify::Audit), max_error: Some(1e-4), no_cache: true, ..JobOptions::default() };
        assert_eq!(options(&headers)?, asked);
        headers.insert(NO_CACHE_HEADER, tonic::metadata::MetadataValue::from_static("perhaps"));
        assert!(options(&headers).is_err_and(|error| error.message.contains(NO_CACHE_HEADER)));
        Ok(())
    }
}
