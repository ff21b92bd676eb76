//! Merkle-sum trees: a root that commits to leaves, to their number and to their sum.
//!
//! Each node carries the sum of what is below it, and the hash of a node covers the sums of its children: who shows a leaf
//! and its siblings has shown the total, too (H. Tomescu and others call it a summation tree; proofs of reserves use it).
//! `contracts/src/MerkleSum.sol` computes the same:
//!
//! ```text
//! leaf  = keccak256(0x00 || item || sum)           sum is a big-endian uint128
//! inner = keccak256(0x01 || left || left.sum || right || right.sum)
//! root  = keccak256(0x02 || top || top.sum || uint32 count)
//! ```
//!
//! The last node of a level of odd width moves up unchanged. The root of no leaves is zero.

use crate::{
    error::{Error, Result},
    identity::keccak256,
};

/// Most leaves of a tree: the number is a `uint32` on the chain, and nobody proves more in one batch.
pub const MAX_LEAVES: usize = 1 << 24;

/// A node of a tree, or a leaf's item with its sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SumNode {
    /// Hash of a node, or what a leaf stands for.
    pub hash: [u8; 32],
    /// Sum of all leaves below.
    pub sum: u128,
}

impl SumNode {
    fn leaf(item: &[u8; 32], sum: u128) -> Self {
        let mut bytes = vec![0];
        bytes.extend_from_slice(item);
        bytes.extend_from_slice(&sum.to_be_bytes());
        Self { hash: keccak256(&bytes), sum }
    }

    fn inner(left: &Self, right: &Self) -> Result<Self> {
        let sum = left.sum.checked_add(right.sum).ok_or_else(|| Error::data("the sum of the leaves is too large"))?;
        let mut bytes = vec![1];
        for child in [left, right] {
            bytes.extend_from_slice(&child.hash);
            bytes.extend_from_slice(&child.sum.to_be_bytes());
        }
        Ok(Self { hash: keccak256(&bytes), sum })
    }

    fn root(&self, count: u32) -> [u8; 32] {
        let mut bytes = vec![2];
        bytes.extend_from_slice(&self.hash);
        bytes.extend_from_slice(&self.sum.to_be_bytes());
        bytes.extend_from_slice(&count.to_be_bytes());
        keccak256(&bytes)
    }
}

/// A tree with all its levels.
#[derive(Debug, Clone)]
pub struct MerkleSum {
    /// From the leaves to the top.
    levels: Vec<Vec<SumNode>>,
    count: u32,
}

/// Shows that a leaf is in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumProof {
    /// Position of the leaf.
    pub index: u32,
    /// Siblings on the way up, the lowest first; levels at which the node moves up unchanged have none.
    pub siblings: Vec<SumNode>,
}

impl MerkleSum {
    /// The tree over `leaves`: an item and its sum each.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where there are too many leaves, or their sum is beyond `u128`.
    pub fn of(leaves: &[([u8; 32], u128)]) -> Result<Self> {
        if leaves.len() > MAX_LEAVES {
            return Err(Error::data(format!("{} leaves in one tree, the limit is {MAX_LEAVES}", leaves.len())));
        }
        let mut levels = vec![leaves.iter().map(|(item, sum)| SumNode::leaf(item, *sum)).collect::<Vec<_>>()];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            levels.push(parents(level)?);
        }
        Ok(Self { levels, count: leaves.len() as u32 })
    }

    fn top(&self) -> Option<&SumNode> {
        self.levels.last().and_then(|level| level.first())
    }

    /// The root; zero where there are no leaves.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        self.top().map_or([0; 32], |top| top.root(self.count))
    }

    /// Sum of all leaves.
    #[must_use]
    pub fn total(&self) -> u128 {
        self.top().map_or(0, |top| top.sum)
    }

    /// The proof of the leaf at `index`, if there is one.
    #[must_use]
    pub fn proof(&self, index: u32) -> Option<SumProof> {
        if index >= self.count {
            return None;
        }
        let mut at = index as usize;
        let mut siblings = Vec::new();
        for level in &self.levels {
            siblings.extend(level.get(at ^ 1));
            at /= 2;
        }
        Some(SumProof { index, siblings })
    }
}

fn parents(level: &[SumNode]) -> Result<Vec<SumNode>> {
    level
        .chunks(2)
        .map(|pair| match pair {
            [left, right] => SumNode::inner(left, right),
            // A level's chunks have one node or two.
            rest => Ok(rest[0]),
        })
        .collect()
}

impl SumProof {
    /// The root of a tree of `count` leaves with `total` in which `item` with `sum` stands at this proof's index, where
    /// there is such a tree.
    #[must_use]
    pub fn root(&self, item: &[u8; 32], sum: u128, count: u32, total: u128) -> Option<[u8; 32]> {
        if self.index >= count {
            return None;
        }
        let (mut node, mut at, mut width) = (SumNode::leaf(item, sum), self.index, count);
        let mut siblings = self.siblings.iter();
        while width > 1 {
            if at ^ 1 < width {
                let sibling = siblings.next()?;
                let (left, right) = if at % 2 == 0 { (&node, sibling) } else { (sibling, &node) };
                node = SumNode::inner(left, right).ok()?;
            }
            (at, width) = (at / 2, width.div_ceil(2));
        }
        (siblings.next().is_none() && node.sum == total).then(|| node.root(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(n: u8) -> Vec<([u8; 32], u128)> {
        (0..n).map(|i| ([i; 32], u128::from(i) + 1)).collect()
    }

    #[test]
    fn every_leaf_is_proven_and_nothing_else() -> Result<()> {
        for n in 1..20u8 {
            let leaves = leaves(n);
            let tree = MerkleSum::of(&leaves)?;
            let count = u32::from(n);
            assert_eq!(tree.total(), leaves.iter().map(|l| l.1).sum::<u128>());
            for (i, (item, sum)) in leaves.iter().enumerate() {
                let proof = tree.proof(i as u32).ok_or_else(|| Error::internal("no proof"))?;
                let total = tree.total();
                assert_eq!(proof.root(item, *sum, count, total), Some(tree.root()), "{i} of {n}");
                assert_ne!(proof.root(item, sum + 1, count, total + 1), Some(tree.root()), "another sum");
                assert_eq!(proof.root(item, *sum, count, total + 1), None, "another total");
                assert_ne!(proof.root(&[99; 32], *sum, count, total), Some(tree.root()), "another item");
                let elsewhere = SumProof { index: (i as u32 + 1) % count, ..proof.clone() };
                assert!(n == 1 || elsewhere.root(item, *sum, count, total) != Some(tree.root()), "another place");
                let mut longer = proof.clone();
                longer.siblings.push(SumNode { hash: [0; 32], sum: 0 });
                assert_eq!(longer.root(item, *sum, count, total), None, "leftovers");
            }
            assert!(tree.proof(count).is_none());
        }
        Ok(())
    }

    #[test]
    fn roots_bind_number_and_order() -> Result<()> {
        assert_eq!(MerkleSum::of(&[])?.root(), [0; 32]);
        let roots: std::collections::BTreeSet<_> =
            (1..20).map(|n| MerkleSum::of(&leaves(n)).map(|t| t.root())).collect::<Result<_>>()?;
        assert_eq!(roots.len(), 19);
        let mut swapped = leaves(3);
        swapped.swap(0, 2);
        assert_ne!(MerkleSum::of(&swapped)?.root(), MerkleSum::of(&leaves(3))?.root());
        assert!(MerkleSum::of(&[([0; 32], u128::MAX), ([1; 32], 1)]).is_err(), "sums do not wrap");
        Ok(())
    }
}
