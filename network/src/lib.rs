//! Peers over libp2p: identity, discovery, block exchange, task streams.
//!
//! What it knows: how to find peers, open authenticated streams to them, and speak Conun's three protocols
//! ([`Protocol`]) with every length bounded, every wait limited and every block byte verified before it is handed on.
//! It implements [`conun_types::port::Network`] and serves a [`conun_types::port::Volunteer`].
//!
//! What it must not know: plans, leases, trust or pay. It is the only crate that imports libp2p, and no libp2p type
//! is in its public interface.
//!
//! The map: [`config`] what can be set; `frame` length-prefixed messages; `bao` verified ranges; `wire` the messages
//! of the protocols and their limits; `client` and `server` the two ends of each protocol over any byte stream;
//! `streams` and `driver` the libp2p part; `peers` and [`discovery`] who is there; [`Host`] puts them together over
//! sockets, [`MemoryNet`] over pipes within a process (for tests of other crates, through the same two ends).

mod bao;
mod client;
pub mod config;
pub mod discovery;
mod driver;
mod frame;
mod gate;
mod host;
mod ids;
mod memory;
mod peers;
mod server;
mod service;
mod streams;
mod wire;

pub use crate::{
    config::{HostConfig, Limits, Timing},
    discovery::{Bootstrap, Candidate, Discovery},
    host::Host,
    memory::MemoryNet,
    service::ClientOnly,
    wire::Protocol,
};
