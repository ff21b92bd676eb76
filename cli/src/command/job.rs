//! `conun job`: what the coordinator remembers of its jobs.

use conun_api::Client;
use conun_engine::{JobRecord, JobState, ReceiptRecord, Transcript};
use conun_types::{Amount, Error, Result};

use crate::{
    args::{Job, JobCommand, Listing, OneJob},
    context::Context,
    human, print,
};

/// Dispatches `job ls|show|cancel|receipts|verify|evidence|trace|dispute`.
pub(crate) async fn run(args: Job, context: &Context) -> Result<()> {
    match args.command {
        JobCommand::Ls(args) => list(&args, context).await,
        JobCommand::Show(args) => show(&args, context).await,
        JobCommand::Cancel(args) => cancel(&args, context).await,
        JobCommand::Receipts(args) => receipts(&args, context).await,
        JobCommand::Verify(args) => super::verify::run(args, context).await,
        JobCommand::Evidence(args) => super::dispute::save(args, context).await,
        JobCommand::Trace(args) => super::dispute::trace(args).await,
        JobCommand::Dispute(args) => super::dispute::decide(args).await,
    }
}

async fn list(args: &Listing, context: &Context) -> Result<()> {
    let jobs = context.client(&args.connect).await?.jobs().await?;
    if args.json {
        return print::json(&serde_json::json!({ "jobs": jobs }));
    }
    let row = |job: &JobRecord| {
        vec![
            job.id.to_string(),
            state(job),
            format!("{:.2}", job.seconds),
            human::count(job.rows),
            verified(job),
            shorten(&job.sql, 60),
        ]
    };
    print::table(&["job", "state", ">seconds", ">rows", "verified", "sql"], &jobs.iter().map(row).collect::<Vec<_>>())
}

async fn show(args: &OneJob, context: &Context) -> Result<()> {
    let job = context.client(&args.listing.connect).await?.job(&args.job).await?;
    print_job(&job, args.listing.json)
}

async fn cancel(args: &OneJob, context: &Context) -> Result<()> {
    let job = context.client(&args.listing.connect).await?.cancel(&args.job).await?;
    match args.listing.json {
        true => print::json(&job),
        false => print::line(&format!("cancelled job {}", job.id)),
    }
}

async fn receipts(args: &OneJob, context: &Context) -> Result<()> {
    let client = context.client(&args.listing.connect).await?;
    let transcript = transcript(&client, &args.job).await?;
    if args.listing.json {
        return print::json(&transcript);
    }
    let liars = transcript.liars;
    let row = |record: &ReceiptRecord| {
        let receipt = &record.receipt.receipt;
        vec![
            format!("{}.{}", record.stage, record.task),
            record.node.to_string(),
            human::count(receipt.rows),
            human::bytes(receipt.bytes),
            human::count(receipt.units.0),
            if record.accepted { "accepted" } else { "outvoted" }.to_owned(),
            if liars.contains(&record.node) { Amount::ZERO } else { record.cost() }.to_string(),
        ]
    };
    let rows: Vec<_> = transcript.receipts.iter().map(row).collect();
    print::table(&["task", "node", ">rows", ">bytes", ">units", "verdict", ">tokens"], &rows)
}

/// Everything that was signed for a job.
pub(crate) async fn transcript(client: &Client, job: &str) -> Result<Transcript> {
    let record = client.job(job).await?;
    if let Some(computed) = record.cached {
        return Err(Error::data(format!(
            "job {} was answered from what job {computed} computed: it has no receipts",
            record.id
        ))
        .with_hint(format!("name that job: {computed}")));
    }
    let receipts = client.receipts(&record.id.to_string()).await?;
    let (domain, seal) = (client.status().await?.domain, client.seal(&record.id.to_string()).await?);
    Ok(Transcript { job: record.id, domain, liars: record.liars, receipts, seal: Some(seal) })
}

fn state(job: &JobRecord) -> String {
    if job.recalled.is_some() {
        return "recalled".to_owned();
    }
    // The name that JSON has, so that people and scripts read the same word.
    serde_json::to_value(job.state).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The beginning of a text, on one line.
fn shorten(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(most) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

fn print_job(job: &JobRecord, json: bool) -> Result<()> {
    if json {
        return print::json(job);
    }
    let mut lines = vec![
        format!("job       {}", job.id),
        format!("sql       {}", shorten(&job.sql, 400)),
        format!("state     {} after {:.2} s", state(job), job.seconds),
        format!("rows      {}", human::count(job.rows)),
        format!("verified  {}{}", verified(job), bound(job)),
    ];
    lines.extend(job.cached.map(|job| format!("cached    answer of job {job}")));
    lines.extend(job.cost.map(|cost| format!("cost      {cost} tokens")));
    lines.extend(job.digest.as_ref().map(|digest| format!("digest    {digest} ({})", job.digest_kind)));
    lines.extend(job.error.as_ref().map(|error| format!("error     {error}")));
    lines.extend(job.liars.iter().map(|node| format!("liar      {node}")));
    lines.extend(job.late.iter().map(|node| format!("late      {node}")));
    lines.extend(job.warnings.iter().map(|warning| format!("warning   {warning}")));
    lines.extend(job.recalled.iter().map(|why| format!("recalled  {why}")));
    lines.push(format!("receipts  {}\n", job.receipts));
    print::line(&lines.join("\n"))?;
    print::line(stages(job).trim_end())
}

/// What verified its answer; nothing did where it has none.
fn verified(job: &JobRecord) -> String {
    if job.state == JobState::Done { job.verified.clone() } else { "-".to_owned() }
}

/// How likely a task of it is wrong at most, after what verified it.
pub(crate) fn bound(job: &JobRecord) -> String {
    // Without an answer there is nothing to be right or wrong.
    job.error_bound
        .filter(|_| job.state == JobState::Done)
        .map(|p| format!(", P(wrong task) <= {p:.1e}"))
        .unwrap_or_default()
}

/// The metering table of a job.
pub(crate) fn stages(job: &JobRecord) -> String {
    let row = |s: &conun_engine::StageRow| {
        vec![
            s.stage.to_string(),
            format!("{}/{}", s.tasks_done, s.tasks),
            s.replicas.to_string(),
            human::count(s.rows),
            human::bytes(s.bytes),
            human::count(s.units.0),
        ]
    };
    let rows: Vec<_> = job.stages.iter().map(row).collect();
    print::columns(&[">stage", ">tasks", ">replicas", ">rows", ">bytes", ">units"], &rows)
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn statements_are_shown_on_one_line() {
        assert_eq!(shorten("select\n  1", 60), "select 1");
        assert_eq!(shorten("größer als", 3), "grö…");
    }
}
