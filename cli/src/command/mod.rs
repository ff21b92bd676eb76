//! One file a subcommand. Each is thin: it calls the crates that know how, and prints.

pub(crate) mod chain;
pub(crate) mod completions;
pub(crate) mod coordinator;
pub(crate) mod demo;
pub(crate) mod devnet;
pub(crate) mod dispute;
pub(crate) mod earnings;
pub(crate) mod get;
pub(crate) mod job;
pub(crate) mod node;
pub(crate) mod pins;
pub(crate) mod put;
pub(crate) mod replay;
pub(crate) mod rm;
pub(crate) mod runner;
pub(crate) mod show;
pub(crate) mod sql;
pub(crate) mod tables;
pub(crate) mod verify;
pub(crate) mod wallet;
