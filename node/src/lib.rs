//! A volunteer: accepts orders, fetches inputs, has them run, keeps blocks, signs receipts.
//!
//! [`NodeService`] implements [`conun_types::port::Volunteer`]. A task's way: [`desk`] decides about the offer; `envelope`
//! checks that what follows is what was offered; `fetch` gets what the task needs; a runner process (`conun-executor`) runs it; [`NodeService`] keeps the blocks under the
//! offer's lease, opens them to bearers of the offer's capability, and signs the receipt, which [`till`] keeps until it is
//! paid. [`twin`] holds the dishonest twins that a network must catch, `delay` one that is honest and late.
//!
//! What it knows: its key, its store, its runners, the network's port. What it must not know: libp2p, plans, SQL, what
//! other replicas answered.

pub mod capabilities;
mod cashier;
pub mod config;
mod delay;
pub mod desk;
mod envelope;
mod fetch;
mod service;
pub mod till;
pub mod twin;

pub use crate::cashier::{PayTerms, till_path};
pub use crate::config::NodeConfig;
pub use crate::service::NodeService;
pub use crate::twin::mode::LiarMode;
