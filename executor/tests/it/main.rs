//! Tasks as they run, in process and in a real runner. One program: each would link the whole engine again.

mod common;
mod run;
mod runner;
