//! The chain: [`conun_types::ledger::Ledger`] over Ethereum.
//!
//! What it knows: the contracts (`contracts/src`), transactions and what can go wrong with them, an EVM chain in a folder
//! for development, and files that keys are kept in.
//! What it must not know: jobs, stages, tasks, nodes' protocols, and sockets other than those of JSON-RPC.
//!
//! [`EvmLedger::connect`] is the way in; [`ChainConfig`] says which chain: a folder ([`Backend::Embedded`]) or a URL
//! ([`Backend::Rpc`]). [`deploy()`] puts the contracts on a chain that has none. [`dev`] is for play money, [`wallet`]
//! for keys of people.

mod bindings;
mod config;
mod contracts;
mod deploy;
pub mod dev;
mod embedded;
mod ledger;
mod link;
mod outbox;
mod reverts;
pub mod wallet;

pub use crate::config::{Backend, ChainConfig};
pub use crate::deploy::{Deployment, deploy};
pub use crate::ledger::EvmLedger;
