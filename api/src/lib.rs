//! The coordinator's one gRPC port: Arrow Flight SQL for everybody's drivers, and beside it Conun's own operations as
//! Flight actions with JSON bodies ([`message`] lists them); [`Server`] serves it, [`Client`] speaks to it.
//!
//! What it knows: Flight's messages, how errors travel ([`status`]), who may connect. What it must not know: how jobs
//! run (engine), where shards are (storage), how answers are printed (cli).

mod client;
pub mod message;
mod server;
pub mod status;

pub use client::{BatchStream, Client};
pub use server::{DEFAULT_PORT, Server};
