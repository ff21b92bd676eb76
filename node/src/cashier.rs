//! Work for pay: which orders are worth taking, what is claimed, when a voucher is taken to the chain.
//!
//! A node works for a coordinator as long as the account behind the orders has money for it and not too many stages are
//! unpaid: what it can lose is bounded. A voucher is as good as money while its account is open; it is redeemed where its
//! client wants the rest back, or where nobody has settled for long.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conun_types::{
    AccountId, Amount, Clock, NodeId, NodeKey, Result, SignedReceipt, TaskOffer,
    eip712::Domain,
    ledger::{Account, Earned, Ledger},
    payment::SignedClaim,
    port::OfferReply,
    wire::{Ask, Payment},
};

use crate::till::{Till, Work};

/// How long what the chain said is believed.
const BELIEVED_FOR: Duration = Duration::from_secs(5);
/// Accounts of strangers that are remembered at once.
const MAX_ACCOUNTS: usize = 1 << 12;
/// When a coordinator that still has to pay should ask again.
const RETRY_AFTER: Duration = Duration::from_millis(40);
/// How long a coordinator is waited for that has to pay: its payment may be on the way.
const PATIENCE: Duration = Duration::from_secs(10);
/// Receipts that nobody paid for so long are given up.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(30 * 86_400);

/// What a node works for.
#[derive(Clone)]
pub struct PayTerms {
    /// Where it is paid.
    pub ledger: Arc<dyn Ledger>,
    /// Least price of a work unit.
    pub price: Amount,
    /// Stages that may be unpaid before no more work is done.
    pub exposure: u32,
    /// A voucher that was not settled for so long is redeemed.
    pub redeem_after: Duration,
}

/// What the chain said of an account, and when.
#[derive(Clone, Copy)]
struct Seen {
    at: Duration,
    account: Option<Account>,
    ours: Earned,
}

pub(crate) struct Cashier {
    terms: Option<PayTerms>,
    key: NodeKey,
    clock: Arc<dyn Clock>,
    till: Mutex<Till>,
    seen: Mutex<HashMap<AccountId, Seen>>,
    /// Since when a voucher is worth more than the chain has credited.
    waiting: Mutex<HashMap<AccountId, Duration>>,
}

impl Cashier {
    /// The cashier of the node in `dir`; without terms it remembers receipts and nothing else.
    pub(crate) fn open(dir: &Path, terms: Option<PayTerms>, key: NodeKey, clock: Arc<dyn Clock>) -> Result<Self> {
        let till = match &terms {
            Some(_) => Till::open(&till_path(dir))?,
            None => Till::default(),
        };
        let (seen, waiting) = Default::default();
        Ok(Self { terms, key, clock, till: Mutex::new(till), seen, waiting })
    }

    pub(crate) fn domain(&self) -> Domain {
        self.terms.as_ref().map(|t| t.ledger.domain()).unwrap_or_default()
    }

    pub(crate) fn ask(&self) -> Option<Ask> {
        let terms = self.terms.as_ref()?;
        Some(Ask { domain: terms.ledger.domain(), price: terms.price, exposure: terms.exposure })
    }

    fn till(&self) -> MutexGuard<'_, Till> {
        self.till.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why an offer of `from`, whose order was checked, is not worth taking.
    pub(crate) async fn declines(&self, from: &NodeId, offer: &TaskOffer) -> Option<OfferReply> {
        let terms = self.terms.as_ref()?;
        let order = &offer.order.order;
        if order.price < terms.price {
            let text = format!("this node asks {} a unit, the order pays {}", terms.price, order.price);
            return Some(OfferReply::Refused(text));
        }
        let unpaid = self.till().unpaid(from);
        if unpaid.stages >= terms.exposure as usize {
            let age = self.clock.unix_seconds().saturating_sub(unpaid.since);
            return Some(match age > PATIENCE.as_secs() {
                true => OfferReply::Refused(format!("{} stages are unpaid", unpaid.stages)),
                false => OfferReply::Busy { retry_after: RETRY_AFTER },
            });
        }
        match self.look(terms, &order.account).await {
            Ok(seen) => self.cannot_pay(from, &order.account, &seen, unpaid.amount).map(OfferReply::Refused),
            Err(error) => {
                tracing::warn!(%error, "the chain cannot be asked about an account");
                Some(OfferReply::Busy { retry_after: Duration::from_secs(1) })
            }
        }
    }

    /// Why the account cannot pay for more.
    fn cannot_pay(&self, from: &NodeId, id: &AccountId, seen: &Seen, unpaid: Amount) -> Option<String> {
        let Some(account) = &seen.account else { return Some(format!("there is no account {id}")) };
        if account.refund_at != 0 {
            return Some("the account is being closed".to_owned());
        }
        let left = account.left_for(&from.address().ok()?);
        let vouched = self.till().accounts().get(id).map_or(Amount::ZERO, |a| a.voucher.voucher.cumulative);
        let owed = vouched.less(seen.ours.earned).plus(unpaid);
        (left <= owed).then(|| format!("the account has {left} left for this coordinator and owes {owed} here already"))
    }

    async fn look(&self, terms: &PayTerms, id: &AccountId) -> Result<Seen> {
        let now = self.clock.now();
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied();
        if let Some(seen) = known.filter(|seen| now.saturating_sub(seen.at) < BELIEVED_FOR) {
            return Ok(seen);
        }
        let account = terms.ledger.account(id).await?;
        let ours = terms.ledger.earned(id, &self.key.address()).await?;
        let seen = Seen { at: now, account, ours };
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_ACCOUNTS {
            all.retain(|_, seen| now.saturating_sub(seen.at) < BELIEVED_FOR);
        }
        all.insert(*id, seen);
        Ok(seen)
    }

    /// Notes a receipt before it is given away. Without a chain there is nothing to claim; it is kept for a while so that
    /// its coordinator can ask for it again.
    pub(crate) fn signed(&self, work: Work) -> Result<()> {
        let mut till = self.till();
        if self.terms.is_none() {
            till.forget(self.clock.now(), KEPT_FOR_NOTHING);
        }
        till.signed(work)
    }

    /// The receipt that was signed for an order.
    pub(crate) fn receipt(&self, coordinator: &NodeId, order_hash: &[u8; 32]) -> Option<SignedReceipt> {
        self.till().receipt(coordinator, order_hash).cloned()
    }

    /// Takes a payment and signs for it.
    pub(crate) fn pay(&self, from: NodeId, payment: Payment) -> Result<Vec<SignedClaim>> {
        if self.terms.is_none() {
            return Err(conun_types::Error::data("this node works without a chain"));
        }
        let domain = self.domain();
        let claims = self.till().pay(from, self.key.address(), &domain, payment)?;
        Ok(claims.into_iter().map(|claim| SignedClaim::sign(claim, &domain, &self.key)).collect())
    }

    /// Takes vouchers to the chain whose time has come.
    pub(crate) async fn redeem_due(&self) {
        let Some(terms) = &self.terms else { return };
        self.till().forget(self.clock.now(), GIVEN_UP_AFTER);
        let accounts: Vec<_> = self.till().accounts().iter().map(|(id, a)| (*id, a.voucher.clone())).collect();
        for (id, voucher) in accounts {
            let Ok(seen) = self.look(terms, &id).await else { continue };
            if !self.is_due(terms, &id, &seen, voucher.voucher.cumulative) {
                continue;
            }
            match terms.ledger.redeem(&voucher).await {
                Ok(included) => tracing::info!(account = %id, gas = included.gas, "a voucher was redeemed"),
                Err(error) => tracing::warn!(account = %id, %error, "a voucher could not be redeemed"),
            }
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
    }

    /// Whether a voucher that is worth `cumulative` should be redeemed now.
    fn is_due(&self, terms: &PayTerms, id: &AccountId, seen: &Seen, cumulative: Amount) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if cumulative <= seen.ours.earned {
            waiting.remove(id);
            return false;
        }
        let now = self.clock.now();
        let since = *waiting.entry(*id).or_insert(now);
        let closing = seen.account.is_some_and(|account| account.refund_at != 0);
        closing || now.saturating_sub(since) >= terms.redeem_after
    }
}

/// How long a node without a chain remembers a receipt.
const KEPT_FOR_NOTHING: Duration = Duration::from_secs(600);

/// The journal of a node's till.
#[must_use]
pub fn till_path(dir: &Path) -> std::path::PathBuf {
    dir.join("earnings.log")
}
