//! The repository's own checks and benches.

fn main() {}
