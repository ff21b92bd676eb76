//! Hands out vouchers: for each node that something is owed to, a payment that it signs for.

use std::{sync::Weak, time::Duration};

use conun_types::{
    Error, NodeId, PeerAddr, Result, SignedVoucher, Voucher,
    payment::{SignedClaim, StageClaim},
    wire::{ControlReply, ControlRequest, MAX_LIST, Payment, Penalty, StagePay},
};
use futures::{StreamExt, stream};

use super::{Payments, book::Told};

/// Nodes that could not be paid are tried again after so long.
const AGAIN: Duration = Duration::from_secs(2);
/// How long a node may take to sign.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nodes that are paid at once.
const AT_ONCE: usize = 16;
/// Receipts in one payment: well below what a message holds.
const MOST_RECEIPTS: usize = MAX_LIST / 8;

/// Pays as long as the office exists.
pub(super) async fn run(payments: Weak<Payments>) {
    loop {
        {
            let Some(office) = payments.upgrade() else { return };
            let _ = tokio::time::timeout(AGAIN, office.wake.notified()).await;
        }
        let Some(office) = payments.upgrade() else { return };
        let unsigned = office.book().unsigned();
        let peers = office.network.volunteers().into_iter().map(|(peer, _)| peer);
        let payees: Vec<PeerAddr> = peers.filter(|peer| unsigned.contains(&peer.id)).collect();
        let paid = stream::iter(payees).map(|peer| {
            let office = &office;
            async move {
                if let Err(error) = office.pay(&peer).await {
                    tracing::debug!(node = %peer.id, %error, "a node could not be paid now");
                }
            }
        });
        paid.buffer_unordered(AT_ONCE).collect::<()>().await;
    }
}

impl Payments {
    /// Gives one node its voucher, and takes its claims.
    async fn pay(&self, peer: &PeerAddr) -> Result<()> {
        let told = self.told(&peer.id);
        match self.hand_over(peer, &told.0, told.1).await? {
            ControlReply::Claims(claims) => {
                let claims = self.checked(&peer.id, &told.0.stages, claims)?;
                self.book().vouched(peer.id, told.0, claims)
            }
            // The answer to an earlier payment was lost, or the node lost its till: it has the money all the same.
            ControlReply::Refused(error) => {
                tracing::warn!(node = %peer.id, %error, "a node does not sign for its pay: it gets a voucher without");
                let bare = Told { stages: Vec::new(), penalties: 0, ..told.0.clone() };
                match self.hand_over(peer, &bare, Vec::new()).await? {
                    ControlReply::Claims(_) => {
                        self.book().vouched(peer.id, Told { penalties: 0, ..told.0 }, Vec::new())
                    }
                    _ => Err(error),
                }
            }
            _ => Err(Error::data("the node answered something else")),
        }
    }

    /// What a node is told next: as much as one message holds.
    fn told(&self, node: &NodeId) -> (Told, Vec<Penalty>) {
        let owing = self.book().owing(node);
        let (mut stages, mut left, mut later) = (Vec::new(), MOST_RECEIPTS, conun_types::Amount::ZERO);
        for mut stage in owing.stages {
            let rest = stage.receipts.split_off(stage.receipts.len().min(left));
            let units = rest.iter().fold(0u64, |sum, r| sum.saturating_add(r.units.0));
            later = later.plus(stage.price.times(conun_types::WorkUnits(units)));
            left -= stage.receipts.len();
            if !stage.receipts.is_empty() {
                stages.push(stage);
            }
        }
        let penalties: Vec<Penalty> = owing.penalties.into_iter().take(MOST_RECEIPTS).collect();
        let cumulative = owing.cumulative.less(later);
        let ended = owing.ended.into_iter().take(MOST_RECEIPTS).collect();
        (Told { cumulative, stages, penalties: penalties.len() as u64, ended }, penalties)
    }

    async fn hand_over(&self, peer: &PeerAddr, told: &Told, penalties: Vec<Penalty>) -> Result<ControlReply> {
        let account = self.config.account;
        let voucher = Voucher { account, provider: peer.id.address()?, cumulative: told.cumulative };
        let voucher = SignedVoucher::sign(voucher, &self.domain(), &self.key);
        let (stages, ended) = (told.stages.clone(), told.ended.clone());
        let payment = Payment { account, voucher, stages, penalties, ended };
        let reply = self.network.control(peer, ControlRequest::Pay(Box::new(payment)));
        let late = |_| Error::unavailable(format!("{} did not sign for its pay in time", peer.id));
        Ok(tokio::time::timeout(PATIENCE, reply).await.map_err(late)??)
    }

    /// The claims, if the node signed exactly what it was told.
    fn checked(&self, node: &NodeId, stages: &[StagePay], claims: Vec<SignedClaim>) -> Result<Vec<SignedClaim>> {
        if claims.len() != stages.len() {
            return Err(Error::data(format!("{node} signs {} claims for {} stages", claims.len(), stages.len())));
        }
        for (stage, signed) in stages.iter().zip(&claims) {
            let place = (stage.job, stage.stage);
            let expected = StageClaim::of(self.config.account, place, node.address()?, stage.price, &stage.receipts)?;
            if signed.claim != expected {
                return Err(Error::data(format!("{node} claims something else than it was told")));
            }
            signed.check(node, &self.domain())?;
        }
        Ok(claims)
    }
}
