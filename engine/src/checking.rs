//! How one job is verified: what its requester asked for, as a demand on the credibility engine.

use conun_trust::{Demand, Forecast, Need};
use conun_types::{Error, Result};

use crate::{
    credit::{Credit, Operator},
    record::{JobOptions, Verify},
};

/// How a job's tasks are checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Checking {
    pub(crate) verify: Verify,
    pub(crate) demand: Demand,
    /// What it takes, as foreseen.
    pub(crate) forecast: Forecast,
}

impl Checking {
    /// What `options` ask for, on a coordinator that verifies as `default` says, among `operators`.
    ///
    /// # Errors
    /// Usage where the error is no probability; Verification where the operators that are there cannot bring it down to
    /// what was asked.
    pub(crate) fn new(options: &JobOptions, default: Verify, credit: &Credit, operators: &[Operator]) -> Result<Self> {
        // Whoever names an error wants votes compared, also where the coordinator compares none by itself.
        let default = if default == Verify::Off && options.max_error.is_some() { Verify::Quorum } else { default };
        let verify = options.verify.unwrap_or(default);
        let demand = demand(verify, options.max_error)?;
        let forecast = credit.forecast(demand, operators, None);
        if let (Some(bound), false) = (options.max_error, forecast.reached) {
            let text = format!(
                "--max-error {bound} needs {} agreeing operators, {} are connected",
                forecast.replicas,
                operators.len()
            );
            return Err(Error::verification(text).with_hint("connect more nodes or accept a larger error"));
        }
        Ok(Self { verify, demand, forecast })
    }

    /// The error that the requester named: where it cannot be had there is no answer. Where none was named, the best that the
    /// operators who are there can give is one.
    pub(crate) fn max_error(&self) -> Option<f64> {
        match self.demand {
            Demand::Compare(need) => Some(need.max_error).filter(|error| *error < 1.0),
            Demand::Audit => None,
        }
    }

    /// Votes that a task takes at least.
    pub(crate) fn votes(&self) -> usize {
        match self.demand {
            Demand::Audit => 1,
            Demand::Compare(_) => self.forecast.replicas as usize,
        }
    }

    /// Whether nothing is compared.
    pub(crate) fn is_off(&self) -> bool {
        self.verify == Verify::Off
    }
}

/// Whoever names an error wants it for every task, whatever the mode: audits bound it for a job's tasks together.
fn demand(verify: Verify, max_error: Option<f64>) -> Result<Demand> {
    // A named error is never one operator's to reach: nobody would look at what it does alone.
    let least = if verify == Verify::Quorum || max_error.is_some() { 2 } else { 1 };
    if verify == Verify::Off && max_error.is_some() {
        return Err(Error::usage("--max-error compares votes, and --verify off compares none")
            .with_hint("leave --verify off away, or --max-error"));
    }
    match max_error {
        None if verify == Verify::Audit => Ok(Demand::Audit),
        None => Ok(Demand::Compare(Need::votes(least))),
        Some(bound) if bound > 0.0 && bound < 1.0 => Ok(Demand::Compare(Need { votes: least, max_error: bound })),
        Some(bound) => Err(Error::usage(format!("--max-error {bound} is not a probability between 0 and 1"))),
    }
}
