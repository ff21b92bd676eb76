//! SQL functions whose answers are the same bits everywhere: sums of floats that depend neither on the order of the rows
//! nor on partitions, batches or SIMD width ([`aggregate`], on [`exact`] arithmetic), and transcendental functions that
//! do not depend on the platform's libm ([`scalar`]). Also those of DataFusion's of which encoded plans lose a part ([`window`],
//! [`aggregate::filtered`]).
//!
//! They have DataFusion's names and replace its functions ([`register`]) where plans are made for volunteers and where
//! volunteers decode them. What it knows: DataFusion's function interfaces. What it must not know: plans, tasks, nodes.

pub mod aggregate;
pub mod exact;
mod registry;
pub mod scalar;
pub mod window;

pub use registry::{register, register_names};

/// What the execution profile says of these functions. Whoever changes a result changes this.
pub const VERSION: &str = "exact-sums-1, libm-0.2.16";
