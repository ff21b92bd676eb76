//! `conun job verify`: whether what was signed for a job holds, and whether the chain says the same.

use std::path::Path;

use conun_chain::EvmLedger;
use conun_engine::{OnChain, Transcript, Verified};
use conun_types::{Error, NodeKey, OsRng, Result, ledger::Ledger};
use serde::Serialize;

use crate::{args::VerifyJob, context::Context, human, print};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    ok: bool,
    #[serde(flatten)]
    verified: Verified,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<OnChain>,
}

/// Checks one job.
pub(crate) async fn run(args: VerifyJob, context: &Context) -> Result<()> {
    let transcript = read(&args, context).await?;
    let verified = transcript.verify()?;
    let paid = transcript.domain.chain_id != 0;
    let settled = match (args.offline, paid) {
        (false, true) => Some(on_chain(&args, &transcript, &verified).await?),
        _ => None,
    };
    if args.listing.json {
        return print::json(&Report { ok: true, verified, settled });
    }
    print::line(&tell(&verified, settled.as_ref()))
}

/// From a file if there is one of that name, else from the coordinator.
async fn read(args: &VerifyJob, context: &Context) -> Result<Transcript> {
    let path = Path::new(&args.job);
    if path.is_file() {
        let bytes = std::fs::read(path).map_err(|e| Error::from(e).context(path.display()))?;
        return serde_json::from_slice(&bytes).map_err(|e| {
            Error::data(format!("{} holds no receipts: {e}", path.display()))
                .with_hint("write such a file with: conun job receipts JOB --json")
        });
    }
    super::job::transcript(&context.client(&args.listing.connect).await?, &args.job).await
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

fn tell(verified: &Verified, settled: Option<&OnChain>) -> String {
    let mut lines = vec![
        format!("job        {}", verified.job),
        format!("receipts   {}: all hashes and signatures are good", human::count(verified.receipts as u64)),
        format!(
            "tasks      {}, each with {} or more nodes that agree",
            human::count(verified.tasks as u64),
            verified.votes
        ),
        format!("units      {}", human::count(verified.units.0)),
        format!("cost       {} tokens", verified.cost),
    ];
    lines.extend(verified.coordinator.map(|id| format!("ordered    by {id}")));
    if let Some(settled) = settled {
        let batches: Vec<String> = settled.batches.iter().map(u32::to_string).collect();
        lines.push(format!(
            "settled    {} tokens in batch {}: the records in the events give its root, and match",
            settled.paid,
            batches.join(", ")
        ));
    }
    lines.join("\n")
}
