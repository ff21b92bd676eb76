//! `conun sql`: statements from flags, files, stdin or a shell; run here or by a coordinator; rows in any format.

mod files;
mod local;
mod progress;
mod remote;
mod shell;

use std::{
    io::{IsTerminal, Read},
    path::Path,
    time::{Duration, Instant},
};

use arrow::datatypes::SchemaRef;
use conun_api::BatchStream;
use conun_types::{Error, Result};
use futures::StreamExt;

use self::{local::Local, remote::Remote};
use crate::{
    args::Sql,
    context::Context,
    human,
    output::{self, Format, Target},
    service::Signals,
    statements,
};

/// Columns and rows of one statement.
struct Answer {
    schema: SchemaRef,
    rows: BatchStream,
}

/// Where statements run.
enum Session {
    /// In this process, over local files.
    Local(Local),
    /// On a network, through its coordinator.
    Remote(Box<Remote>),
}

impl Session {
    async fn open(args: &Sql, context: &Context) -> Result<Self> {
        if args.local || context.url(&args.connect).is_none() {
            if args.max_error.is_some() || args.verify.is_some() || args.budget.is_some() {
                return Err(Error::usage("verification and budgets need a network")
                    .with_hint("give a coordinator with --connect"));
            }
            return Ok(Self::Local(Local::new()?));
        }
        let verify = context.config.verify.as_deref().map(str::parse).transpose()?;
        let client = context.client(&args.connect).await?;
        Ok(Self::Remote(Box::new(Remote::new(client, args.options(verify), !args.quiet))))
    }

    async fn start(&self, sql: &str) -> Result<Answer> {
        match self {
            Self::Local(local) => local.start(sql).await,
            Self::Remote(remote) => remote.start(sql).await,
        }
    }

    /// What to tell about a statement that gave `rows` rows.
    async fn footer(&self, rows: u64, took: Duration) -> Result<Vec<String>> {
        let summary = format!("{} in {}", human::plural(rows, "row"), human::duration(took));
        match self {
            Self::Local(_) if std::io::stderr().is_terminal() => Ok(vec![summary]),
            Self::Local(_) => Ok(Vec::new()),
            Self::Remote(remote) => remote.footer(summary).await,
        }
    }

    /// Stops what a statement left running.
    async fn interrupt(&self) -> Error {
        if let Self::Remote(remote) = self {
            remote.cancel().await;
        }
        Error::unavailable("interrupted")
    }
}

/// How rows are written.
struct Output {
    format: Format,
    file: Option<std::path::PathBuf>,
    /// Whether the one result that a file takes has been written.
    written: bool,
    max_rows: usize,
    quiet: bool,
}

impl Output {
    fn new(args: &Sql, context: &Context) -> Result<Self> {
        let flag = args.format.or(args.json.then_some(Format::Json));
        let by_file = match &args.output {
            Some(path) if flag.is_none() => Some(Format::of_path(path)?),
            _ => None,
        };
        let format = flag.or(by_file).or(context.config.format).unwrap_or(Format::Table);
        let on_terminal = args.output.is_none() && std::io::stdout().is_terminal();
        if on_terminal && format.is_binary() {
            return Err(Error::usage("this format would garble the terminal").with_hint("name a file with -o"));
        }
        // Not after hours.
        if let Some(folder) = args.output.as_deref().and_then(Path::parent)
            && !folder.as_os_str().is_empty()
            && !folder.is_dir()
        {
            return Err(Error::usage(format!("there is no folder {} to write to", folder.display())));
        }
        let max_rows = args.max_rows.unwrap_or(if on_terminal { 100 } else { 0 });
        Ok(Self { format, file: args.output.clone(), written: false, max_rows, quiet: args.quiet })
    }

    fn target(&mut self) -> Result<Target> {
        let Some(path) = &self.file else { return Ok(Target::stdout()) };
        if std::mem::replace(&mut self.written, true) {
            return Err(Error::usage(format!("{} takes the rows of one statement only", path.display()))
                .with_hint("run the statements one by one"));
        }
        Target::file(path)
    }
}

/// Runs the statements of all sources in order, or a shell where there are none.
pub(crate) async fn run(args: Sql, context: &Context) -> Result<()> {
    let mut output = Output::new(&args, context)?;
    let from_stdin = args.command.is_empty() && args.file.is_empty();
    if from_stdin && std::io::stdin().is_terminal() {
        let session = Session::open(&args, context).await?;
        return shell::run(&session, &mut output).await;
    }
    let script = script(&args, from_stdin)?;
    let session = Session::open(&args, context).await?;
    for statement in statements::split(&script).statements {
        execute(&session, statement, &mut output).await?;
    }
    Ok(())
}

/// All statements: those of `-c` first, then the files.
fn script(args: &Sql, from_stdin: bool) -> Result<String> {
    let mut script = String::new();
    for text in &args.command {
        script.push_str(text);
        script.push_str("\n;\n");
    }
    let stdin = from_stdin.then(|| Path::new("-"));
    for path in args.file.iter().map(std::path::PathBuf::as_path).chain(stdin) {
        script.push_str(&read(path)?);
        script.push_str("\n;\n");
    }
    Ok(script)
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().read_to_string(&mut text).map(drop),
        false => std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text)).map(drop),
    };
    read.map_err(|e| Error::from(e).context(format!("cannot read {}", path.display())))?;
    Ok(text)
}

/// Runs one statement: plan, rows to the output, a footer. Ctrl-C stops it everywhere.
async fn execute(session: &Session, sql: &str, output: &mut Output) -> Result<()> {
    let mut signals = Signals::new()?;
    let done = tokio::select! {
        done = write_rows(session, sql, output) => done,
        () = signals.next() => Err(session.interrupt().await),
    };
    let (rows, took) = done?;
    if !output.quiet {
        session.footer(rows, took).await?.iter().for_each(|line| crate::print::tell(line));
    }
    Ok(())
}

/// Tells the number of rows and the time until the last one was there.
async fn write_rows(session: &Session, sql: &str, output: &mut Output) -> Result<(u64, Duration)> {
    let start = Instant::now();
    let mut answer = session.start(sql).await?;
    // SET, CREATE and their kin have nothing to show.
    let silent = answer.schema.fields().is_empty();
    let mut writer = match silent {
        true => None,
        false => Some(output::writer(output.format, &answer.schema, output.target()?, output.max_rows)?),
    };
    let mut rows = 0;
    while let Some(batch) = answer.rows.next().await.transpose()? {
        rows += batch.num_rows() as u64;
        writer.as_mut().map(|w| w.write(&batch)).transpose()?;
    }
    let took = start.elapsed();
    writer.map(output::RowWriter::finish).transpose()?;
    Ok((rows, took))
}
