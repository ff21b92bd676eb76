//! Why a round ends without a verdict.

use std::collections::HashSet;

use conun_types::Error;

use super::Round;
use crate::credit::Ballot;

/// What kept a replica from voting.
#[derive(Debug)]
pub(super) enum Fault {
    /// The replica's own.
    Replica(String),
    /// It says that nobody gives it an input.
    Input(String),
}

impl Round {
    /// Why there is no verdict, where the best answer is wrong with a probability of `bound`.
    pub(super) fn give_up(&self, bound: f64) -> Error {
        let stage = self.task.stage.key.stage;
        let answers: HashSet<&Ballot> = self.poll.votes().values().collect();
        let voters = self.poll.votes().len();
        let most = answers.iter().map(|a| self.poll.votes().values().filter(|vote| vote == a).count()).max();
        if let (Some(allowed), Some(most)) = (self.settler.0.context.checking.max_error(), most)
            && answers.len() > 1
            && most * 2 > voters
        {
            return Error::verification(format!(
                "stage {stage}: {most} of {voters} replicas agree and no further node is left: that is wrong with a \
                 probability of {bound:.1e}, at most {allowed:.1e} is allowed"
            ))
            .with_hint("connect more nodes, or allow more with --max-error");
        }
        if answers.len() > 1 {
            return Error::verification(format!(
                "stage {stage}: {voters} replicas gave {} different answers and no further node can break the tie",
                answers.len()
            ))
            .with_hint("connect more nodes and try again");
        }
        let fault = match &self.last_fault {
            Some(Fault::Input(lost)) => {
                return Error::unavailable(format!("stage {stage}: an input is not to be had: {lost}"))
                    .with_hint("connect its holders again (conun show TABLE tells of them), or store the table anew");
            }
            Some(Fault::Replica(fault)) => Some(fault.clone()),
            None => None,
        };
        if voters > 0 {
            let why = fault.map(|fault| format!(" ({fault})")).unwrap_or_default();
            return Error::verification(format!(
                "stage {stage}: {} agreeing replicas of independent operators are needed, only {voters} can be had{why}",
                self.settler.0.context.checking.votes().max(2)
            ))
            .with_hint("connect more nodes, or accept unverified answers with --verify off");
        }
        let reason = fault.unwrap_or_else(|| self.settler.0.context.fleet.nobody());
        Error::unavailable(format!("stage {stage}: no node can run it: {reason}"))
            .with_hint("check that nodes are running: conun devnet status, or conun node --bootstrap ADDR")
    }
}
