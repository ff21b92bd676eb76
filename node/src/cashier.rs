//! Work for pay: which orders are worth taking, what is claimed, when a voucher is taken to the chain.
//!
//! A node works for a coordinator as long as the account behind the orders has money for it and not too many stages are
//! unpaid: what it can lose is bounded. A voucher is as good as money while its account is open; it is redeemed where its
//! client wants the rest back, or where nobody has settled for long.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conun_types::{
    AccountId, Amount, Clock, Error, NodeId, NodeKey, Result, SignedReceipt, TaskOffer, WorkUnits,
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
/// How long a voucher is left alone that could not be redeemed.
const REDEEM_PAUSE: Duration = Duration::from_secs(600);
/// Fewer units than these are not worth a transaction.
const DUST: WorkUnits = WorkUnits(100);
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
    /// The last receipts of a node without a chain.
    recent: Mutex<VecDeque<(NodeId, SignedReceipt)>>,
    asking: tokio::sync::Mutex<()>,
    /// Until when vouchers are left alone.
    paused: Mutex<HashMap<AccountId, Duration>>,
}

impl Cashier {
    /// The cashier of the node in `dir`; without terms it remembers receipts and nothing else.
    pub(crate) fn open(dir: &Path, terms: Option<PayTerms>, key: NodeKey, clock: Arc<dyn Clock>) -> Result<Self> {
        let till = match &terms {
            Some(_) => Till::open(&till_path(dir))?,
            None => Till::default(),
        };
        let (seen, waiting, recent, asking, paused) = Default::default();
        Ok(Self { terms, key, clock, till: Mutex::new(till), seen, waiting, recent, asking, paused })
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
        let now = self.clock.unix_seconds();
        let (unpaid, dealings) = {
            let till = self.till();
            (till.unpaid(from, now), till.dealings(from))
        };
        if dealings.is_bad() {
            let text = format!("{} receipts of this node were refused, {} paid", dealings.refused, dealings.paid);
            return Some(OfferReply::Refused(text));
        }
        if unpaid.stages >= terms.exposure as usize {
            let age = now.saturating_sub(unpaid.since);
            return Some(match age > PATIENCE.as_secs() {
                true => OfferReply::Refused(format!("{} stages are unpaid", unpaid.stages)),
                false => OfferReply::Busy { retry_after: RETRY_AFTER },
            });
        }
        match self.look(terms, &order.account).await {
            Ok(seen) => {
                let reason = self.cannot_pay(from, &order.account, &seen, unpaid.amount)?;
                // It may have been filled since the chain was asked: soon we will know.
                let stale = self.clock.now().saturating_sub(seen.at) > Duration::from_millis(500);
                Some(match stale {
                    true => {
                        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(&order.account);
                        OfferReply::Busy { retry_after: RETRY_AFTER }
                    }
                    false => OfferReply::Refused(reason),
                })
            }
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
        let owed = self.vouched(id).less(seen.ours.earned).plus(unpaid);
        (left <= owed).then(|| format!("the account has {left} left for this coordinator and owes {owed} here already"))
    }

    /// What the vouchers of an account are worth.
    fn vouched(&self, id: &AccountId) -> Amount {
        self.till().accounts().get(id).map_or(Amount::ZERO, |a| a.voucher.voucher.cumulative)
    }

    async fn look(&self, terms: &PayTerms, id: &AccountId) -> Result<Seen> {
        if let Some(seen) = self.believed(id) {
            return Ok(seen);
        }
        // One question at a time, whoever asks: strangers must not make this node flood its chain.
        let _one = self.asking.lock().await;
        if let Some(seen) = self.believed(id) {
            return Ok(seen);
        }
        let now = self.clock.now();
        let account = terms.ledger.account(id).await?;
        let ours = terms.ledger.earned(id, &self.key.address()).await?;
        let seen = Seen { at: now, account, ours };
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_ACCOUNTS {
            all.clear();
        }
        all.insert(*id, seen);
        Ok(seen)
    }

    fn believed(&self, id: &AccountId) -> Option<Seen> {
        let now = self.clock.now();
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied();
        known.filter(|seen| now.saturating_sub(seen.at) < BELIEVED_FOR)
    }

    /// Notes a receipt before it is given away. Without a chain there is nothing to claim; the last ones are kept so that
    /// their coordinators can ask for them again.
    pub(crate) fn signed(&self, work: Work) -> Result<()> {
        if self.terms.is_some() {
            return self.till().signed(work);
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= KEPT_FOR_NOTHING {
            recent.pop_front();
        }
        recent.push_back((work.coordinator, work.receipt));
        Ok(())
    }

    /// The receipt that was signed for an order.
    pub(crate) fn receipt(&self, coordinator: &NodeId, order_hash: &[u8; 32]) -> Option<SignedReceipt> {
        if self.terms.is_some() {
            return self.till().receipt(coordinator, order_hash).cloned();
        }
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let found = recent.iter().find(|(from, r)| from == coordinator && r.receipt.order_hash == *order_hash);
        found.map(|(_, receipt)| receipt.clone())
    }

    /// Takes a payment and signs for it.
    pub(crate) async fn pay(&self, from: NodeId, payment: Payment) -> Result<Vec<SignedClaim>> {
        let Some(terms) = &self.terms else {
            return Err(Error::data("this node works without a chain"));
        };
        if let Ok(seen) = self.look(terms, &payment.account).await {
            let left = from.address().map_or(Amount::ZERO, |a| seen.account.map_or(Amount::ZERO, |s| s.left_for(&a)));
            // What it says about the past may be older than what was settled since.
            if payment.voucher.voucher.cumulative > left.plus(seen.ours.earned).plus(self.vouched(&payment.account)) {
                return Err(Error::data("payment: the account does not have that much"));
            }
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
                Err(error) => {
                    tracing::warn!(account = %id, %error, "a voucher could not be redeemed");
                    let later = self.clock.now() + REDEEM_PAUSE;
                    self.paused.lock().unwrap_or_else(PoisonError::into_inner).insert(id, later);
                }
            }
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
    }

    /// Whether a voucher that is worth `cumulative` should be redeemed now.
    fn is_due(&self, terms: &PayTerms, id: &AccountId, seen: &Seen, cumulative: Amount) -> bool {
        let pause = self.paused.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied();
        if pause.is_some_and(|until| self.clock.now() < until) {
            return false;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Dust is not worth the gas.
        let dust = terms.price.times(DUST);
        if cumulative <= seen.ours.earned.plus(dust) {
            waiting.remove(id);
            return false;
        }
        let now = self.clock.now();
        let since = *waiting.entry(*id).or_insert(now);
        let closing = seen.account.is_some_and(|account| account.refund_at != 0);
        closing || now.saturating_sub(since) >= terms.redeem_after
    }
}

/// Receipts that a node without a chain remembers.
const KEPT_FOR_NOTHING: usize = 4096;

/// The journal of a node's till.
#[must_use]
pub fn till_path(dir: &Path) -> std::path::PathBuf {
    dir.join("earnings.log")
}
