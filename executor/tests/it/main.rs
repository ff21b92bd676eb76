//! Tasks as they run, in process and in a real runner. One program: each would link the whole engine again.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod codec;
mod common;
mod run;
mod runner;
mod ties;
