//! What can be set on a [`crate::Host`]: addresses, limits, waits. Values only.

use std::time::Duration;

/// Settings of a host. The default listens on a free loopback port and knows nobody.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Multiaddresses to listen on (`/ip4/127.0.0.1/tcp/0`: any free port). Empty: only dial.
    pub listen: Vec<String>,
    /// Peers to meet first: `/ip4/…/tcp/…`, with or without `/p2p/16Uiu2…`.
    pub bootstrap: Vec<String>,
    /// `conun` version told to peers, for people.
    pub agent: String,
    /// How much strangers may ask of this process.
    pub limits: Limits,
    /// How long to wait for what.
    pub timing: Timing,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            bootstrap: Vec::new(),
            agent: concat!("conun/", env!("CARGO_PKG_VERSION")).to_owned(),
            limits: Limits::default(),
            timing: Timing::default(),
        }
    }
}

/// Bounds on what peers may make this process hold at once.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Established connections in total; also bounds the table of peers.
    pub connections: u32,
    /// Established connections to one peer: two when both dial at once, and room for a reconnect.
    pub connections_per_peer: u32,
    /// Connections that are being set up, each way.
    pub pending: u32,
    /// Inbound control and block streams at once, in total and from one peer.
    pub streams: usize,
    /// See `streams`.
    pub streams_per_peer: usize,
    /// Inbound task streams at once, in total and from one peer. The volunteer itself decides how many it runs.
    pub tasks: usize,
    /// See `tasks`.
    pub tasks_per_peer: usize,
    /// Bytes of blocks and long messages that are on their way to us at once.
    pub inflight_write: u64,
    /// Control and block streams that we open to one peer at once; below a peer's `streams_per_peer`, so that
    /// an honest node is never told that it asks for too much.
    pub outbound_per_peer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_peer: 4,
            pending: 64,
            streams: 1024,
            streams_per_peer: 128,
            tasks: 512,
            tasks_per_peer: 128,
            inflight_write: 1 << 30,
            outbound_per_peer: 64,
        }
    }
}

/// Waits and intervals.
#[derive(Debug, Clone)]
pub struct Timing {
    /// To connect and open a stream.
    pub dial: Duration,
    /// For the answer to a short request, and for the first byte of a block.
    pub reply: Duration,
    /// For a node to make a written block durable.
    pub store: Duration,
    /// For the next piece (at most 256 KiB) of a message that has begun.
    pub progress: Duration,
    /// Between signs of life on a task stream, each way.
    pub keepalive: Duration,
    /// Without any sign of life, after which a task stream's other end counts as gone.
    pub silence: Duration,
    /// Added to an offer's own timeout, for what the network takes.
    pub task_margin: Duration,
    /// Between two `Hello` to a connected peer.
    pub hello_every: Duration,
    /// For the answer to `Hello`; longer, and the peer is no longer listed among the volunteers.
    pub hello_timeout: Duration,
    /// Between two questions for a peer's peers.
    pub peers_every: Duration,
    /// First wait before a failed dial is repeated; it doubles up to `redial_max`.
    pub redial: Duration,
    /// Longest wait between two dials of a bootstrap peer.
    pub redial_max: Duration,
    /// A connection without streams is closed after this; `Hello` keeps those in use open.
    pub idle_connection: Duration,
    /// How long a peer that broke the protocol towards us is shut out. Zero: not at all.
    pub ban: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(5),
            reply: Duration::from_secs(10),
            store: Duration::from_secs(30),
            progress: Duration::from_secs(10),
            keepalive: Duration::from_secs(3),
            silence: Duration::from_secs(15),
            task_margin: Duration::from_secs(2),
            hello_every: Duration::from_secs(1),
            hello_timeout: Duration::from_secs(2),
            peers_every: Duration::from_secs(2),
            redial: Duration::from_millis(250),
            redial_max: Duration::from_secs(10),
            idle_connection: Duration::from_secs(120),
            ban: Duration::from_secs(30),
        }
    }
}
