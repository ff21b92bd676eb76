//! The contracts' interfaces, for calls that the port has no method for.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

alloy::sol!(JobEscrow, "../artifacts/JobEscrow.json");
pub mod registry {
    alloy::sol!(ProviderRegistry, "../artifacts/ProviderRegistry.json");
}
pub mod disputes {
    alloy::sol!(Disputes, "../artifacts/Disputes.json");
}
