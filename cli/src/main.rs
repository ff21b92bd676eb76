//! The conun command: the only place where all parts meet.
//!
//! Each subcommand is a file under `command/`; this one parses, dispatches, and turns errors into one line on stderr
//! and an exit code.

mod args;
mod chain;
mod command;
mod config;
mod context;
mod evidence;
mod human;
mod output;
mod print;
mod process;
mod service;
mod statements;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;
use context::Context;
use conun_types::{Error, Result, text};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A runner keeps its own house: no logging to share, no threads before its limits are set.
    if matches!(cli.command, Command::Runner) {
        return command::runner::run();
    }
    start_logging(cli.verbose, matches!(cli.command, Command::Coordinator(_) | Command::Node(_)));
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// Stack of a thread: what is planned nests as deep as its statement, whose bounds (planner/src/bounds.rs) fit in with room to spare.
const STACK: usize = 16 << 20;

fn run(cli: Cli) -> Result<()> {
    let context = Context::load(cli.config.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build()?;
    let dispatched = || runtime.block_on(async { Box::pin(dispatch(cli.command, &context)).await });
    let result = std::thread::scope(|threads| {
        let main = std::thread::Builder::new().stack_size(STACK).spawn_scoped(threads, dispatched)?;
        main.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    // Blocking reads of stdin cannot be interrupted; they must not hold up the exit.
    runtime.shutdown_background();
    result
}

async fn dispatch(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Sql(args) => command::sql::run(args, context).await,
        Command::Demo(args) => command::demo::run(args).await,
        Command::Devnet(args) => command::devnet::run(args, context).await,
        Command::Put(args) => command::put::run(args, context).await,
        Command::Tables(args) => command::tables::run(args, context).await,
        Command::Show(args) => command::show::run(args, context).await,
        Command::Get(args) => command::get::run(args, context).await,
        Command::Rm(args) => command::rm::run(args, context).await,
        Command::Pin(args) => command::pins::pin(args, context).await,
        Command::Unpin(args) => command::pins::unpin(args, context).await,
        Command::Pins(args) => command::pins::list(args, context).await,
        Command::Job(args) => command::job::run(args, context).await,
        Command::Wallet(args) => command::wallet::run(args),
        Command::Chain(args) => command::chain::run(args, context).await,
        Command::Coordinator(args) => command::coordinator::run(args).await,
        Command::Node(args) => command::node::run(args).await,
        Command::Completions(args) => command::completions::run(&args),
        Command::Runner => Err(Error::internal("a runner has no parent command")),
    }
}

/// One line, a hint where there is one, and the kind's exit code.
fn report(error: &Error) -> ExitCode {
    print::tell(&format!("error: {}", text::plain(&error.message)));
    if let Some(hint) = &error.hint {
        print::tell(&format!("hint: {hint}"));
    }
    ExitCode::from(error.kind.exit_code())
}

/// Silent by default, as what a user must know is printed; but services warn, above all of peers that break the rules: logs
/// are for operators.
fn start_logging(verbose: u8, is_service: bool) {
    use tracing_subscriber::EnvFilter;
    // A directive is for every target that begins with its name: all of our crates.
    let level = match verbose {
        0 if is_service => "off,conun=warn",
        0 => "off",
        1 => "warn,conun=info",
        _ => "info,conun=debug",
    };
    let filter = match verbose {
        0 => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level)),
        _ => EnvFilter::new(level),
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
