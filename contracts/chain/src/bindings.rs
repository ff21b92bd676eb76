//! The contracts' interfaces and code, generated from the committed artefacts (`contracts/artifacts`, which
//! `contracts/tools/artifacts` writes). Only calls, events and errors are taken from here; how they are sent is told in
//! [`crate::outbox`].
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

alloy::sol!(
    #[sol(all_derives)]
    ConunToken,
    "../artifacts/ConunToken.json"
);

alloy::sol!(
    #[sol(all_derives)]
    ProviderRegistry,
    "../artifacts/ProviderRegistry.json"
);

alloy::sol!(
    #[sol(all_derives)]
    JobEscrow,
    "../artifacts/JobEscrow.json"
);

alloy::sol!(
    #[sol(all_derives)]
    Disputes,
    "../artifacts/Disputes.json"
);
