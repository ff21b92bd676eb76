//! A network that fails: an HTTP proxy on the loopback between us and a chain, which does to requests what it is told.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What becomes of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// They pass.
    Fair,
    /// Transactions pass; the connection breaks before the answer.
    DropsAnswers,
    /// Transactions do not pass; the connection breaks.
    DropsRequests,
    /// Transactions pass twice; the second answer counts.
    Twice,
    /// Transactions pass, and the answer is an error all the same.
    Lies,
    /// Nothing passes: status 503.
    Busy,
    /// Nothing passes: connections break at once.
    Away,
    /// Transactions are held and do not pass.
    HoldsBefore,
    /// Transactions pass; the answer is held.
    HoldsAfter,
}

/// The proxy; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mood: Arc<Mutex<Mood>>,
    /// Transactions that were seen.
    pub(crate) sent: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn before(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Self { port, mood: Arc::new(Mutex::new(Mood::Fair)), sent: Arc::default() };
        let this = proxy.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let this = this.clone();
                tokio::spawn(async move { this.serve(socket, upstream).await });
            }
        });
        proxy
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// One request a connection.
    async fn serve(&self, mut socket: TcpStream, upstream: u16) -> Option<()> {
        let request = read_request(&mut socket).await?;
        let body = String::from_utf8_lossy(&request).into_owned();
        let sends = body.contains("eth_sendRawTransaction");
        if sends {
            self.sent.fetch_add(1, Ordering::SeqCst);
        }
        let mood = *self.mood.lock().unwrap();
        let answer = match (mood, sends) {
            (Mood::Away, _) | (Mood::DropsRequests, true) => return None,
            (Mood::Busy, _) => response("503 Service Unavailable", "busy"),
            (Mood::HoldsBefore, true) => std::future::pending().await,
            (Mood::DropsAnswers, true) => {
                forward(&request, upstream).await?;
                return None;
            }
            (Mood::HoldsAfter, true) => {
                forward(&request, upstream).await?;
                std::future::pending().await
            }
            (Mood::Twice, true) => {
                forward(&request, upstream).await?;
                response("200 OK", &forward(&request, upstream).await?)
            }
            (Mood::Lies, true) => {
                forward(&request, upstream).await?;
                let id = serde_json::from_str::<serde_json::Value>(&body).ok()?["id"].clone();
                let error = serde_json::json!({"code": -32603, "message": "internal error"});
                response("200 OK", &serde_json::json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string())
            }
            _ => response("200 OK", &forward(&request, upstream).await?),
        };
        socket.write_all(answer.as_bytes()).await.ok()
    }
}

fn response(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// The body of an HTTP message that has a content-length.
async fn read_request(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = vec![0; 16 * 1024];
        let n = socket.read(&mut chunk).await.ok()?;
        if n == 0 {
            return None;
        }
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some(end) = text.find("\r\n\r\n") else { continue };
        let length: usize =
            text[..end].to_lowercase().lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok())?;
        if bytes.len() >= end + 4 + length {
            return Some(bytes.split_off(end + 4));
        }
    }
}

/// The chain's answer.
async fn forward(body: &[u8], upstream: u16) -> Option<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", upstream)).await.ok()?;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    socket.write_all(&[head.as_bytes(), body].concat()).await.ok()?;
    read_request(&mut socket).await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}
