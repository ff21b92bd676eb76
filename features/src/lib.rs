//! Selects the features that all crates of the workspace unify to, and holds no code.
//!
//! Cargo unifies features over the packages that a command selects: `cargo test -p conun-storage` alone would turn off
//! a few features of tokio, and with them build DataFusion a second time (40 minutes on two cores). Crates that use
//! DataFusion depend on this one, the others in their tests, so that narrow commands and whole ones share artifacts.
