//! The command line as types. DESIGN section 8 and docs/CLI.md are the contract: names here are stable.

use std::{net::IpAddr, path::PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand};
use conun_engine::{JobOptions, Verify};
use conun_node::LiarMode;
use conun_types::{Amount, Cid, MemoryClass, NodeId, profile::MAX_PARTITIONS};

use crate::{human::Size, output::Format};

mod dispute;
mod money;

pub(crate) use dispute::{DecideDispute, SaveEvidence, Signer, TaskName, TraceTask, VerifyJob};
pub(crate) use money::{
    Balance, Chain, ChainCommand, ChainOptions, Deploy, Deposit, Earnings, Import, OneWallet, Pay, Sender, Settle,
    Stake, Wallet, WalletCommand, WalletDir, Wallets, Withdraw,
};

/// Verified SQL on computers that strangers lend.
#[derive(Debug, Parser)]
#[command(name = "conun", version, propagate_version = true, max_term_width = 120)]
pub(crate) struct Cli {
    /// Log to stderr (-v: what happens, -vv: in detail); RUST_LOG chooses more finely. Services always log warnings
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Configuration file instead of ~/.config/conun/conun.toml
    #[arg(long, global = true, env = "CONUN_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run SQL: over local files, or over a network with --connect
    Sql(Sql),
    /// Show the whole on this machine: a network of processes, real data, faults, checked answers
    Demo(Demo),
    /// Run a network of processes on this machine
    Devnet(Devnet),
    /// Store Parquet or CSV files as a table on the network
    Put(Put),
    /// List tables
    Tables(Listing),
    /// Show one table and the nodes that hold it
    Show(Named),
    /// Download a table as Parquet files
    Get(Get),
    /// Remove a table
    Rm(Named),
    /// Keep a block until it is unpinned
    Pin(Pin),
    /// Let a pinned block go
    Unpin(Pin),
    /// List pinned blocks
    Pins(Pins),
    /// List, show, cancel and verify jobs
    Job(Job),
    /// Keys that hold money: make, import, list them
    Wallet(Wallet),
    /// Deposits, pay and stake on the chain
    Chain(Chain),
    /// Serve a coordinator: the gRPC port, tables and jobs
    Coordinator(Coordinator),
    /// Lend this machine's disk and cores
    Node(Node),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Run tasks for a node (started by the node itself)
    #[command(hide = true)]
    Runner,
}

/// How to reach a coordinator.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Connect {
    /// URL of a coordinator, e.g. http://127.0.0.1:7400
    #[arg(long, env = "CONUN_CONNECT", value_name = "URL")]
    pub(crate) connect: Option<String>,
    /// The coordinator's secret, where it has one
    #[arg(long, env = "CONUN_TOKEN", hide_env_values = true, hide = true)]
    pub(crate) token: Option<String>,
}

/// `conun sql`
#[derive(Debug, Args)]
pub(crate) struct Sql {
    /// Statements to run; without -c and -f they are read from stdin, or from a shell on a terminal
    #[arg(short = 'c', long = "command", value_name = "SQL", allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
    /// File with statements ("-": stdin)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// How rows are written [default: table on a terminal and elsewhere, or by the extension of -o]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// File for the rows; it appears once it is complete
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connect: Connect,
    /// Run here, even where a coordinator is configured
    #[arg(long)]
    pub(crate) local: bool,
    /// How answers are verified: off, audit or quorum
    #[arg(long, value_name = "MODE")]
    pub(crate) verify: Option<Verify>,
    /// Highest acceptable probability of a wrong answer: sets the number of agreeing replicas
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) max_error: Option<f64>,
    /// Most that each statement may cost, in tokens; more stops it (exit 5)
    #[arg(long, value_name = "TOKENS", allow_negative_numbers = true)]
    pub(crate) budget: Option<Amount>,
    /// Compute the answers, even those that the coordinator knows from earlier jobs
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Most rows that a table shows, 0 for all [default: 100 on a terminal, else all]
    #[arg(long, value_name = "N")]
    pub(crate) max_rows: Option<usize>,
    /// No footer and no progress on stderr
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl Sql {
    /// What a coordinator is told about each statement.
    pub(crate) fn options(&self, configured: Option<Verify>) -> JobOptions {
        JobOptions {
            verify: self.verify.or(configured),
            max_error: self.max_error,
            budget: self.budget,
            no_cache: self.no_cache,
        }
    }
}

fn probability(text: &str) -> Result<f64, String> {
    let p: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if p > 0.0 && p < 1.0 { Ok(p) } else { Err("a probability between 0 and 1 is needed".to_owned()) }
}

/// `conun demo`
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Print one JSON object instead of a story
    #[arg(long)]
    pub(crate) json: bool,
}

/// `conun put`
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// Name of the table; an existing one gets a new version
    pub(crate) table: String,
    /// Parquet or CSV files, or folders of them, all with the same columns
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Erasure code, data+parity [default: one that fits the network]
    #[arg(long, value_name = "K+M")]
    pub(crate) code: Option<String>,
    /// Bytes of a data shard
    #[arg(long, value_name = "SIZE", default_value = "8MiB")]
    pub(crate) shard_size: Size,
    #[command(flatten)]
    pub(crate) connect: Connect,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Commands that list.
#[derive(Debug, Args)]
pub(crate) struct Listing {
    #[command(flatten)]
    pub(crate) connect: Connect,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Commands about one table.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Name of the table
    pub(crate) table: String,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// `conun get`
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Name of the table
    pub(crate) table: String,
    /// Folder for the files; it is created
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// `conun pin` and `conun unpin`
#[derive(Debug, Args)]
pub(crate) struct Pin {
    /// Address of the block
    pub(crate) cid: Cid,
    #[command(flatten)]
    pub(crate) pins: Pins,
}

/// `conun pins`
#[derive(Debug, Args)]
pub(crate) struct Pins {
    /// Data folder of a stopped node, instead of a coordinator
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// `conun job`
#[derive(Debug, Args)]
pub(crate) struct Job {
    #[command(subcommand)]
    pub(crate) command: JobCommand,
}

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List jobs, the newest first
    Ls(Listing),
    /// Show one job: answer, verdict, stages
    Show(OneJob),
    /// Stop a job
    Cancel(OneJob),
    /// The signed receipts of a job's tasks
    Receipts(OneJob),
    /// Check a job's receipts: signatures, hashes, sums, and the settlement on the chain; with evidence, run disputed tasks
    /// again
    Verify(VerifyJob),
    /// Save a job's receipts, and what is needed to run its disputed tasks again
    Evidence(SaveEvidence),
    /// Run a disputed task from evidence and tell what every operator gives
    Trace(TraceTask),
    /// Decide between two parties of a disputed task by running the one operator where they part
    Dispute(DecideDispute),
}

/// Commands about one job.
#[derive(Debug, Args)]
pub(crate) struct OneJob {
    /// Id of the job, or a unique beginning of it
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// `conun coordinator`
#[derive(Debug, Args)]
pub(crate) struct Coordinator {
    /// Data folder
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// File with the owner's key, created if missing [default: in the data folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// How verification is done unless a job says otherwise
    #[arg(long, value_name = "MODE", default_value = "quorum")]
    pub(crate) verify: Verify,
    /// Disk for answers that are given again where a statement is asked again; 0 for none
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub(crate) cache: Size,
    /// Partitions of a shuffle, for tests of determinism
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u32).range(1..=MAX_PARTITIONS as i64))]
    pub(crate) partitions: Option<u32>,
    /// Port for gRPC (0: any free one)
    #[arg(long, default_value_t = conun_api::DEFAULT_PORT)]
    pub(crate) port: u16,
    /// Address for gRPC; other machines are let in only with CONUN_TOKEN set
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    #[command(flatten)]
    pub(crate) chain: ChainOptions,
    #[command(flatten)]
    pub(crate) pay: Pay,
    #[command(flatten)]
    pub(crate) peer: Peer,
}

/// `conun node`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Node {
    #[command(subcommand)]
    pub(crate) command: Option<NodeCommand>,
    #[command(flatten)]
    pub(crate) serve: ServeNode,
}

/// What else to do with a node.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// What a node has earned: by job and stage, with what was not paid and why
    Earnings(Earnings),
}

/// `conun node`, serving
#[derive(Debug, Args)]
pub(crate) struct ServeNode {
    /// Data folder (needed to serve)
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Disk to lend
    #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = lent)]
    pub(crate) store: Size,
    /// Tasks to run at once [default: the machine's cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) cores: Option<u32>,
    /// Memory of one task, as many times as --cores; rounded down to 256MiB, 1GiB or 4GiB
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = memory)]
    pub(crate) memory: MemoryClass,
    /// Serve only this coordinator (may be repeated) [default: any]
    #[arg(long, value_name = "ID")]
    pub(crate) allow: Vec<NodeId>,
    /// Misbehave, for tests
    #[arg(long, value_name = "MODE", hide = true)]
    pub(crate) liar: Option<LiarMode>,
    /// Hold answers back for a random time up to this, for tests of determinism
    #[arg(long, value_name = "MS", hide = true)]
    pub(crate) delay_ms: Option<u64>,
    #[command(flatten)]
    pub(crate) chain: ChainOptions,
    /// Least pay for a work unit, in tokens
    #[arg(long, value_name = "TOKENS", default_value = "0.000001")]
    pub(crate) price: Amount,
    /// Stages that a coordinator may owe before it gets no more work
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(8..=65536))]
    pub(crate) exposure: u32,
    /// Take vouchers to the chain that were not settled for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    pub(crate) redeem_after: u64,
    #[command(flatten)]
    pub(crate) peer: Peer,
}

fn size(text: &str) -> Result<Size, String> {
    text.parse().map_err(|e: conun_types::Error| e.message)
}

fn lent(text: &str) -> Result<Size, String> {
    let size = size(text)?;
    if size.0 == 0 { Err("a node lends some disk: it runs tasks next to what it stores".to_owned()) } else { Ok(size) }
}

fn memory(text: &str) -> Result<MemoryClass, String> {
    MemoryClass::within(size(text)?.0).ok_or_else(|| "no task runs in less than 256MiB".to_owned())
}

/// What every process of the peer-to-peer network takes.
#[derive(Debug, Args)]
pub(crate) struct Peer {
    /// Multiaddress of a peer to start from (may be repeated)
    #[arg(long, value_name = "ADDR")]
    pub(crate) bootstrap: Vec<String>,
    /// Multiaddress to listen on for peers (may be repeated) [default: a free port on loopback]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Vec<String>,
    /// Print the line that tells of readiness as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Stop when stdin ends
    #[arg(long, hide = true)]
    pub(crate) die_with_parent: bool,
}

/// `conun devnet`
#[derive(Debug, Args)]
pub(crate) struct Devnet {
    #[command(subcommand)]
    pub(crate) command: DevnetCommand,
}

/// What to do with a local network.
#[derive(Debug, Subcommand)]
pub(crate) enum DevnetCommand {
    /// Start a coordinator and volunteers as separate processes
    Up(DevnetUp),
    /// Stop them; data stays
    Down(DevnetDir),
    /// Tell who runs
    Status(DevnetDir),
}

/// `conun devnet up`
#[derive(Debug, Args)]
pub(crate) struct DevnetUp {
    #[command(flatten)]
    pub(crate) dir: DevnetDir,
    /// Number of volunteers [default: as the last time, first 6]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) nodes: Option<u32>,
    /// The coordinator's gRPC port, 0 for any free one [default: as the last time, first 7400]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Return once it is up
    #[arg(long)]
    pub(crate) detach: bool,
    /// Nodes I, J... misbehave: wrong-value, drop-rows, duplicate-rows, misroute, stall, corrupt-block, inflate,
    /// equivocate, copycat, sleeper or sleeper:N, rarely or rarely:N, collude, replay (may be repeated)
    #[arg(long, value_name = "I[,J]=MODE", value_parser = liars)]
    pub(crate) liar: Vec<Liars>,
    /// Number of coordinators, on ports counting up from --port
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) coordinators: u32,
    /// Disk that each node lends
    #[arg(long, value_name = "SIZE")]
    pub(crate) store: Option<String>,
    /// Tasks that each node runs at once
    #[arg(long, value_name = "N")]
    pub(crate) cores: Option<u32>,
    /// Disk for answers that are given again, 0 for none [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) cache: Option<String>,
    /// Memory that each node gives one task; rounded down to 256MiB, 1GiB or 4GiB
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Pay for work: "embedded" keeps a chain in the folder; a URL is that of a development chain (anvil), which gets the
    /// contracts; nodes have stake, the coordinator has a deposit
    #[arg(long, value_name = "embedded|URL")]
    pub(crate) chain: Option<String>,
    /// `conun coordinator --partitions`
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) partitions: Option<u32>,
    /// `conun node --delay-ms` of every node
    #[arg(long, value_name = "MS", hide = true)]
    pub(crate) delay_ms: Option<u64>,
}

/// Nodes of a local network that cheat, and how.
#[derive(Debug, Clone)]
pub(crate) struct Liars {
    pub(crate) nodes: Vec<u32>,
    pub(crate) mode: LiarMode,
}

fn liars(text: &str) -> Result<Liars, String> {
    let (nodes, mode) = text.split_once('=').ok_or("write it like 2=wrong-value, or 2,5=collude")?;
    let index = |text: &str| text.parse().map_err(|_| format!("'{text}' is not the index of a node"));
    let nodes = nodes.split(',').map(index).collect::<Result<Vec<u32>, _>>()?;
    Ok(Liars { nodes, mode: mode.parse().map_err(|e: conun_types::Error| e.hint.unwrap_or(e.message))? })
}

/// Which local network.
#[derive(Debug, Args)]
pub(crate) struct DevnetDir {
    /// Folder of the network
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `conun completions`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_a_statement_is_told_comes_from_the_options() {
        let options = |line: &str| match Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command) {
            Ok(Command::Sql(sql)) => sql.options(Some(Verify::Audit)),
            other => panic!("{other:?}"),
        };
        let configured = JobOptions { verify: Some(Verify::Audit), ..JobOptions::default() };
        assert_eq!(options("conun sql -c x"), configured);
        assert_eq!(options("conun sql -c x --no-cache"), JobOptions { no_cache: true, ..configured });
    }

    #[test]
    fn the_contract_parses() {
        for line in [
            "conun demo --json",
            "conun devnet up --dir d --nodes 6 --port 7400 --detach --json --liar 2=wrong-value --liar 3=stall",
            "conun devnet up --dir d --liar 2,5,7=collude --liar 0=sleeper:3",
            "conun devnet down --dir d",
            "conun devnet status --dir d --json",
            "conun coordinator --dir d --bootstrap /ip4/127.0.0.1/tcp/1 --port 0 --verify off",
            "conun node --dir d --bootstrap /ip4/127.0.0.1/tcp/1 --store 1GiB --cores 2 --memory 2GiB",
            "conun put t a.parquet b.csv --code 4+2 --shard-size 512KiB --connect http://127.0.0.1:7400 --json",
            "conun tables --json",
            "conun show t --json",
            "conun get t dir",
            "conun rm t",
            "conun pins --dir d",
            "conun sql -c select --format csv -o out.csv --verify quorum --max-error 1e-4",
            "conun sql -f a.sql -f b.sql --connect http://127.0.0.1:7400",
            "conun job ls --json",
            "conun job show 0192 --json",
            "conun job cancel 0192",
            "conun job receipts 0192",
            "conun job verify 0192 --offline",
            "conun job verify receipts.json --evidence dir --offline --json",
            "conun job evidence 0192 dir",
            "conun job trace dir --task 2.0 --json",
            "conun job dispute dir --task 2.0 a.json b.json --json",
            "conun job verify receipts.json --chain http://127.0.0.1:8545 --escrow 0x0000000000000000000000000000000000000001",
            "conun devnet up --dir d --chain embedded",
            "conun coordinator --dir d --chain embedded --price 0.000002 --settle-every 60",
            "conun node --dir d --chain embedded:net/chain --price 0.000001 --exposure 8",
            "conun node earnings --dir d --json",
            "conun sql -c select --budget 0.5",
            "conun wallet new --json",
            "conun wallet import --key-file key.txt",
            "conun wallet list --json",
            "conun wallet show 0x12",
            "conun wallet change-password",
            "conun chain deploy --chain http://127.0.0.1:8545 --wallet 0x12",
            "conun chain status --connect http://127.0.0.1:7400",
            "conun chain balance --chain embedded:c --wallet dev:1",
            "conun chain deposit 12.5 --chain embedded:c --wallet 0x12",
            "conun chain withdraw --chain embedded:c --wallet 0x12",
            "conun chain settle",
            "conun chain transfer 0x0000000000000000000000000000000000000001 5 --chain embedded:c --wallet dev:0",
            "conun chain withdraw --deposit --chain embedded:c --wallet 0x12",
            "conun chain stake 100 --chain embedded:c --wallet 0x12 --node d",
            "conun chain unstake 100 --chain embedded:c --wallet 0x12",
            "conun completions bash",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.err().map(|e| e.to_string()).unwrap_or_default());
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "conun sql --verify maybe",
            "conun sql --max-error 2",
            "conun sql --format xml",
            "conun devnet up --dir d --liar 2=saint",
            "conun devnet up --dir d --liar x",
            "conun devnet up --dir d --liar 1,=collude",
            "conun devnet up --dir d --liar 1=sleeper:x",
            "conun devnet up --dir d --nodes 0",
            "conun node --dir d --store lots",
            "conun node --dir d --store 0",
            "conun node --dir d --memory 1MiB",
            "conun put t",
            "conun pin notacid",
            "conun wallet import",
            "conun job dispute dir a.json",
            "conun job trace dir --task 2",
            "conun chain deposit lots",
            "conun sql --budget -1",
            "conun coordinator --dir d --escrow 0x12",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
