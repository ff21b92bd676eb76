//! EIP-712 typed data: what a wallet shows, a contract checks and a signature covers.
//! Source: <https://eips.ethereum.org/EIPS/eip-712>.

use serde::{Deserialize, Serialize};

use crate::identity::{Address, keccak256};

/// The domain in which orders and receipts are signed: a signature for one chain and escrow is void on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Domain {
    /// Chain id; 0 where no chain is used.
    pub chain_id: u64,
    /// The escrow contract; zero where no chain is used.
    pub escrow: Address,
}

impl Domain {
    /// `hashStruct(EIP712Domain(name "Conun", version "1", chainId, verifyingContract))`.
    #[must_use]
    pub fn separator(&self) -> [u8; 32] {
        let mut words = Words::of("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        words.bytes32(&keccak256(b"Conun"));
        words.bytes32(&keccak256(b"1"));
        words.uint(u128::from(self.chain_id));
        words.address(&self.escrow);
        words.hash()
    }

    /// The prehash that is signed: `keccak256(0x1901 || domainSeparator || hashStruct)`.
    #[must_use]
    pub fn digest(&self, struct_hash: &[u8; 32]) -> [u8; 32] {
        let mut bytes = vec![0x19, 0x01];
        bytes.extend_from_slice(&self.separator());
        bytes.extend_from_slice(struct_hash);
        keccak256(&bytes)
    }
}

/// Builds `hashStruct`: the type hash followed by the members as 32-byte words.
pub(crate) struct Words(Vec<u8>);

impl Words {
    pub(crate) fn of(encode_type: &str) -> Self {
        Self(keccak256(encode_type.as_bytes()).to_vec())
    }

    /// Words without a type hash: what `abi.encode` makes.
    pub(crate) fn empty() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn bytes32(&mut self, word: &[u8; 32]) {
        self.0.extend_from_slice(word);
    }

    pub(crate) fn uint(&mut self, value: u128) {
        self.0.extend_from_slice(&[0; 16]);
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn address(&mut self, address: &Address) {
        self.0.extend_from_slice(&[0; 12]);
        self.0.extend_from_slice(&address.0);
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        keccak256(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separator_depends_on_chain_and_escrow() {
        let here = Domain { chain_id: 1, escrow: Address([1; 20]) };
        let there = Domain { chain_id: 2, ..here };
        let other = Domain { escrow: Address([2; 20]), ..here };
        assert_ne!(here.separator(), there.separator());
        assert_ne!(here.separator(), other.separator());
        assert_ne!(here.digest(&[0; 32]), there.digest(&[0; 32]));
    }
}
