//! The conun command.

fn main() {}
