//! Runs a command and measures what it and the daemons behind it used.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::proc;
use crate::Result;

/// Between two looks at memory. Short queries see few of them; a process's own peak is kept by the kernel.
const LOOK: Duration = Duration::from_millis(10);
/// A query that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What one query cost.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(super) struct Sample {
    /// Seconds from start to exit; for a contender that starts slowly for reasons of its own (Python), the seconds
    /// that it says it took.
    pub(super) wall: f64,
    /// Seconds of CPU, user and system, of all processes.
    pub(super) cpu: f64,
    /// Bytes: the command's own peak, and the most that the daemons had together.
    pub(super) memory: u64,
    /// Bytes over the loopback device, by anybody on the machine.
    pub(super) moved: u64,
}

/// Runs `command`, with `daemons` working for it. Gives its output, or what it said when it failed.
pub(super) fn run(command: &mut Command, daemons: &[u32]) -> Result<(Sample, Result<String, String>)> {
    let (daemons_before, children_before) = (proc::usage(daemons), proc::waited_children_cpu());
    let moved_before = proc::loopback_bytes();
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let (success, memory) = wait(&mut child, daemons)?;
    let wall = start.elapsed().as_secs_f64();
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    let cpu = proc::waited_children_cpu() - children_before + proc::usage(daemons).cpu - daemons_before.cpu;
    let moved = proc::loopback_bytes().saturating_sub(moved_before);
    let sample = Sample { wall: said_seconds(&stderr).unwrap_or(wall), cpu, memory, moved };
    Ok((sample, if success { Ok(stdout) } else { Err(failure(&stderr)) }))
}

/// The line in which a command says why it failed.
fn failure(stderr: &str) -> String {
    let mut lines = stderr.lines().filter(|line| !line.trim().is_empty());
    let told = lines.clone().find(|line| line.starts_with("error")).or_else(|| lines.next());
    told.unwrap_or("failed without a word").to_owned()
}

/// Reads a pipe to its end on its own thread, so that the child never waits for us.
fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A pipe that breaks ends the text; the exit code tells the rest.
            _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the end and watches memory meanwhile: (success, peak bytes).
fn wait(child: &mut Child, daemons: &[u32]) -> Result<(bool, u64)> {
    let start = Instant::now();
    let (mut own, mut others) = (0, 0);
    loop {
        own = proc::peak_memory(child.id()).unwrap_or(0).max(own);
        others = proc::usage(daemons).resident.max(others);
        if let Some(status) = child.try_wait()? {
            return Ok((status.success(), own + others));
        }
        if start.elapsed() > TIMEOUT {
            child.kill()?;
        }
        thread::sleep(LOOK);
    }
}

/// The seconds in a line `seconds=1.23`, where a contender wrote one.
fn said_seconds(stderr: &str) -> Option<f64> {
    stderr.lines().rev().find_map(|line| line.strip_prefix("seconds=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_command_is_measured() -> Result<()> {
        let (sample, output) = run(&mut shell("echo x; sleep 0.1"), &[])?;
        assert_eq!(output, Ok("x\n".to_owned()));
        assert!(sample.wall >= 0.1 && sample.memory > 0, "{sample:?}");
        Ok(())
    }

    #[test]
    fn failures_and_said_seconds_are_told() -> Result<()> {
        let (sample, output) = run(&mut shell("echo seconds=0.25 >&2; echo 'error: bad' >&2; exit 3"), &[])?;
        assert_eq!((sample.wall, output), (0.25, Err("error: bad".to_owned())));
        assert_eq!(failure("\n"), "failed without a word");
        assert_eq!(said_seconds("seconds=x\n"), None);
        Ok(())
    }
}
