//! Coordinators and nodes inside of the test's process, whose answers and connections it bends.

#![allow(clippy::unwrap_used)]

mod determinism;
mod faults;
#[path = "../../../network/tests/support/log.rs"]
mod log;
mod paid;
mod pay_faults;
mod trust;
mod verdicts;
mod world;
