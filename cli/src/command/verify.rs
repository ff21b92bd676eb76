//! `conun job verify`: whether what was signed for a job holds, who was right where nodes disagreed, and whether the chain
//! says the same.

use std::path::{Path, PathBuf};

use conun_chain::EvmLedger;
use conun_engine::{OnChain, Transcript, Verified};
use conun_types::{Error, NodeKey, OsRng, Result, ledger::Ledger};
use serde::Serialize;

use super::replay::{self, Replayed};
use crate::{
    args::{Signer, VerifyJob},
    context::Context,
    evidence::{Evidence, read_transcript},
    human, print,
};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    /// Whether the exit code is 0.
    ok: bool,
    #[serde(flatten)]
    verified: Verified,
    /// Whether the coordinator is the one that was named.
    expected: bool,
    /// Disputed tasks that were not run again.
    skipped: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<OnChain>,
    disputes: Vec<Replayed>,
}

/// Checks one job.
pub(crate) async fn run(args: VerifyJob, context: &Context) -> Result<()> {
    let (transcript, blocks) = read(&args, context).await?;
    let verified = transcript.verify()?;
    let expected = args.coordinator.is_some();
    if let Some(signer) = &args.coordinator {
        check_coordinator(&verified, signer)?;
    }
    let evidence = args.evidence.clone().or(blocks).map(Evidence::new);
    let disputes = replay::all(&transcript, evidence.as_ref()).await;
    let paid = transcript.domain.chain_id != 0;
    let settled = match (args.offline, paid) {
        (false, true) => Some(on_chain(&args, &transcript, &verified).await?),
        _ => None,
    };
    let outcome = replay::outcome(&disputes).and_then(|()| has_verdict(&verified, &disputes));
    if args.listing.json {
        let (ok, skipped) = (outcome.is_ok(), disputes.iter().filter(|task| task.skipped.is_some()).count());
        return print::found(
            &print::json_text(&Report { ok, verified, expected, skipped, settled, disputes })?,
            outcome,
        );
    }
    let mut lines = tell(&verified, expected, settled.as_ref());
    lines.extend(disputes.iter().flat_map(replay::tell));
    if evidence.is_none() && !disputes.is_empty() {
        lines.push(format!("to run them again: conun job evidence {} DIR, then conun job verify DIR", verified.job));
    }
    print::found(&lines.join("\n"), outcome)
}

/// Receipts of which none was accepted confirm nothing, unless a task of theirs was run again.
fn has_verdict(verified: &Verified, disputes: &[Replayed]) -> Result<()> {
    match verified.tasks {
        0 if disputes.iter().all(|task| task.skipped.is_some()) => {
            Err(Error::verification("no task of the job has a verdict")
                .with_hint("conun job show says how it ended; with its evidence, disputed tasks are run again"))
        }
        _ => Ok(()),
    }
}

/// Anybody can sign a transcript of made-up tasks with keys of their own: only who knows the coordinator can tell.
fn check_coordinator(verified: &Verified, expected: &Signer) -> Result<()> {
    let found = verified.coordinator.as_ref().ok_or_else(|| Error::internal("verified receipts of nobody"))?;
    if expected.is(found)? {
        return Ok(());
    }
    let found = format!("{found} ({})", found.address()?);
    Err(Error::verification(format!("the job was ordered by {found}, not by {expected}")).with_hint(
        "conun devnet status --json has the id of a devnet's coordinator; any coordinator tells its own when it starts",
    ))
}

/// From a file or folder if there is one of that name, else from the coordinator; with the folder of its evidence.
async fn read(args: &VerifyJob, context: &Context) -> Result<(Transcript, Option<PathBuf>)> {
    let path = Path::new(&args.job);
    if path.exists() {
        return read_transcript(path);
    }
    // Ids of jobs have none of these.
    if args.job.contains(['/', '.']) {
        return Err(Error::data(format!("there is no file or folder '{}'", args.job)));
    }
    Ok((super::job::transcript(&context.client(&args.listing.connect).await?, &args.job).await?, None))
}

async fn on_chain(args: &VerifyJob, transcript: &Transcript, verified: &Verified) -> Result<OnChain> {
    let mut config = args.chain.config(None)?.ok_or_else(|| {
        Error::usage("the job is paid on a chain, and none is given")
            .with_hint("name it with --chain, or check what the receipts show alone with --offline")
    })?;
    // The receipts themselves say which contract they are for; who names one wants that and no other.
    let domain = transcript.domain;
    if config.chain_id.is_some_and(|id| id != domain.chain_id) || config.escrow.is_some_and(|e| e != domain.escrow) {
        return Err(Error::verification(format!(
            "the receipts are for the escrow {} on chain {}, not for the one that was named",
            domain.escrow, domain.chain_id
        )));
    }
    config.chain_id = Some(domain.chain_id);
    config.escrow = Some(domain.escrow);
    // Nothing is sent: any key will do.
    let ledger = EvmLedger::connect(config, NodeKey::generate(&OsRng)).await?;
    let account = transcript.receipts.first().map(|r| r.order.order.account).unwrap_or_default();
    transcript.verify_settled(verified, &ledger.settlements(&account).await?)
}

fn tell(verified: &Verified, expected: bool, settled: Option<&OnChain>) -> Vec<String> {
    let mut lines = vec![
        format!("job        {}", verified.job),
        format!("receipts   {}: all hashes and signatures are good", human::count(verified.receipts as u64)),
        match verified.tasks {
            0 => "tasks      none has a verdict".to_owned(),
            tasks => {
                format!(
                    "tasks      {}, each with {} or more nodes that agree",
                    human::count(tasks as u64),
                    verified.votes
                )
            }
        },
        format!("units      {}", human::count(verified.units.0)),
        format!("cost       {} tokens", verified.cost),
    ];
    if verified.open > 0 {
        lines.push(format!(
            "open       {}: no verdict, as votes differ, are too few, or others said that the query fails",
            human::plural(verified.open as u64, "task")
        ));
    }
    let known = if expected { ", as expected" } else { " (whoever that is: --coordinator says whom you expect)" };
    lines.extend(verified.coordinator.map(|id| format!("ordered    by {id}{known}")));
    if let Some(settled) = settled {
        let batches: Vec<String> = settled.batches.iter().map(u32::to_string).collect();
        lines.push(format!(
            "settled    {} tokens in batch {}: the records in the events give its root, and match",
            settled.paid,
            batches.join(", ")
        ));
    }
    lines
}
