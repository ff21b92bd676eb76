//! Which contracts are meant: found from the escrow's address, and checked to be ours before anything is signed for them.

use alloy::{
    primitives::{Address, B256, keccak256},
    sol_types::SolValue,
};
use conun_types::{
    eip712::Domain,
    error::{Error, Result},
    identity,
};

use crate::{
    bindings::{Disputes, JobEscrow, ProviderRegistry},
    config::{Backend, ChainConfig},
    dev,
    link::Link,
};

/// Addresses of the contracts on one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contracts {
    pub(crate) chain_id: u64,
    pub(crate) token: Address,
    pub(crate) registry: Address,
    pub(crate) escrow: Address,
    pub(crate) disputes: Address,
}

/// As our types have it.
pub(crate) fn ours(address: Address) -> identity::Address {
    identity::Address(address.into())
}

/// As alloy has it.
pub(crate) fn theirs(address: &identity::Address) -> Address {
    address.0.into()
}

/// The chain's id, where it is the one that is asked for.
pub(crate) async fn check_chain(link: &Link, config: &ChainConfig) -> Result<u64> {
    let id = link.chain_id().await.map_err(|t| t.while_doing("connecting"))?;
    match config.chain_id {
        Some(wanted) if wanted != id => Err(Error::usage(format!("{} is chain {id}, not chain {wanted}", link.name()))
            .with_hint("name the RPC URL of the chain that the escrow is on")),
        _ => Ok(id),
    }
}

/// The escrow's address.
pub(crate) fn escrow_of(config: &ChainConfig) -> Result<Address> {
    match (&config.escrow, &config.backend) {
        (Some(escrow), _) => Ok(theirs(escrow)),
        (None, Backend::Embedded(_)) => Ok(dev::contracts()?.escrow),
        (None, Backend::Rpc(_)) => Err(Error::usage("the escrow's address is missing")
            .with_hint("name the contract that deposits are in; `conun chain deploy` prints it")),
    }
}

impl Contracts {
    /// Finds the contracts behind an escrow.
    ///
    /// # Errors
    /// Usage where there is no such contract, or it is not our code.
    pub(crate) async fn find(link: &Link, chain_id: u64, escrow: Address) -> Result<Self> {
        let doing = |trouble: crate::link::Trouble| trouble.while_doing("connecting");
        if link.code(escrow).await.map_err(doing)?.is_empty() {
            return Err(Error::usage(format!("there is no contract at {escrow:#x} on chain {chain_id}"))
                .with_hint("is it the escrow's address, and of this chain?"));
        }
        let found = Self::read(link, chain_id, escrow).await;
        found.map_err(|error| match error.kind {
            conun_types::ErrorKind::Unavailable if error.message.contains("cannot be reached") => error,
            _ => Error::usage(format!("the contract at {escrow:#x} is not conun's escrow, or another version of it"))
                .with_hint(error.message),
        })
    }

    async fn read(link: &Link, chain_id: u64, escrow: Address) -> Result<Self> {
        let doing = |trouble: crate::link::Trouble| trouble.while_doing("reading the contracts");
        let token = link.view(escrow, &JobEscrow::tokenCall {}, None).await.map_err(doing)?;
        let registry = link.view(escrow, &JobEscrow::registryCall {}, None).await.map_err(doing)?;
        let separator = link.view(escrow, &JobEscrow::domainSeparatorCall {}, None).await.map_err(doing)?;
        let disputes = link.view(registry, &ProviderRegistry::disputesCall {}, None).await.map_err(doing)?;
        let of_registry = link.view(registry, &ProviderRegistry::escrowCall {}, None).await.map_err(doing)?;
        let of_disputes = link.view(disputes, &Disputes::escrowCall {}, None).await.map_err(doing)?;
        link.view(escrow, &JobEscrow::CHALLENGE_WINDOWCall {}, None).await.map_err(doing)?;
        let contracts = Self { chain_id, token, registry, escrow, disputes };
        if separator.0 != contracts.domain().separator() {
            return Err(Error::data("it signs in another domain"));
        }
        if of_registry != escrow || of_disputes != escrow {
            return Err(Error::data("its registry and its disputes belong to another escrow"));
        }
        Ok(contracts)
    }

    /// The domain in which everything but consents is signed.
    pub(crate) fn domain(&self) -> Domain {
        Domain { chain_id: self.chain_id, escrow: ours(self.escrow) }
    }

    /// What a node signs so that `operator` may make it its own: in the registry's domain.
    pub(crate) fn consent(&self, operator: Address) -> [u8; 32] {
        let words = (keccak256("Consent(address operator)"), operator).abi_encode();
        Domain { chain_id: self.chain_id, escrow: ours(self.registry) }.digest(&keccak256(words).0)
    }
}

/// What the token's holder signs so that `spender` may take `value` (EIP-2612).
pub(crate) fn permit(separator: B256, holder: Address, spender: Address, value: u128, nonce: u64, until: u64) -> B256 {
    let kind = keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
    let number = |n: u128| alloy::primitives::U256::from(n);
    let words = (kind, holder, spender, number(value), number(nonce.into()), number(until.into())).abi_encode();
    keccak256([&[0x19, 0x01], separator.as_slice(), keccak256(words).as_slice()].concat())
}
