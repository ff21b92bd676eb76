//! The command line, and what it selects.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use conun_trust::Rules;

use crate::{
    adversary::{Adversary, Colluding, Random, Sleeper},
    policy::{Boinc, Conun, Poco, Policy, Vote},
    rng,
    run::{Report, Run},
    world::Setting,
};

/// Simulates networks with liars.
#[derive(Debug, Parser)]
#[command(name = "conun-sim", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How often a wrong answer is released, and what checking costs. Without a kind or a policy, and without --json: the
    /// whole table, as CSV and as a plot, in the folder --out.
    Curve(Curve),
}

/// Kinds of liars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Each on its own.
    Random,
    /// All with the same wrong answers to the same tasks.
    Colluding,
    /// Honest until they have a record, then a ring.
    Sleeper,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 3] = [Self::Random, Self::Colluding, Self::Sleeper];
}

/// Ways to decide whom to believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Credibility, audits before release, alarm.
    Conun,
    /// Adaptive replication.
    Boinc,
    /// Two equal votes, a third where they differ.
    Vote,
    /// Proof of contribution.
    Poco,
}

impl Way {
    /// All.
    pub const ALL: [Self; 4] = [Self::Conun, Self::Boinc, Self::Vote, Self::Poco];
}

/// One point of the curve, or all.
#[derive(Debug, Clone, Args)]
pub struct Curve {
    /// Share of nodes that lie, a half at most: beyond that no vote tells right from wrong.
    #[arg(long, default_value_t = 0.1, value_parser = parse_minority)]
    pub liars: f64,
    /// How they lie [default: random].
    #[arg(long)]
    pub kind: Option<Kind>,
    /// Who decides whom to believe [default: conun].
    #[arg(long)]
    pub policy: Option<Way>,
    /// Nodes, ten at least: with fewer a dispute finds nobody to ask.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub nodes: u32,
    /// Tasks a node, in the mean [default: 1000].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub tasks_per_node: Option<u64>,
    /// Tasks in all [default: nodes times tasks a node].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub tasks: Option<u64>,
    /// Makes it another network, and another coordinator.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Share of its tasks in which a liar lies [default: 0.1; a sleeper, once awake: 1].
    #[arg(long, value_parser = parse_share)]
    pub rate: Option<f64>,
    /// Tasks that a sleeper does honestly.
    #[arg(long, default_value_t = 500)]
    pub honest_for: u64,
    /// Rules of our policy that differ from the defaults, as a JSON object: {"liars": 0.2, "stint": 20}.
    #[arg(long, value_parser = parse_rules, default_value = "{}")]
    pub rules: Rules,
    /// Confidence that PoCo asks for, `1 - 1/trust`.
    #[arg(long, default_value_t = 10_000.0)]
    pub trust: f64,
    /// Tasks of a job.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub job_tasks: u64,
    /// Tasks of a node a day.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub tasks_per_day: u64,
    /// Probability that an honest node's answer is wrong: a bit that flipped.
    #[arg(long, default_value_t = 1e-6, value_parser = parse_share)]
    pub faults: f64,
    /// Prints one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Where the whole table goes.
    #[arg(long, default_value = "docs")]
    pub out: PathBuf,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is between 0 and 1".to_owned()) }
}

fn parse_minority(text: &str) -> Result<f64, String> {
    parse_share(text).and_then(|share| if share <= 0.5 { Ok(share) } else { Err("use 0 to 0.5".to_owned()) })
}

fn parse_rules(text: &str) -> Result<Rules, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl Curve {
    /// Whether the whole table is asked for.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.json && self.kind.is_none() && self.policy.is_none()
    }

    /// The adversary.
    #[must_use]
    pub fn adversary(&self) -> Box<dyn Adversary> {
        let rate = self.rate_of_lying();
        match self.kind.unwrap_or(Kind::Random) {
            Kind::Random => Box::new(Random { rate }),
            Kind::Colluding => Box::new(Colluding { rate }),
            Kind::Sleeper => Box::new(Sleeper { honest_for: self.honest_for, rate }),
        }
    }

    /// Share of its tasks in which a liar lies.
    #[must_use]
    pub fn rate_of_lying(&self) -> f64 {
        self.rate.unwrap_or(if self.kind == Some(Kind::Sleeper) { 1.0 } else { 0.1 })
    }

    fn way(&self) -> Box<dyn Policy> {
        let seed = rng::hash(&[self.seed, u64::MAX]);
        match self.policy.unwrap_or(Way::Conun) {
            Way::Conun => Box::new(Conun::new(seed, self.rules, self.job_tasks)),
            Way::Boinc => Box::new(Boinc::new(seed)),
            Way::Vote => Box::new(Vote::new(seed)),
            Way::Poco => Box::new(Poco::new(seed, self.trust)),
        }
    }

    /// Runs the point.
    #[must_use]
    pub fn run(&self) -> Report {
        let (nodes, liars, seed) = (self.nodes, self.liars, self.seed);
        let (tasks_per_day, faults) = (self.tasks_per_day, self.faults);
        let setting = Setting { nodes, liars, seed, tasks_per_day, faults, ..Setting::default() };
        let per_node = self.tasks_per_node.unwrap_or(1000);
        let tasks = self.tasks.unwrap_or_else(|| per_node.saturating_mul(u64::from(nodes)));
        Run { setting, tasks, job_tasks: self.job_tasks }.run(self.way().as_mut(), self.adversary().as_ref())
    }
}
