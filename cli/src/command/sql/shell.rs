//! The interactive shell: statements end with a semicolon, commands start with a backslash.

use std::borrow::Cow;

use conun_types::{Error, Result};
use rustyline::{
    Editor, Helper,
    completion::Completer,
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::FileHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::{Output, Session, execute};
use crate::{config::history_path, output::Format, print, statements};

const HELP: &str = r"  statements end with ;      select * from 'flights.parquet';
  \d                         list tables
  \d TABLE                   describe a table
  \format FORMAT             table, csv, json, ndjson, markdown
  \q                         leave (Ctrl-D too); Ctrl-C stops a statement";

/// The user's own tables, not the catalog's.
const TABLES: &str =
    "select table_name from information_schema.tables where table_schema <> 'information_schema' order by table_name";

/// Asks for more lines until a statement is closed.
struct Lines;

impl Helper for Lines {}
impl Hinter for Lines {
    type Hint = String;
}
impl Completer for Lines {
    type Candidate = String;
}
impl Highlighter for Lines {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _default: bool) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }
}

impl Validator for Lines {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input();
        let done = input.trim_start().starts_with('\\') || statements::split(input).complete;
        Ok(if done { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// What the user typed.
enum Input {
    Text(String),
    /// Ctrl-C: the line is dropped.
    Dropped,
    /// Ctrl-D.
    End,
}

/// Reads and runs until the user leaves. Errors are told and the shell goes on.
pub(super) async fn run(session: &Session, output: &mut Output) -> Result<()> {
    let mut editor = editor()?;
    crate::print::tell(concat!("conun ", env!("CARGO_PKG_VERSION"), ", \\? for help"));
    loop {
        let result = match read(&mut editor)? {
            Input::End => break,
            Input::Dropped => continue,
            Input::Text(text) if text.trim() == "\\q" => break,
            Input::Text(text) => Box::pin(evaluate(session, &text, output)).await,
        };
        if let Err(error) = result {
            crate::report(&error);
        }
    }
    if let Some(path) = history_path() {
        // A history that cannot be kept is no reason to complain on the way out.
        let _ = path.parent().map(std::fs::create_dir_all);
        let _ = editor.save_history(&path);
    }
    Ok(())
}

fn editor() -> Result<Editor<Lines, FileHistory>> {
    let mut editor = Editor::new().map_err(|e| failed(&e))?;
    editor.set_helper(Some(Lines));
    if let Some(path) = history_path() {
        let _ = editor.load_history(&path);
    }
    Ok(editor)
}

fn failed(error: &ReadlineError) -> Error {
    Error::internal(format!("the terminal failed: {error}"))
}

fn read(editor: &mut Editor<Lines, FileHistory>) -> Result<Input> {
    // Reading blocks this thread; the others keep the connection alive.
    match tokio::task::block_in_place(|| editor.readline("conun> ")) {
        Ok(text) => {
            let _ = editor.add_history_entry(text.as_str());
            Ok(Input::Text(text))
        }
        Err(ReadlineError::Interrupted) => Ok(Input::Dropped),
        Err(ReadlineError::Eof) => Ok(Input::End),
        Err(error) => Err(failed(&error)),
    }
}

async fn evaluate(session: &Session, text: &str, output: &mut Output) -> Result<()> {
    let Some(command) = text.trim().strip_prefix('\\') else {
        for statement in statements::split(text).statements {
            execute(session, statement, output).await?;
        }
        return Ok(());
    };
    match command.split_once(' ').map_or((command, ""), |(name, rest)| (name, rest.trim())) {
        ("?" | "h" | "help", _) => print::line(HELP),
        ("d", "") => execute(session, TABLES, output).await,
        ("d", table) => execute(session, &format!("describe {table}"), output).await,
        ("format", name) => {
            let format: Format = name.parse()?;
            if format.is_binary() && output.file.is_none() {
                return Err(Error::usage("this format would garble the terminal"));
            }
            output.format = format;
            Ok(())
        }
        (other, _) => Err(Error::usage(format!("unknown command \\{other}")).with_hint("\\? lists the commands")),
    }
}
