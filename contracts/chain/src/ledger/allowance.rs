//! Tokens are taken by allowance. Where the token has permits (EIP-2612) the allowance is signed and travels with the
//! call; where it has none, or does not honour ours, a transaction of its own comes first.

use alloy::{
    primitives::{Address, B256, U256},
    sol_types::SolCall,
};
use conun_types::{
    amount::Amount,
    error::{Error, ErrorKind, Result},
    ledger::Included,
};

use super::{EvmLedger, words};
use crate::{
    bindings::{ConunToken, JobEscrow, ProviderRegistry},
    contracts::{ours, permit},
    link::{NO_ETHER, Trouble},
    outbox::Order,
    reverts::UNAPPROVED,
};

/// How long a permit can be used, in seconds of the chain's time.
const VALID: u64 = 3_600;
/// How often an allowance may be gone when it is needed: other processes with the same key use it up.
const ROUNDS: u32 = 8;

/// In how many of them a call is taken for overtaken since it would go through now.
const BELIEVED: u32 = 3;

/// A signed permit, as calls take it.
#[derive(Debug, Clone, Copy)]
struct Permit {
    deadline: U256,
    v: u8,
    r: B256,
    s: B256,
}

/// What tokens are paid in for.
#[derive(Debug, Clone, Copy)]
pub(super) enum PayIn {
    /// A new account.
    Open { job: B256, spender: Address, cap: u128 },
    /// An account that is there.
    TopUp { job: B256 },
    /// The sender's stake.
    Stake,
}

impl PayIn {
    /// The call that takes `amount`.
    fn call(&self, amount: u128, permit: Option<Permit>) -> Vec<u8> {
        match (*self, permit) {
            (Self::Open { job, spender, cap }, None) => {
                JobEscrow::openCall { job, deposit: amount, spender, cap }.abi_encode()
            }
            (Self::Open { job, spender, cap }, Some(Permit { deadline, v, r, s })) => {
                JobEscrow::openWithPermitCall { job, deposit: amount, spender, cap, deadline, v, r, s }.abi_encode()
            }
            (Self::TopUp { job }, _) => JobEscrow::topUpCall { job, amount }.abi_encode(),
            (Self::Stake, None) => ProviderRegistry::stakeCall { amount }.abi_encode(),
            (Self::Stake, Some(Permit { deadline, v, r, s })) => {
                ProviderRegistry::stakeWithPermitCall { amount, deadline, v, r, s }.abi_encode()
            }
        }
    }

    fn takes_permits(&self) -> bool {
        !matches!(self, Self::TopUp { .. })
    }
}

impl EvmLedger {
    /// Pays tokens in: the contract takes them by a permit or by what is approved.
    pub(super) async fn pay_in(&self, what: &str, amount: Amount, reason: &PayIn) -> Result<Included> {
        let to = if matches!(reason, PayIn::Stake) { self.contracts.registry } else { self.contracts.escrow };
        // An allowance is for one call: the next waits until this one has used it.
        let _turn = self.paying.lock().await;
        let mut last = None;
        for round in 0..ROUNDS {
            // By turns, as a token may count permits and yet not honour them.
            let by_permit = reason.takes_permits() && round % 2 == 0;
            let permit = self.allow(what, to, amount, by_permit).await?;
            let order = Order::call(what, to, reason.call(amount.0, permit));
            let without_permit = || Order::call(what, to, reason.call(amount.0, None));
            match self.outbox.send(&order).await {
                Err(error) if self.was_overtaken(&error, &without_permit(), to, amount, round).await => {
                    tracing::info!(%error, "another process has used the allowance");
                    last = Some(error);
                }
                done => return super::included(&done?),
            }
        }
        let last = last.map(|error| format!(" (last: {error})")).unwrap_or_default();
        Err(Error::unavailable(format!("{what}: other processes with the same key use up its allowances{last}")))
    }

    async fn token_view<C: SolCall>(&self, call: C) -> Result<C::Return, Trouble> {
        self.link.view(self.contracts.token, &call, None).await
    }

    /// Makes sure that the sender has `amount` and that `spender` may take it: by the permit that is returned, or else
    /// because it is approved.
    async fn allow(&self, what: &str, spender: Address, amount: Amount, by_permit: bool) -> Result<Option<Permit>> {
        self.check_funds(what, amount).await?;
        if self.allowance(what, spender).await? >= U256::from(amount.0) {
            return Ok(None);
        }
        if by_permit && let Some(permit) = self.sign_permit(spender, amount).await? {
            return Ok(Some(permit));
        }
        self.approve(what, spender, amount).await.map(|()| None)
    }

    async fn check_funds(&self, what: &str, amount: Amount) -> Result<()> {
        let account = self.outbox.address();
        let balance = self.balance_now(account).await?;
        if balance >= amount {
            return Ok(());
        }
        let error = format!("{what}: {account:#x} has {balance} tokens, {amount} are needed");
        Err(Error::new(ErrorKind::Budget, error).with_hint("fund that address with tokens"))
    }

    async fn allowance(&self, what: &str, spender: Address) -> Result<U256> {
        let owner = self.outbox.address();
        self.token_view(ConunToken::allowanceCall { owner, spender }).await.map_err(|t| t.while_doing(what))
    }

    /// A permit, where the token has them: it then has a domain and counts its holders' permits.
    async fn sign_permit(&self, spender: Address, amount: Amount) -> Result<Option<Permit>> {
        let owner = self.outbox.address();
        let domain = self.token_view(ConunToken::DOMAIN_SEPARATORCall {}).await;
        let nonce = self.token_view(ConunToken::noncesCall { owner }).await;
        let (Ok(domain), Ok(nonce)) = (domain, nonce) else { return Ok(None) };
        let Ok(nonce) = u64::try_from(nonce) else { return Ok(None) };
        let block = self.link.block(None).await.map_err(|t| t.while_doing("reading the chain"))?;
        let deadline = block.map_or(0, |b| b.header.inner.timestamp).saturating_add(VALID);
        let signature = self.outbox.sign_hash(permit(domain, owner, spender, amount.0, nonce, deadline))?;
        let (v, r, s) = (27 + u8::from(signature.v()), B256::from(signature.r()), B256::from(signature.s()));
        Ok(Some(Permit { deadline: U256::from(deadline), v, r, s }))
    }

    /// Approves `amount` by a transaction. Some tokens do not let one allowance become another: then zero comes first.
    async fn approve(&self, what: &str, spender: Address, amount: Amount) -> Result<()> {
        let old = self.allowance(what, spender).await?;
        let values = if old.is_zero() { vec![amount.0] } else { vec![0, amount.0] };
        for value in values {
            let call = ConunToken::approveCall { spender, value: U256::from(value) };
            let doing = format!("approving {} tokens to {}", Amount(value), ours(spender));
            self.call(doing, self.contracts.token, call).await?;
        }
        Ok(())
    }

    /// Whether a call failed because its permit was not honoured, or what was approved is gone; it has moved nothing then.
    ///
    /// Other processes with the same key may have approved anew since, so that the allowance that is there now proves
    /// nothing: then the error says it, or `order`, tried without being sent, says it or goes through. The latter has other
    /// reasons, too, and what failed has cost gas: it is believed in the first [`BELIEVED`] rounds.
    async fn was_overtaken(&self, error: &Error, order: &Order, spender: Address, amount: Amount, round: u32) -> bool {
        let unapproved = |error: &Error| error.message.contains(UNAPPROVED);
        matches!(error.kind, ErrorKind::Budget | ErrorKind::Data)
            && !error.message.contains(NO_ETHER)
            && self.check_funds("", amount).await.is_ok()
            && (unapproved(error)
                || self.allowance("", spender).await.is_ok_and(|a| a < U256::from(amount.0))
                || match self.outbox.would(order).await {
                    Ok(()) => round < BELIEVED,
                    Err(trouble) => unapproved(&trouble.while_doing("")),
                })
    }

    /// As of the last block, which may yet be undone.
    pub(super) async fn balance_now(&self, account: Address) -> Result<Amount> {
        let balance = self.token_view(ConunToken::balanceOfCall { account }).await;
        balance.map(words::amount).map_err(|t| t.while_doing("reading the chain"))
    }
}
