//! Puts the contracts on a chain: the token, the registry, the escrow, the disputes, in four transactions of one key. They
//! name each other, so that the addresses of the later ones are computed before they exist.

use alloy::{
    primitives::{Address, Bytes, TxKind, U256},
    sol_types::SolConstructor,
};
use conun_types::{
    amount::Amount,
    error::{Error, Result},
    identity::{self, NodeKey},
};
use serde::{Deserialize, Serialize};

use crate::{
    bindings::{ConunToken, Disputes, JobEscrow, ProviderRegistry},
    config::ChainConfig,
    contracts::{Contracts, check_chain, ours, theirs},
    ledger::default_confirmations,
    link::Link,
    outbox::{Order, Outbox},
};

/// Where the contracts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The chain.
    pub chain_id: u64,
    /// The token of deposits and stakes.
    pub token: identity::Address,
    /// Operators, nodes, stakes.
    pub registry: identity::Address,
    /// Deposits: the one address that a connection needs.
    pub escrow: identity::Address,
    /// Offences.
    pub disputes: identity::Address,
    /// A block before which there are no events of theirs.
    #[serde(default)]
    pub since: u64,
}

impl Deployment {
    pub(crate) fn of(contracts: &Contracts, since: u64) -> Self {
        Self {
            chain_id: contracts.chain_id,
            token: ours(contracts.token),
            registry: ours(contracts.registry),
            escrow: ours(contracts.escrow),
            disputes: ours(contracts.disputes),
            since,
        }
    }
}

/// Who deploys, and what cannot be changed afterwards.
pub(crate) struct Terms {
    pub(crate) deployer: Address,
    /// The deployer's next nonce.
    pub(crate) nonce: u64,
    pub(crate) supply: Amount,
    pub(crate) penalty: Amount,
    pub(crate) owner: Address,
}

impl Terms {
    /// Where the contracts will be.
    pub(crate) fn contracts(&self, chain_id: u64) -> Contracts {
        let at = |n| self.deployer.create(self.nonce + n);
        Contracts { chain_id, token: at(0), registry: at(1), escrow: at(2), disputes: at(3) }
    }

    /// What creates them, in order.
    pub(crate) fn codes(&self) -> Vec<(&'static str, Bytes)> {
        let at = self.contracts(0);
        let (supply, penalty_) = (U256::from(self.supply.0), U256::from(self.penalty.0));
        let token = ConunToken::constructorCall { holder: self.deployer, supply };
        let registry =
            ProviderRegistry::constructorCall { token_: at.token, escrow_: at.escrow, disputes_: at.disputes };
        let escrow = JobEscrow::constructorCall { token_: at.token, registry_: at.registry, owner_: self.owner };
        let disputes = Disputes::constructorCall { escrow_: at.escrow, penalty_ };
        vec![
            ("token", code(&ConunToken::BYTECODE, &token)),
            ("registry", code(&ProviderRegistry::BYTECODE, &registry)),
            ("escrow", code(&JobEscrow::BYTECODE, &escrow)),
            ("disputes", code(&Disputes::BYTECODE, &disputes)),
        ]
    }
}

fn code(bytecode: &Bytes, constructor: &impl SolConstructor) -> Bytes {
    [bytecode.as_ref(), &constructor.abi_encode()].concat().into()
}

/// Puts the contracts on a chain. The deployer gets all `supply` tokens; an offence costs `penalty`; `owner` may pause new
/// accounts and nothing else.
///
/// # Errors
/// Budget where the deployer cannot pay for gas; Unavailable where the chain cannot be reached.
pub async fn deploy(
    config: &ChainConfig,
    deployer: &NodeKey,
    supply: Amount,
    penalty: Amount,
    owner: identity::Address,
) -> Result<Deployment> {
    let link = Link::open(config).await?;
    let chain_id = check_chain(&link, config).await?;
    let doing = |trouble: crate::link::Trouble| trouble.while_doing("deploying");
    let since = link.head().await.map_err(doing)?;
    let nonce = link.next_nonce(theirs(&deployer.address())).await.map_err(doing)?;
    let terms = Terms { deployer: theirs(&deployer.address()), nonce, supply, penalty, owner: theirs(&owner) };
    let confirmations = config.confirmations.unwrap_or_else(|| default_confirmations(config, chain_id));
    let outbox = Outbox::new(link.clone(), deployer, chain_id, confirmations, config.patience)?;
    for (name, data) in terms.codes() {
        let what = format!("deploying the {name}");
        outbox.send(&Order { what, to: TxKind::Create, value: U256::ZERO, data }).await?;
    }
    let contracts = terms.contracts(chain_id);
    let found = Contracts::find(&link, chain_id, contracts.escrow).await;
    if found.as_ref().ok() != Some(&contracts) {
        return Err(Error::unavailable("the contracts are not where they should be")
            .with_hint("another process used the deployer's key meanwhile; try again"));
    }
    Ok(Deployment::of(&contracts, since))
}
