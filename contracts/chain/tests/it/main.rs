//! The chain as others use it: one suite on the embedded chain and on anvil, hashes against Solidity, a hostile network
//! between us and the chain, processes that share a folder or die, wallets.
#![allow(clippy::unwrap_used)]

mod abi;
mod agreement;
mod conformance;
mod faults;
mod proxy;
mod refusals;
mod sharing;
mod story;
mod support;
mod wallets;
