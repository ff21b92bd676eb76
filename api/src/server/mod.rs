//! Serving: where the port listens, who may use it, and how it stops.

mod actions;
mod auth;
mod download;
mod flight_sql;
mod metadata;
mod upload;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arrow_flight::flight_service_server::FlightServiceServer;
use conun_engine::Engine;
use conun_types::{Error, Result};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{service::interceptor::InterceptedService, transport::server::TcpIncoming};

pub(crate) use self::flight_sql::ticket;
use self::{auth::Auth, flight_sql::Service};
use crate::message::MAX_GRPC_MESSAGE;

/// Where a coordinator listens if nobody says otherwise.
pub const DEFAULT_PORT: u16 = 7400;

/// How long running answers may go on once the server is told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// A serving port. Dropping it stops at once; [`Server::shutdown`] lets running answers end.
pub struct Server {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `engine` on `addr` (port 0: any free one) in the background. Clients must show `token` if there is one.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Usage`] where `addr` is no loopback address and there is no token, or where the port
    /// is in use.
    pub async fn serve(engine: Arc<Engine>, addr: SocketAddr, token: Option<String>) -> Result<Self> {
        check_exposure(addr, token.as_deref())?;
        let listener = TcpListener::bind(addr).await.map_err(|e| cannot_bind(addr, e))?;
        let addr = listener.local_addr()?;
        let flight = FlightServiceServer::new(Service::new(engine)?)
            .max_decoding_message_size(MAX_GRPC_MESSAGE)
            .max_encoding_message_size(MAX_GRPC_MESSAGE);
        let service = InterceptedService::new(flight, Auth::new(token));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let until = async move { drop(stopped.await) };
            let server = tonic::transport::Server::builder().max_concurrent_streams(1024).add_service(service);
            if let Err(error) = server.serve_with_incoming_shutdown(incoming, until).await {
                tracing::error!(%error, "the gRPC port failed");
            }
        });
        Ok(Self { addr, stop: Some(stop), task })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What a client connects to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Takes no new calls, gives running ones a moment to end, then stops.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if tokio::time::timeout(GRACE, &mut self.task).await.is_err() {
            tracing::info!("answers were still running, they were cut off");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Without a secret anybody who reaches the port may spend the owner's name: it stays on this machine.
fn check_exposure(addr: SocketAddr, token: Option<&str>) -> Result<()> {
    if token.is_none() && !addr.ip().is_loopback() {
        return Err(Error::usage(format!("{addr} is open to other machines, and no token protects it"))
            .with_hint("listen on 127.0.0.1, or set CONUN_TOKEN"));
    }
    Ok(())
}

fn cannot_bind(addr: SocketAddr, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => Error::usage(format!("port {} is in use on {}", addr.port(), addr.ip()))
            .with_hint("choose another with --port, or stop what listens there"),
        _ => Error::from(error).context(format!("cannot listen on {addr}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_opens_the_port_to_other_machines() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(check_exposure(addr("127.0.0.1:7400"), None).is_ok());
        assert!(check_exposure(addr("[::1]:7400"), None).is_ok());
        let error = check_exposure(addr("0.0.0.0:7400"), None).unwrap_err();
        assert_eq!(error.kind, conun_types::ErrorKind::Usage);
        assert!(error.hint.is_some());
        assert!(check_exposure(addr("0.0.0.0:7400"), Some("secret")).is_ok());
    }
}
