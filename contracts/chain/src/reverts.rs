//! What the contracts' errors mean for who called: a kind, one line and a hint.

use alloy::{
    primitives::U256,
    sol_types::{SolError, SolInterface},
};
use conun_types::{
    amount::Amount,
    error::{Error, ErrorKind},
};

use crate::bindings::{
    ConunToken::ConunTokenErrors as Token, Disputes::DisputesErrors as Disputes, JobEscrow::JobEscrowErrors as Escrow,
    ProviderRegistry::ProviderRegistryErrors as Registry,
};

/// What people are told where an allowance is too small.
pub(crate) const UNAPPROVED: &str = "tokens are approved";

/// Tokens for people; what no `u128` holds is shown as the most one holds.
pub(crate) fn amount(value: U256) -> Amount {
    Amount(value.saturating_to())
}

/// The error for a call that reverted with `data` while `what` was tried.
pub(crate) fn explain(data: &[u8], what: &str) -> Error {
    let known = Escrow::abi_decode(data)
        .ok()
        .map(escrow)
        .or_else(|| Registry::abi_decode(data).ok().map(registry))
        .or_else(|| Disputes::abi_decode(data).ok().map(disputes))
        .or_else(|| Token::abi_decode(data).ok().map(token));
    known.unwrap_or_else(|| Error::data(format!("the contract reverts: {}", unknown(data)))).context(what)
}

fn unknown(data: &[u8]) -> String {
    if let Ok(alloy::sol_types::Revert { reason }) = alloy::sol_types::Revert::abi_decode(data) {
        return reason.chars().filter(|c| !c.is_control()).take(200).collect();
    }
    if let Ok(panic) = alloy::sol_types::Panic::abi_decode(data) {
        return format!("panic {:#x}", panic.code);
    }
    if data.is_empty() {
        "without a reason".to_owned()
    } else {
        format!("0x{}", hex::encode(&data[..data.len().min(68)]))
    }
}

fn budget(message: String) -> Error {
    Error::new(ErrorKind::Budget, message)
}

fn zero() -> Error {
    Error::data("the amount is zero, or there is nothing to take")
}

fn too_early(time: u64) -> Error {
    if time == 0 {
        return Error::data("the rest was not asked for").with_hint("ask for it first; it can be taken a week later");
    }
    Error::data(format!("not before Unix time {time}")).with_hint("the window has not passed yet; try again then")
}

fn bad_signature(signer: alloy::primitives::Address) -> Error {
    Error::data(format!("the signature is {signer:#x}'s, who may not sign this"))
}

fn escrow(error: Escrow) -> Error {
    match error {
        Escrow::Zero(_) => zero(),
        Escrow::JobExists(e) => Error::data(format!("account {} is in use", e.job)).with_hint("choose another id"),
        Escrow::NotYourJob(e) => Error::data(format!("there is no account {}, or it is another client's", e.job)),
        Escrow::BadSignature(e) => bad_signature(e.signer),
        Escrow::OverBudget(e) => {
            let (needed, available) = (amount(e.needed), amount(e.available));
            budget(format!("{needed} tokens are needed, {available} may be spent")).with_hint("top the account up")
        }
        Escrow::WrongBatch(e) => Error::data(format!("batch {} was shown, {} is next", e.batch, e.next)),
        Escrow::Stale(e) => Error::data(format!("{:#x} was credited {} tokens already", e.provider, Amount(e.earned))),
        Escrow::NodeRevoked(e) => Error::data(format!("the key of node {:#x} was revoked", e.provider)),
        Escrow::BadRecords(e) => Error::data(format!("{} bytes do not hold {} records", e.length, e.stages)),
        Escrow::TooEarly(e) => too_early(e.time),
        Escrow::Closing(e) => Error::data(format!("the rest of account {} is being taken out", e.job)),
        Escrow::EnforcedPause(_) => Error::unavailable("the escrow takes no new accounts and deposits at present"),
        Escrow::SafeERC20FailedOperation(e) => budget(format!("the token {:#x} refused to move", e.token)),
        other => Error::data(format!("the escrow reverts: {other:?}")),
    }
}

fn registry(error: Registry) -> Error {
    match error {
        Registry::Zero(_) => zero(),
        Registry::TooMuch(e) => {
            budget(format!("{} tokens asked for, {} are there", amount(e.asked), amount(e.available)))
        }
        Registry::TooEarly(e) => too_early(e.releaseAt),
        Registry::NodeTaken(e) => Error::data(format!("node {:#x} belongs to operator {:#x}", e.node, e.operator)),
        Registry::NoConsent(e) => Error::data(format!("the signature is not node {:#x}'s consent", e.node)),
        Registry::NotYourNode(e) => Error::data(format!("node {:#x} is not one of yours", e.node)),
        Registry::NoOperator(e) => Error::data(format!("node {:#x} has no operator whose stake is at risk", e.node)),
        Registry::SafeERC20FailedOperation(e) => budget(format!("the token {:#x} refused to move", e.token)),
        other => Error::data(format!("the registry reverts: {other:?}")),
    }
}

fn disputes(error: Disputes) -> Error {
    match error {
        Disputes::NoOffence(_) => Error::data("what is shown is no offence"),
        Disputes::BadSignature(e) => bad_signature(e.signer),
        Disputes::NotInClaim(e) => Error::data(format!("order {} is not in the claim", e.orderHash)),
        Disputes::AlreadyConvicted(e) => Error::data(format!("node {:#x} was convicted of this before", e.node)),
        Disputes::BadProof(_) => Error::data("the proof has a wrong shape"),
        other => Error::data(format!("the disputes contract reverts: {other:?}")),
    }
}

fn token(error: Token) -> Error {
    match error {
        Token::ERC20InsufficientBalance(e) => {
            budget(format!("{:#x} has {} tokens, {} are needed", e.sender, amount(e.balance), amount(e.needed)))
                .with_hint("fund that address with tokens")
        }
        Token::ERC20InsufficientAllowance(e) => {
            budget(format!("{} {UNAPPROVED}, {} are needed", amount(e.allowance), amount(e.needed)))
        }
        other => Error::data(format!("the token reverts: {other:?}")),
    }
}
