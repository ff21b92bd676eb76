//! When do votes make a verdict? Values in, decisions out: no clock, no network, no randomness.

use std::collections::BTreeMap;

use conun_types::NodeId;

/// What a replica says, so that two can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Ballot {
    /// It ran: the root over its output blocks.
    Done([u8; 32]),
    /// The query fails on this data, with this message.
    QueryError(String),
    /// The memory class is too small.
    MemoryExceeded,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start one more replica on a node that has none.
    Launch,
    /// Wait for those that run.
    Wait,
    /// Enough replicas agree on this.
    Accept(Ballot),
    /// No node is left to ask, the votes do not suffice, and patience ran out on all that still run.
    GiveUp,
}

/// The votes of one task. Nodes stand for their operators: without a chain every node is its own.
#[derive(Debug)]
pub(crate) struct Quorum {
    needed: usize,
    votes: BTreeMap<NodeId, Ballot>,
    running: Vec<NodeId>,
    /// Replicas that patience ran out on: they may still vote, but others are started in their stead.
    overdue: Vec<NodeId>,
    exhausted: bool,
}

impl Quorum {
    /// A verdict needs `needed` equal votes.
    pub(crate) fn new(needed: usize) -> Self {
        Self {
            needed: needed.max(1),
            votes: BTreeMap::new(),
            running: Vec::new(),
            overdue: Vec::new(),
            exhausted: false,
        }
    }

    /// A replica was started on `node`.
    pub(crate) fn started(&mut self, node: NodeId) {
        self.running.push(node);
    }

    /// `node` voted. One vote counts for a node, the first.
    pub(crate) fn voted(&mut self, node: NodeId, ballot: Ballot) {
        self.ended(node);
        self.votes.entry(node).or_insert(ballot);
    }

    /// `node` ended without a vote.
    pub(crate) fn ended(&mut self, node: NodeId) {
        self.running.retain(|n| *n != node);
        self.overdue.retain(|n| *n != node);
    }

    /// Patience ran out on every replica that still runs.
    pub(crate) fn out_of_patience(&mut self) {
        self.overdue.clone_from(&self.running);
    }

    /// Whether no further node can be asked.
    pub(crate) fn exhausted(&mut self, exhausted: bool) {
        self.exhausted = exhausted;
    }

    /// Replicas that patience ran out on and that have not voted since.
    pub(crate) fn overdue(&self) -> &[NodeId] {
        &self.overdue
    }

    /// Nodes that run a replica now.
    pub(crate) fn running(&self) -> &[NodeId] {
        &self.running
    }

    /// All votes so far.
    pub(crate) fn votes(&self) -> &BTreeMap<NodeId, Ballot> {
        &self.votes
    }

    fn best(&self) -> Option<(usize, &Ballot)> {
        let mut counts: BTreeMap<&Ballot, usize> = BTreeMap::new();
        for ballot in self.votes.values() {
            *counts.entry(ballot).or_default() += 1;
        }
        counts.into_iter().map(|(ballot, n)| (n, ballot)).max_by_key(|(n, _)| *n)
    }

    /// The next step. Replicas are started only while those that run could not complete the quorum even if all of
    /// them agreed with the largest group so far.
    pub(crate) fn next(&self) -> Action {
        let best = self.best();
        if let Some((votes, ballot)) = best
            && votes >= self.needed
        {
            return Action::Accept(ballot.clone());
        }
        let votes = best.map_or(0, |(n, _)| n);
        let prompt = self.running.len() - self.overdue.len();
        match (votes + prompt < self.needed, self.exhausted, prompt == 0) {
            (true, false, _) => Action::Launch,
            (true, true, true) => Action::GiveUp,
            _ => Action::Wait,
        }
    }
}

/// Agreeing votes needed so that the probability of a wrong accepted task is at most `max_error`, where each voter
/// lies with probability `liars`, if nobody disagrees.
pub(crate) fn votes_for(max_error: f64, liars: f64) -> usize {
    (1..=64).find(|k| error_bound(*k, 0, liars) <= max_error).unwrap_or(64)
}

/// Probability that what `votes` voters agree on is wrong, where `dissent` others agree on something else: Sarmenta's
/// result credibility, `1 - P(votes) / (1 + P(votes) + P(dissent))` with `P(n) = ((1-f)/f)^n` and `P(0)` left out
/// (L. Sarmenta, "Sabotage-tolerance mechanisms for volunteer computing systems", 2002). Without dissent that is
/// `f^k / (f^k + (1-f)^k)`.
pub(crate) fn error_bound(votes: usize, dissent: usize, liars: f64) -> f64 {
    let odds = |n: usize| if n == 0 { 0.0 } else { ((1.0 - liars) / liars).powi(n as i32) };
    (1.0 + odds(dissent)) / (1.0 + odds(votes) + odds(dissent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use conun_types::{NodeKey, OsRng};

    fn nodes(n: usize) -> Vec<NodeId> {
        (0..n).map(|_| NodeKey::generate(&OsRng).id()).collect()
    }

    fn done(byte: u8) -> Ballot {
        Ballot::Done([byte; 32])
    }

    #[test]
    fn two_equal_votes_are_a_verdict_and_no_third_is_asked() {
        let n = nodes(3);
        let mut quorum = Quorum::new(2);
        for node in &n[..2] {
            assert_eq!(quorum.next(), Action::Launch);
            quorum.started(*node);
        }
        assert_eq!(quorum.next(), Action::Wait);
        quorum.voted(n[0], done(1));
        assert_eq!(quorum.next(), Action::Wait);
        quorum.voted(n[1], done(1));
        assert_eq!(quorum.next(), Action::Accept(done(1)));
    }

    #[test]
    fn a_disagreement_asks_a_third_and_one_node_votes_once() {
        let n = nodes(3);
        let mut quorum = Quorum::new(2);
        quorum.started(n[0]);
        quorum.started(n[1]);
        quorum.voted(n[0], done(1));
        quorum.voted(n[1], done(2));
        assert_eq!(quorum.next(), Action::Launch);
        quorum.voted(n[1], done(1));
        assert_eq!(quorum.next(), Action::Launch, "a second vote of the same node is void");
        quorum.started(n[2]);
        quorum.voted(n[2], done(1));
        assert_eq!(quorum.next(), Action::Accept(done(1)));
    }

    #[test]
    fn late_replicas_are_doubled_once_and_may_still_vote() {
        let n = nodes(3);
        let mut quorum = Quorum::new(2);
        quorum.started(n[0]);
        quorum.started(n[1]);
        quorum.voted(n[0], done(1));
        quorum.out_of_patience();
        assert_eq!(quorum.next(), Action::Launch);
        quorum.started(n[2]);
        assert_eq!(quorum.next(), Action::Wait);
        assert_eq!(quorum.overdue(), [n[1]]);
        quorum.voted(n[1], done(1));
        assert_eq!(quorum.next(), Action::Accept(done(1)));
        assert!(quorum.overdue().is_empty());
    }

    #[test]
    fn lost_replicas_are_replaced_until_nobody_is_left() {
        let n = nodes(2);
        let mut quorum = Quorum::new(2);
        quorum.started(n[0]);
        quorum.ended(n[0]);
        assert_eq!(quorum.next(), Action::Launch);
        quorum.exhausted(true);
        assert_eq!(quorum.next(), Action::GiveUp);
        quorum.started(n[1]);
        assert_eq!(quorum.next(), Action::Wait);
    }

    #[test]
    fn bounds_are_those_of_the_design() {
        assert!((error_bound(2, 0, 0.1) - 0.012).abs() < 1e-3);
        assert!((error_bound(5, 0, 0.1) - 1.7e-5).abs() < 1e-6);
        assert!((error_bound(2, 1, 0.1) - 0.11).abs() < 1e-3, "who disagrees lowers what the others are worth");
        assert_eq!(votes_for(1e-4, 0.1), 5);
        assert_eq!(votes_for(0.02, 0.1), 2);
    }
}
