//! The votes on one task, by operator. Knows who runs, who is late and who said what; what votes are worth is for
//! [`crate::Trust`] to say.

use std::collections::BTreeMap;

/// What makes a verdict.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Need {
    /// Equal votes of different operators.
    pub votes: usize,
    /// The probability that they are wrong is at most this.
    pub max_error: f64,
}

impl Need {
    /// So many equal votes, whatever they are worth: `Need::votes(2)` is two, and a third where they differ.
    #[must_use]
    pub fn votes(votes: usize) -> Self {
        Self { votes: votes.max(1), max_error: 1.0 }
    }

    /// At least two equal votes, and as many more as bring the error down to `max_error`.
    #[must_use]
    pub fn error(max_error: f64) -> Self {
        Self { votes: 2, max_error }
    }
}

/// Why the votes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode<O> {
    /// One established operator, audited later.
    Solo,
    /// Votes are compared.
    Votes,
    /// Votes are compared, and a newcomer began: what that costs is taken from the budget for newcomers.
    Probation,
    /// What this operator did alone is run again.
    Audit(O),
    /// What this operator did before it was caught is run again: its old vote counts, and changes nothing for it.
    Probe(O),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action<A> {
    /// Start one more replica on an operator that has none.
    Launch,
    /// Wait for those that run.
    Wait,
    /// Believe this.
    Accept {
        /// What they agree on.
        ballot: A,
        /// Probability that it is wrong, at most.
        bound: f64,
    },
    /// Nobody is left to ask, and the votes do not suffice.
    GiveUp {
        /// Probability that the best answer so far is wrong, at most (1 without any).
        bound: f64,
    },
}

/// The votes of one task: `O` names operators, `A` answers. One vote counts for an operator, the first.
#[derive(Debug, Clone)]
pub struct Poll<O, A> {
    pub(crate) mode: Mode<O>,
    pub(crate) need: Need,
    votes: BTreeMap<O, A>,
    running: Vec<O>,
    overdue: Vec<O>,
    exhausted: bool,
    pub(crate) enough: Option<Need>,
    pub(crate) least: usize,
}

impl<O: Copy + Ord, A: Clone + Ord> Poll<O, A> {
    /// No vote yet.
    #[must_use]
    pub fn new(mode: Mode<O>, need: Need) -> Self {
        let (votes, running, overdue) = Default::default();
        Self { mode, need, votes, running, overdue, exhausted: false, enough: None, least: 0 }
    }

    /// A replica was started on a node of `operator`.
    pub fn started(&mut self, operator: O) {
        self.running.push(operator);
    }

    /// `operator` voted.
    pub fn voted(&mut self, operator: O, ballot: A) {
        self.ended(operator);
        self.votes.entry(operator).or_insert(ballot);
    }

    /// `operator` ended without a vote.
    pub fn ended(&mut self, operator: O) {
        self.running.retain(|o| *o != operator);
        self.overdue.retain(|o| *o != operator);
    }

    /// Those of `stragglers` that still run are not waited for: others are started in their stead, yet they may still vote. All
    /// others are.
    pub fn out_of_patience(&mut self, stragglers: &[O]) {
        self.overdue = self.running.iter().filter(|operator| stragglers.contains(operator)).copied().collect();
    }

    /// Whether no further operator can be asked.
    pub fn exhausted(&mut self, exhausted: bool) {
        self.exhausted = exhausted;
    }

    /// Asks for so many equal votes at least.
    pub fn at_least(&mut self, votes: usize) {
        self.least = votes;
    }

    /// Counts only the votes of operators that `admits`: some may have been caught since they voted.
    pub fn retain(&mut self, admits: impl Fn(&O) -> bool) {
        self.votes.retain(|operator, _| admits(operator));
    }

    /// Asks for no more than `need` from here on: nobody is left to ask, and the requester set no bound of its own.
    pub fn settle_for(&mut self, need: Need) {
        self.enough = Some(need);
    }

    /// Operators that run a replica now.
    #[must_use]
    pub fn running(&self) -> &[O] {
        &self.running
    }

    /// All votes so far.
    #[must_use]
    pub fn votes(&self) -> &BTreeMap<O, A> {
        &self.votes
    }

    /// Why the votes are asked for.
    #[must_use]
    pub fn mode(&self) -> Mode<O> {
        self.mode
    }

    /// Whether two votes differ.
    #[must_use]
    pub fn contested(&self) -> bool {
        let mut ballots = self.votes.values();
        ballots.next().is_some_and(|first| ballots.any(|b| b != first))
    }

    /// Whether `operator` has a replica of this task, or had.
    #[must_use]
    pub fn knows(&self, operator: &O) -> bool {
        self.votes.contains_key(operator) || self.running.contains(operator)
    }

    pub(crate) fn prompt(&self) -> impl Iterator<Item = O> {
        self.running.iter().copied().filter(|o| !self.overdue.contains(o))
    }

    /// Operators by what they voted.
    pub(crate) fn groups(&self) -> BTreeMap<&A, Vec<O>> {
        let mut groups: BTreeMap<&A, Vec<O>> = BTreeMap::new();
        for (operator, ballot) in &self.votes {
            groups.entry(ballot).or_default().push(*operator);
        }
        groups
    }

    /// The next step where the votes do not suffice: `hopeful` if those that run could complete them.
    pub(crate) fn undecided(&self, hopeful: bool, bound: f64) -> Action<A> {
        match (hopeful, self.exhausted, self.prompt().next().is_none()) {
            (false, false, _) => Action::Launch,
            (false, true, true) => Action::GiveUp { bound },
            _ => Action::Wait,
        }
    }
}
