//! The built `conun` and its services as processes of their own, from outside.

#![allow(clippy::unwrap_used)]

mod common;
mod dataframe;
mod demo;
mod devnet;
mod disputes;
mod embedded;
mod liars;
mod made_up;
mod money;
mod oracle;
mod tpch;
