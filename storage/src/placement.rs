//! Where the shards of a group go: pure decisions over what nodes said of themselves.
//!
//! Members of a group lie on distinct operators (without a chain, an operator is a node), so that one loss costs a
//! group one member. Data shards are spread first, because scans run where they are; then bytes. Ties fall at random.

use conun_types::{Error, NodeId, Result, Rng};

use crate::erasure::CodeSpec;

/// A node that can take shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub id: NodeId,
    /// Bytes it lends.
    pub quota: u64,
    /// Bytes in use.
    pub used: u64,
}

#[derive(Debug)]
struct Node {
    candidate: Candidate,
    /// Bytes of data shards that this placer gave it.
    data: u64,
    usable: bool,
    tie: u64,
}

impl Node {
    fn free(&self) -> u64 {
        self.candidate.quota.saturating_sub(self.candidate.used)
    }

    /// How full it is, in millionths.
    fn fill(&self) -> u64 {
        let quota = self.candidate.quota.max(1);
        (u128::from(self.candidate.used) * 1_000_000 / u128::from(quota)) as u64
    }
}

/// What a shard is to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A data shard.
    Data,
    /// A parity shard.
    Parity,
}

/// Places the groups of one table, remembering what it placed.
pub struct Placer {
    nodes: Vec<Node>,
}

impl Placer {
    /// A placer over `candidates`; `rng` settles ties.
    #[must_use]
    pub fn new(candidates: &[Candidate], rng: &dyn Rng) -> Self {
        let nodes = candidates.iter().map(|candidate| {
            let mut tie = [0u8; 8];
            rng.fill(&mut tie);
            Node { candidate: *candidate, data: 0, usable: true, tie: u64::from_le_bytes(tie) }
        });
        Self { nodes: nodes.collect() }
    }

    /// Indexes of distinct nodes for the members of a group, in their order.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Unavailable`] where too few nodes are usable or have room.
    pub fn place(&mut self, members: &[(Role, u64)]) -> Result<Vec<usize>> {
        let mut taken = Vec::with_capacity(members.len());
        for (role, len) in members {
            match self.pick(&taken, *role, *len) {
                Some(index) => taken.push(index),
                None => {
                    let error = self.too_few(members);
                    self.undo(&taken, members);
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    /// Another node than those in `taken` for a member, after a node failed; none where there is none.
    pub fn pick(&mut self, taken: &[usize], role: Role, len: u64) -> Option<usize> {
        let free = self.nodes.iter().enumerate().filter(|(i, n)| n.usable && n.free() >= len && !taken.contains(i));
        let (index, _) = free.min_by_key(|(_, node)| match role {
            Role::Data => (node.data, node.fill(), node.tie),
            Role::Parity => (node.fill(), node.data, node.tie),
        })?;
        let node = &mut self.nodes[index];
        node.candidate.used = node.candidate.used.saturating_add(len);
        node.data += if role == Role::Data { len } else { 0 };
        Some(index)
    }

    fn undo(&mut self, taken: &[usize], members: &[(Role, u64)]) {
        for (index, (role, len)) in taken.iter().zip(members) {
            let node = &mut self.nodes[*index];
            node.candidate.used = node.candidate.used.saturating_sub(*len);
            node.data -= if *role == Role::Data { *len } else { 0 };
        }
    }

    /// Gives the node no more shards: it failed.
    pub fn exclude(&mut self, index: usize) {
        if let Some(node) = self.nodes.get_mut(index) {
            node.usable = false;
        }
    }

    fn too_few(&self, members: &[(Role, u64)]) -> Error {
        let usable = self.nodes.iter().filter(|node| node.usable);
        let need = members.len();
        if usable.clone().count() < need {
            return Error::unavailable(format!("a group needs {need} nodes, {} can take shards", usable.count()))
                .with_hint("start more nodes, or put with a smaller --code");
        }
        let most = members.iter().map(|(_, len)| *len).max().unwrap_or_default();
        let roomy = usable.filter(|node| node.free() >= most).count();
        Error::unavailable(format!("a group needs {need} nodes with {most} bytes of room, {roomy} have it"))
            .with_hint("remove tables, or lend more with conun node --store")
    }
}

/// Checks that `nodes` volunteers can hold a table under `code`; returns what its owner should know.
///
/// # Errors
/// [`conun_types::ErrorKind::Unavailable`] where there are too few for a full group.
pub fn check_code(code: CodeSpec, nodes: usize) -> Result<Option<String>> {
    if nodes == 0 {
        return Err(
            Error::unavailable("no volunteer is connected").with_hint("start nodes, or wait until they are found")
        );
    }
    if code.parity == 0 {
        return Ok(Some("stored without redundancy: the loss of one node loses rows".to_owned()));
    }
    if code.members() > nodes {
        let fitting = CodeSpec::default_for(nodes);
        return Err(Error::unavailable(format!("code {code} needs {} nodes, {nodes} are connected", code.members()))
            .with_hint(format!("start more nodes, or use --code {fitting}")));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::testing::{SeededRng, node};

    fn candidates(n: u64, quota: u64) -> Vec<Candidate> {
        (0..n).map(|i| Candidate { id: node(i), quota, used: 0 }).collect()
    }

    fn group(k: usize, m: usize, len: u64) -> Vec<(Role, u64)> {
        [vec![(Role::Data, len); k], vec![(Role::Parity, len); m]].concat()
    }

    #[test]
    fn members_lie_apart_and_load_is_even() {
        for (nodes, k, m) in [(6, 4, 2), (10, 4, 2), (12, 4, 8), (3, 1, 2)] {
            let mut placer = Placer::new(&candidates(nodes, 1 << 30), &SeededRng::new(7));
            let (mut data, mut all) = (vec![0; nodes as usize], vec![0; nodes as usize]);
            for _ in 0..60 {
                let placed = placer.place(&group(k, m, 1000)).unwrap();
                assert_eq!(placed.iter().collect::<HashSet<_>>().len(), k + m);
                placed.iter().for_each(|i| all[*i] += 1);
                placed[..k].iter().for_each(|i| data[*i] += 1);
            }
            for counts in [data, all] {
                let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                assert!(most - least <= 2, "{nodes} nodes {k}+{m}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_seed_replays_and_another_differs() {
        let run = |seed| {
            let mut placer = Placer::new(&candidates(20, 1 << 30), &SeededRng::new(seed));
            (0..5).map(|_| placer.place(&group(4, 2, 10)).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn full_nodes_are_passed_over_and_too_few_are_told() {
        let mut nodes = candidates(4, 1000);
        nodes[2].used = 950;
        let mut placer = Placer::new(&nodes, &SeededRng::new(1));
        let placed = placer.place(&group(2, 1, 100)).unwrap();
        assert!(!placed.contains(&2));
        let error = placer.place(&group(2, 2, 100)).unwrap_err();
        assert!(error.message.contains("4 nodes with 100 bytes of room, 3 have it"), "{error}");
        let error = placer.place(&group(4, 2, 1)).unwrap_err();
        assert!(error.message.contains("needs 6 nodes, 4 can"), "{error}");
        placer.exclude(placed[0]);
        assert_eq!(placer.pick(&[placed[1], placed[2]], Role::Data, 100), None);
        assert_eq!(placer.pick(&[placed[1], placed[2]], Role::Data, 10), Some(2));
        assert!(placer.place(&group(9, 9, 900)).is_err());
        assert!(placer.place(&group(1, 1, 800)).is_ok(), "a failed placement leaves no trace");
    }

    #[test]
    fn codes_fit_networks_or_say_what_to_do() {
        let code = |text: &str| text.parse::<CodeSpec>().unwrap();
        assert!(check_code(code("none"), 0).is_err());
        assert!(check_code(code("none"), 1).unwrap().unwrap().contains("without redundancy"));
        assert_eq!(check_code(code("4+2"), 6).unwrap(), None);
        let error = check_code(code("4+2"), 4).unwrap_err();
        assert!(error.hint.unwrap().contains("--code 1+2"));
    }
}
