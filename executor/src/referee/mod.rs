//! A referee: two parties signed different outputs for one task; who is right, and where did the other one bend it?
//!
//! It compares what the parties say of each operator, from the leaves up, until it finds one whose inputs both agree on and
//! whose outputs differ, and in it the first batch that differs. Then it runs that operator alone, over the agreed rows, up
//! to that batch: whoever named what comes out is right. The rest of the task is never run again.
//!
//! A party may refuse to tell, tell what does not fit what it committed to, or tell a trace that does not lead to the output
//! it signed. In the first two cases it has lost; in the third the last step, the writer, shows it.
//!
//! A machine that fails is no lie: where it is not to be known what a party would have said, or the task is one of which no
//! trace can be made, the dispute stays open and the ruling says why.
//!
//! Interactive bisection of a disputed computation down to one step is R. Canetti, B. Riva and G. Rothblum's ("Practical
//! delegation of computation using multiple servers", 2011); operators and batches instead of instructions keep the last
//! step large enough to be run as it is, without a virtual machine.

mod agreed;
mod question;
mod rows;
mod step;
#[cfg(test)]
mod tests;
mod witness;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    pin::pin,
    sync::Arc,
};

use bytes::Bytes;
use conun_types::{Cid, Failure, OutputBlock, TaskEnvelope};
use datafusion::physical_plan::ExecutionPlan;
use futures::future::{Either, select};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::agreed::{AgreedExec, AgreedRows, Ask, NamedBatch};
use self::step::LastStep;
use crate::{
    inputs::TaskInputs,
    trace::{Batches, MAX_BATCHES, OperatorTrace, Outline},
};

pub use self::question::Question;
pub use self::rows::{Difference, first_difference};
pub use self::witness::{Replay, Told, Witness, Words};

/// One of two parties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Party {
    /// The one that was named first.
    First,
    /// The other.
    Second,
}

impl Party {
    /// The party on the other side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Party::First => Party::Second,
            Party::Second => Party::First,
        }
    }
}

/// Where two parties part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Number of the operator; 0 is the writer.
    pub operator: u32,
    /// Its name.
    pub name: String,
    /// Its partition; of the writer, the block.
    pub partition: u32,
    /// The batch in the partition.
    pub batch: u32,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Party::First => "first",
            Party::Second => "second",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operator {
            0 => write!(f, "{} (#0), block {}", self.name, self.partition),
            n => write!(f, "operator {} (#{n}), partition {}, batch {}", self.name, self.partition, self.batch),
        }
    }
}

/// What a referee found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// Who is right at the place where they part, if one is; none where both are wrong there, or it stays open.
    pub right: Option<Party>,
    /// Where they part; none where one of them did not back its output up.
    pub place: Option<Place>,
    /// Why, in a sentence.
    pub why: String,
}

/// Decides between two parties that made `votes` of the task that `envelope` describes. `inputs` are needed where they part
/// at an operator that reads them.
///
/// # Errors
/// [`Failure`] where the referee itself cannot run the last step. No party has lost by that.
pub async fn decide<'a>(
    envelope: &'a TaskEnvelope,
    votes: [&'a [OutputBlock]; 2],
    witnesses: [&'a mut dyn Witness; 2],
    inputs: Arc<dyn TaskInputs>,
) -> Result<Ruling, Failure> {
    let open = |why: String| Ok(Ruling { right: None, place: None, why });
    if votes[0] == votes[1] {
        return open("both claim the same output".to_owned());
    }
    let outline = Outline::of(envelope)?;
    if let Some(why) = outline.untraceable {
        return open(format!("it stays open: the task cannot be traced, {why}"));
    }
    let mut referee = Referee {
        envelope,
        outline,
        votes,
        witnesses,
        inputs,
        roots: Default::default(),
        read: 0,
        seen: HashSet::new(),
    };
    match referee.narrow().await {
        Ok(found) => referee.run_last_step(found).await,
        Err(silent) => Ok(silent.ruling(None)),
    }
}

/// Who did not back its output up (none: neither did, or it is not to be known), and how.
struct Silent {
    party: Option<Party>,
    why: String,
}

impl Silent {
    /// What `party` says could not be had by no fault of its own: nobody has lost.
    fn open(party: Party, failure: &Failure) -> Self {
        let why = format!("it stays open: what the {party} party says is not to be had: {failure}");
        Self { party: None, why }
    }

    fn ruling(self, place: Option<Place>) -> Ruling {
        Ruling { right: self.party.map(Party::other), place, why: self.why }
    }
}

/// Where the parties part.
struct Found {
    place: Place,
    /// What each says of the batch there; nothing where it says that the rows end before. Of the writer's blocks they say
    /// what they signed.
    batches: [Option<Cid>; 2],
}

struct Referee<'a> {
    envelope: &'a TaskEnvelope,
    outline: Outline,
    votes: [&'a [OutputBlock]; 2],
    witnesses: [&'a mut dyn Witness; 2],
    inputs: Arc<dyn TaskInputs>,
    /// The root of each operator, by party.
    roots: [Vec<[u8; 32]>; 2],
    /// Bytes of batches that the last step read, each counted once.
    read: usize,
    /// Which these are.
    seen: HashSet<Cid>,
}

/// Bytes of agreed batches that a last step may read.
const MOST_READ: usize = 1 << 30;

const PARTIES: [Party; 2] = [Party::First, Party::Second];

impl Referee<'_> {
    async fn narrow(&mut self) -> Result<Found, Silent> {
        let mut silent = Vec::new();
        for party in PARTIES {
            let told = self.witnesses[party as usize].roots().await;
            match told.map_err(|failure| Silent::open(party, &failure))? {
                Some(roots) if roots.len() == self.outline.operators.len() => self.roots[party as usize] = roots,
                Some(_) => silent.push((party, "its trace has another number of operators than the plan")),
                None => silent.push((party, "it gave no trace")),
            }
        }
        match silent.as_slice() {
            [] => {}
            [(party, why)] => return Err(Silent { party: Some(*party), why: (*why).to_owned() }),
            _ => return Err(Silent { party: None, why: "neither gave a trace".to_owned() }),
        }
        // What an operator needs has greater numbers: the first that differs on this way has agreed inputs.
        for number in (1..=self.outline.operators.len() as u32).rev() {
            if let Some((partition, batch, batches)) = self.compare(number).await? {
                let name = self.outline.name(number);
                return Ok(Found { place: Place { operator: number, name, partition, batch }, batches });
            }
        }
        Ok(self.compare_blocks())
    }

    /// The first batch of an operator in which the parties differ.
    async fn compare(&mut self, number: u32) -> Result<Option<(u32, u32, [Option<Cid>; 2])>, Silent> {
        let at = number as usize - 1;
        if self.roots[0][at] == self.roots[1][at] {
            return Ok(None);
        }
        let first = self.operator(Party::First, number).await?;
        let second = self.operator(Party::Second, number).await?;
        let pairs = first.partitions.iter().zip(&second.partitions);
        let part = |(partition, (a, b)): (u32, (&Batches, &Batches))| {
            difference(a, b).map(|batch| (partition, batch as u32, [a, b].map(|side| side.batches.get(batch).copied())))
        };
        Ok((0..).zip(pairs).find_map(part))
    }

    /// What `party` says of an operator, if it fits the plan and what it committed to.
    async fn operator(&mut self, party: Party, number: u32) -> Result<OperatorTrace, Silent> {
        let told = self.witnesses[party as usize].operator(number).await;
        let silent = |why: &str| Silent { party: Some(party), why: format!("{why} of operator #{number}") };
        let told = told.map_err(|failure| Silent::open(party, &failure))?;
        let told = told.ok_or_else(|| silent("it gave no trace"))?;
        if told.root() != self.roots[party as usize][number as usize - 1] {
            return Err(silent("it gave another trace than it had committed to"));
        }
        let shape = self.outline.operator(number).map(|operator| operator.partitions);
        let batches: usize = told.partitions.iter().map(|p| p.batches.len()).sum();
        // The writer reads all that the first operator gives.
        let whole = number > 1 || told.partitions.iter().all(|p| p.ended);
        if shape != Some(told.partitions.len()) || batches > MAX_BATCHES || !whole {
            return Err(silent("it gave an impossible trace"));
        }
        Ok(told)
    }

    /// Both agree on all operators: what the writer made of the last rows must differ. The votes do, in a block or in their
    /// length.
    fn compare_blocks(&self) -> Found {
        let [first, second] = self.votes;
        let longest = first.len().max(second.len());
        let at = (0..longest).find(|at| first.get(*at) != second.get(*at)).unwrap_or(longest);
        let place = Place { operator: 0, name: self.outline.name(0), partition: at as u32, batch: 0 };
        Found { place, batches: [None; 2] }
    }

    async fn run_last_step(&mut self, found: Found) -> Result<Ruling, Failure> {
        let Found { place, batches } = found;
        let mut agreed = HashMap::new();
        for number in self.outline.needs(place.operator) {
            match self.agreed(number).await {
                Ok(partitions) => agreed.insert(number, Arc::new(partitions)),
                Err(silent) => return Ok(silent.ruling(Some(place))),
            };
        }
        let (asks, asked) = mpsc::unbounded_channel();
        let source = move |number: u32, operator: &Arc<dyn ExecutionPlan>| -> Arc<dyn ExecutionPlan> {
            let rows = agreed.get(&number).cloned().unwrap_or_default();
            Arc::new(AgreedExec::new(operator, number, rows, asks.clone()))
        };
        let step = LastStep { envelope: self.envelope, inputs: self.inputs.clone(), place: &place };
        let fits = match self.answer_while(asked, step.fits(self.votes, batches, source)).await {
            Ok(fits) => fits?,
            Err(silent) => return Ok(silent.ruling(Some(place))),
        };
        let right = match fits {
            [true, false] => Some(Party::First),
            [false, true] => Some(Party::Second),
            _ => None,
        };
        let why = match right {
            Some(_) => "the referee ran this step over what both agree on, and it gives what this party says",
            None => "the referee ran this step over what both agree on, and it gives what neither says",
        };
        Ok(Ruling { right, place: Some(place), why: why.to_owned() })
    }

    /// By partition, the rows of an operator that both agree on. Where one of them read further, its rows are the longer
    /// ones, and what it alone names is its to give.
    async fn agreed(&mut self, number: u32) -> Result<Vec<AgreedRows>, Silent> {
        let first = self.operator(Party::First, number).await?;
        let second = match self.roots[0][number as usize - 1] == self.roots[1][number as usize - 1] {
            true => first.clone(),
            false => self.operator(Party::Second, number).await?,
        };
        let pairs = first.partitions.into_iter().zip(second.partitions);
        Ok(pairs.map(|(first, second)| AgreedRows::of(first, second)).collect())
    }

    /// Runs the last step, and has the parties give the batches that it reads. What it does not read nobody is asked for:
    /// no party gains or loses by naming rows that the operator has no use for.
    async fn answer_while<T>(
        &mut self,
        mut asked: mpsc::UnboundedReceiver<Ask>,
        step: impl Future<Output = T>,
    ) -> Result<T, Silent> {
        let mut step = pin!(step);
        loop {
            let ask = match select(step.as_mut(), pin!(asked.recv())).await {
                Either::Left((done, _)) => return Ok(done),
                Either::Right((ask, _)) => ask,
            };
            // Nobody is left who could ask.
            let Some(Ask { number, batch, answer }) = ask else { return Ok(step.await) };
            let bytes = self.batch(number, batch).await?;
            if self.seen.insert(batch.cid) {
                self.read += bytes.len();
            }
            // Whoever named it alone: that the operator reads so much was seen here, so that it is no party's fault.
            if self.read > MOST_READ {
                let why = format!("it stays open: operator #{number} gave more than {} MiB", MOST_READ >> 20);
                return Err(Silent { party: None, why });
            }
            // An operator that has enough has stopped listening.
            let _ = answer.send(bytes);
        }
    }

    /// The bytes of a batch: of one that both parties name, from either; else from the one that names it.
    async fn batch(&mut self, number: u32, batch: NamedBatch) -> Result<Bytes, Silent> {
        let NamedBatch { cid, by } = batch;
        let mut silent = match by {
            None => Silent { party: None, why: format!("neither gave batch {cid} of operator #{number}") },
            Some(party) => {
                let why =
                    format!("the {party} party alone named batch {cid} of operator #{number}, and did not give it");
                Silent { party: by, why }
            }
        };
        for party in PARTIES.into_iter().filter(|party| by.is_none_or(|by| by == *party)) {
            match self.witnesses[party as usize].batch(number, cid).await {
                Ok(Some(bytes)) if cid.matches(&bytes) => return Ok(bytes),
                Ok(_) => {}
                Err(failure) => {
                    let why = format!("it stays open: batch {cid} of operator #{number} is not to be had: {failure}");
                    silent = Silent { party: None, why };
                }
            }
        }
        Err(silent)
    }
}

/// The first batch in which two streams differ. Where one was read further than the other, they agree.
fn difference(a: &Batches, b: &Batches) -> Option<usize> {
    let common = a.batches.len().min(b.batches.len());
    let differs = (0..common).find(|at| a.batches[*at] != b.batches[*at]);
    let ends = |short: &Batches, long: &Batches| short.ended && short.batches.len() < long.batches.len();
    differs.or_else(|| (ends(a, b) || ends(b, a)).then_some(common))
}
