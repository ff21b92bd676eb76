//! The port's methods, one after the other.

use async_trait::async_trait;
use conun_types::{
    amount::Amount,
    eip712::Domain,
    error::{Error, Result},
    identity::{Address, Signature},
    ledger::{Account, Earned, Included, Ledger, Provider, SettledBatch},
    order::SignedReceipt,
    payment::{AccountId, ClaimedLeaf, SignedSettlement, SignedVoucher},
};

use super::{
    EvmLedger,
    allowance::PayIn,
    words::{self, somebody},
};
use crate::{
    bindings::{Disputes, JobEscrow, ProviderRegistry},
    contracts::{ours, theirs},
};

impl EvmLedger {
    pub(super) async fn earned_now(&self, id: &AccountId, provider: &Address) -> Result<Earned> {
        let call = JobEscrow::accountOfCall { job: id.0.into(), provider: theirs(provider) };
        let found = self.link.view(self.contracts.escrow, &call, None).await;
        let found = found.map_err(|t| t.while_doing("reading the chain"))?;
        Ok(Earned { earned: Amount(found.earned), drawn: Amount(found.drawn) })
    }

    async fn job_now(&self, id: &AccountId) -> Result<JobEscrow::Job> {
        let call = JobEscrow::jobOfCall { job: id.0.into() };
        let found = self.link.view(self.contracts.escrow, &call, None).await;
        found.map_err(|t| t.while_doing("reading the chain"))
    }

    async fn is_free(&self, id: &AccountId) -> Result<bool> {
        Ok(self.job_now(id).await?.client.is_zero())
    }

    async fn settle_new(&self, what: String, signed: &SignedSettlement) -> Result<Included> {
        let call = JobEscrow::settleCall {
            batch: words::batch(&signed.settlement)?,
            earnings: words::earnings(&signed.settlement),
            records: signed.settlement.packed_records()?.into(),
            signature: words::signature(&signed.signature),
        };
        self.call(what, self.contracts.escrow, call).await
    }

    /// A batch of the past: ours, or somebody else's under its number.
    async fn settled_before(&self, signed: &SignedSettlement) -> Result<Option<Included>> {
        if self.job_now(&signed.settlement.account).await?.batches <= signed.settlement.batch {
            return Ok(None);
        }
        self.same_batch(signed).await
    }
}

#[async_trait]
impl Ledger for EvmLedger {
    fn domain(&self) -> Domain {
        self.contracts.domain()
    }

    fn sender(&self) -> Address {
        ours(self.outbox.address())
    }

    async fn balance(&self, holder: &Address) -> Result<Amount> {
        self.balance_now(theirs(holder)).await
    }

    async fn account(&self, id: &AccountId) -> Result<Option<Account>> {
        let job = self.view(self.contracts.escrow, JobEscrow::jobOfCall { job: id.0.into() }).await?;
        Ok(somebody(job.client).map(|client| Account {
            client,
            spender: somebody(job.spender),
            spender_cap: Amount(job.spenderCap),
            deposit: Amount(job.deposit),
            earned: Amount(job.earned),
            batches: job.batches,
            refund_at: job.refundAt,
        }))
    }

    async fn earned(&self, id: &AccountId, provider: &Address) -> Result<Earned> {
        let call = JobEscrow::accountOfCall { job: id.0.into(), provider: theirs(provider) };
        let found = self.view(self.contracts.escrow, call).await?;
        Ok(Earned { earned: Amount(found.earned), drawn: Amount(found.drawn) })
    }

    async fn provider(&self, node: &Address) -> Result<Provider> {
        let (registry, node) = (self.contracts.registry, theirs(node));
        let known = self.view(registry, ProviderRegistry::nodeOfCall { node }).await?;
        let payout = self.view(registry, ProviderRegistry::payoutOfCall { node }).await?;
        // A node without an operator is its own.
        let operator = somebody(known.operator).map_or(node, |_| known.operator);
        let found = self.view(registry, ProviderRegistry::operatorOfCall { operator }).await?;
        Ok(Provider {
            operator: somebody(known.operator),
            revoked: known.revoked,
            payout: ours(payout),
            stake: Amount(found.stake),
            unbonding: Amount(found.unbonding),
            release_at: found.releaseAt,
            convictions: found.convictions,
            paid: words::amount(found.paid),
        })
    }

    async fn settlements(&self, id: &AccountId) -> Result<Vec<SettledBatch>> {
        self.settled(id, None).await
    }

    async fn open(&self, id: &AccountId, deposit: Amount, spender: Option<Address>, cap: Amount) -> Result<Included> {
        let what = format!("opening account {id}");
        if !self.is_free(id).await? {
            return Err(Error::data(format!("{what}: the id is in use")).with_hint("choose another id"));
        }
        let spender = spender.as_ref().map(theirs).unwrap_or_default();
        self.pay_in(&what, deposit, &PayIn::Open { job: id.0.into(), spender, cap: cap.0 }).await
    }

    async fn top_up(&self, id: &AccountId, amount: Amount) -> Result<Included> {
        let what = format!("topping up account {id}");
        if self.is_free(id).await? {
            return Err(Error::data(format!("{what}: there is no such account")));
        }
        self.pay_in(&what, amount, &PayIn::TopUp { job: id.0.into() }).await
    }

    async fn set_spender(&self, id: &AccountId, spender: Option<Address>, cap: Amount) -> Result<Included> {
        let spender = spender.as_ref().map(theirs).unwrap_or_default();
        let call = JobEscrow::setSpenderCall { job: id.0.into(), spender, cap: cap.0 };
        self.call(format!("naming a spender of account {id}"), self.contracts.escrow, call).await
    }

    async fn settle(&self, settlement: &SignedSettlement) -> Result<Included> {
        if let Some(included) = self.settled_before(settlement).await? {
            return Ok(included);
        }
        let (id, batch) = (settlement.settlement.account, settlement.settlement.batch);
        match self.settle_new(format!("settling batch {batch} of account {id}"), settlement).await {
            Ok(included) => Ok(included),
            // Somebody else may have shown the same words at the same time.
            Err(error) => self.settled_before(settlement).await.ok().flatten().ok_or(error),
        }
    }

    async fn redeem(&self, voucher: &SignedVoucher) -> Result<Included> {
        let v = &voucher.voucher;
        let call = JobEscrow::redeemCall {
            job: v.account.0.into(),
            provider: theirs(&v.provider),
            cumulative: v.cumulative.0,
            signature: words::signature(&voucher.signature),
        };
        self.call(format!("redeeming a voucher of account {}", v.account), self.contracts.escrow, call).await
    }

    async fn draw(&self, id: &AccountId, provider: &Address) -> Result<Included> {
        let call = JobEscrow::drawCall { job: id.0.into(), provider: theirs(provider) };
        self.call(format!("drawing what {provider} has earned of account {id}"), self.contracts.escrow, call).await
    }

    async fn ask_refund(&self, id: &AccountId) -> Result<Included> {
        let call = JobEscrow::askRefundCall { job: id.0.into() };
        self.call(format!("asking for the rest of account {id}"), self.contracts.escrow, call).await
    }

    async fn refund(&self, id: &AccountId) -> Result<Included> {
        let call = JobEscrow::refundCall { job: id.0.into() };
        self.call(format!("taking the rest of account {id}"), self.contracts.escrow, call).await
    }

    async fn stake(&self, amount: Amount) -> Result<Included> {
        self.pay_in(&format!("staking {amount} tokens"), amount, &PayIn::Stake).await
    }

    async fn unstake(&self, amount: Amount) -> Result<Included> {
        let call = ProviderRegistry::unstakeCall { amount: amount.0 };
        self.call(format!("unstaking {amount} tokens"), self.contracts.registry, call).await
    }

    async fn withdraw_stake(&self) -> Result<Included> {
        self.call("withdrawing stake".to_owned(), self.contracts.registry, ProviderRegistry::withdrawCall {}).await
    }

    async fn delegate(&self, node: &Address, consent: &Signature) -> Result<Included> {
        let call = ProviderRegistry::delegateCall { node: theirs(node), signature: words::signature(consent) };
        self.call(format!("delegating node {node}"), self.contracts.registry, call).await
    }

    fn consent(&self, operator: &Address) -> [u8; 32] {
        self.contracts.consent(theirs(operator))
    }

    async fn revoke(&self, node: &Address) -> Result<Included> {
        let call = ProviderRegistry::revokeCall { node: theirs(node) };
        self.call(format!("revoking node {node}"), self.contracts.registry, call).await
    }

    async fn set_payout(&self, payout: &Address) -> Result<Included> {
        let call = ProviderRegistry::setPayoutCall { payout: theirs(payout) };
        self.call(format!("naming the payout address {payout}"), self.contracts.registry, call).await
    }

    async fn prove_equivocation(&self, first: &SignedReceipt, second: &SignedReceipt) -> Result<Included> {
        let (first, second) = (words::receipt(first), words::receipt(second));
        let call = Disputes::proveEquivocationCall { first, second };
        self.call("proving an equivocation".to_owned(), self.contracts.disputes, call).await
    }

    async fn prove_bad_leaf(&self, leaf: &ClaimedLeaf, receipt: &SignedReceipt) -> Result<Included> {
        let (claim, leaf) = (words::claim(leaf), words::inclusion(leaf));
        let call = Disputes::proveBadLeafCall { claim, leaf, receipt: words::receipt(receipt) };
        self.call("proving a bad leaf".to_owned(), self.contracts.disputes, call).await
    }

    async fn prove_duplicate_claim(&self, first: &ClaimedLeaf, second: &ClaimedLeaf) -> Result<Included> {
        let call = Disputes::proveDuplicateClaimCall {
            order: first.receipt.order_hash.into(),
            first: words::claim(first),
            firstLeaf: words::inclusion(first),
            second: words::claim(second),
            secondLeaf: words::inclusion(second),
        };
        self.call("proving a duplicate claim".to_owned(), self.contracts.disputes, call).await
    }
}
