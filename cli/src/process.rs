//! Other processes of this program: starting them, waiting until they serve, stopping them, and never touching a
//! stranger that got a recycled process id.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use conun_types::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::service::Ready;

/// How long a process may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often files and processes are looked at.
const POLL: Duration = Duration::from_millis(10);

/// A process for certain: its id and when the system started it, as the system counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// Process id.
    pub(crate) pid: u32,
    /// Clock ticks after boot (Linux).
    pub(crate) started: u64,
}

/// What `/proc` tells of a process.
struct Stat {
    state: char,
    started: u64,
}

impl ProcessId {
    /// The running process `pid`, if it is one.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        read_stat(pid).map(|stat| Self { pid, started: stat.started })
    }

    /// Whether that very process still runs. One that ended and waits for its parent does not.
    pub(crate) fn is_alive(self) -> bool {
        read_stat(self.pid).is_some_and(|s| s.started == self.started && !matches!(s.state, 'Z' | 'X'))
    }

    /// Asks it to stop.
    pub(crate) fn terminate(self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Stops it at once.
    pub(crate) fn kill(self) {
        self.signal(rustix::process::Signal::KILL);
    }

    fn signal(self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.is_alive()) {
            // It may end between the look and the signal; then there is nothing left to do.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Fields 3 (state) and 22 (start time) of `/proc/PID/stat`; the name in field 2 may hold spaces and parentheses.
/// Without `/proc` (not Linux) the id alone has to do.
fn read_stat(pid: u32) -> Option<Stat> {
    if !cfg!(target_os = "linux") {
        let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)?;
        return rustix::process::test_kill_process(raw).is_ok().then_some(Stat { state: 'R', started: 0 });
    }
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some(Stat { state: fields.first()?.chars().next()?, started: fields.get(19)?.parse().ok()? })
}

/// Asks all to stop, waits for `patience`, then stops those that are left.
pub(crate) async fn stop_all(processes: &[ProcessId], patience: Duration) {
    processes.iter().for_each(|p| p.terminate());
    if !all_gone(processes, patience).await {
        processes.iter().for_each(|p| p.kill());
        all_gone(processes, Duration::from_secs(5)).await;
    }
}

async fn all_gone(processes: &[ProcessId], patience: Duration) -> bool {
    let end = Instant::now() + patience;
    while processes.iter().any(|p| p.is_alive()) {
        if Instant::now() > end {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// How a service is to be started.
pub(crate) struct Launch {
    /// Arguments of `conun`; `--json` comes with it.
    pub(crate) args: Vec<OsString>,
    /// Name of its files in `dir`: `NAME.log` takes stderr, `NAME.out` the line that tells of readiness.
    pub(crate) name: String,
    /// Where its files lie.
    pub(crate) dir: PathBuf,
    /// Whether it goes on when this process ends. Otherwise it stops by itself, even if this one is killed.
    pub(crate) outlives: bool,
}

/// A service that serves. Dropping it kills the process; [`Service::release`] lets it go on.
pub(crate) struct Service {
    child: Option<Child>,
    /// What it told of itself.
    pub(crate) ready: Ready,
    /// Who it is to the system.
    pub(crate) process: ProcessId,
}

impl Service {
    /// Starts a service and waits until it serves.
    ///
    /// # Errors
    /// The service's own error where it ends instead, with its kind.
    pub(crate) async fn start(launch: &Launch) -> Result<Self> {
        let mut guard = Starting { child: Some(spawn(launch)?) };
        let ready = wait_ready(&mut guard, launch).await?;
        let child = guard.child.take().ok_or_else(|| Error::internal("a child process is missing"))?;
        let process = ProcessId::of(child.id())
            .ok_or_else(|| Error::unavailable(format!("{} ended as soon as it was ready", launch.name)))?;
        Ok(Self { child: Some(child), ready, process })
    }

    /// Lets the process go on when this one ends.
    pub(crate) fn release(mut self) {
        self.child = None;
    }

    /// Kills it at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself; then there is nothing to kill, only to reap.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A child that is killed if nobody takes it.
struct Starting {
    child: Option<Child>,
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(launch: &Launch) -> Result<Child> {
    let named = |e: std::io::Error| Error::from(e).context(format!("cannot start {}", launch.name));
    let exe = std::env::current_exe().map_err(named)?;
    let file = |suffix: &str| File::create(launch.dir.join(format!("{}.{suffix}", launch.name))).map_err(named);
    let mut command = Command::new(exe);
    command.args(&launch.args).arg("--json").stdout(file("out")?).stderr(file("log")?);
    if launch.outlives {
        command.stdin(Stdio::null());
    } else {
        command.arg("--die-with-parent").stdin(Stdio::piped());
    }
    #[cfg(unix)]
    {
        // Ctrl-C in a terminal reaches the whole group: these are stopped by us, in order.
        use std::os::unix::process::CommandExt;
        command.process_group(0);
    }
    command.spawn().map_err(named)
}

async fn wait_ready(guard: &mut Starting, launch: &Launch) -> Result<Ready> {
    let out = launch.dir.join(format!("{}.out", launch.name));
    let end = Instant::now() + START_LIMIT;
    loop {
        if let Some(ready) = read_ready(&out) {
            return Ok(ready);
        }
        let exited = guard.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = exited {
            return Err(failure(launch, status.code()));
        }
        if Instant::now() > end {
            return Err(Error::unavailable(format!("{} was not ready in time", launch.name)).with_hint(see_log(launch)));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The line, once it is complete.
fn read_ready(out: &Path) -> Option<Ready> {
    let text = fs::read_to_string(out).ok()?;
    serde_json::from_str(text.split_once('\n')?.0).ok()
}

fn see_log(launch: &Launch) -> String {
    format!("see {}", launch.dir.join(format!("{}.log", launch.name)).display())
}

/// The error that a service printed before it ended.
fn failure(launch: &Launch, code: Option<i32>) -> Error {
    let log = fs::read_to_string(launch.dir.join(format!("{}.log", launch.name))).unwrap_or_default();
    let last = |prefix: &str| log.lines().rev().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
    let message = last("error: ").unwrap_or_else(|| "it ended without a word".to_owned());
    let hint = last("hint: ").unwrap_or_else(|| see_log(launch));
    Error::new(kind_of(code), format!("{}: {message}", launch.name)).with_hint(hint)
}

/// The kind behind an exit code.
fn kind_of(code: Option<i32>) -> ErrorKind {
    let kinds = [ErrorKind::Usage, ErrorKind::Data, ErrorKind::Unavailable, ErrorKind::Budget, ErrorKind::Verification];
    kinds.into_iter().find(|k| Some(i32::from(k.exit_code())) == code).unwrap_or(ErrorKind::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { started: me.started + 1, ..me }.is_alive(), "a recycled id is somebody else");
        assert!(ProcessId::of(u32::MAX - 1).is_none());
    }

    #[tokio::test]
    async fn stopping_ends_even_the_deaf() {
        let mut child = Command::new("sh").args(["-c", "trap '' TERM; sleep 60 & wait; sleep 60"]).spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop_all(&[process], Duration::from_millis(200)).await;
        assert!(!process.is_alive());
        child.wait().unwrap();
    }

    #[test]
    fn exit_codes_lead_back_to_kinds() {
        for kind in [ErrorKind::Usage, ErrorKind::Data, ErrorKind::Unavailable, ErrorKind::Verification] {
            assert_eq!(kind_of(Some(i32::from(kind.exit_code()))), kind);
        }
        assert_eq!([kind_of(Some(1)), kind_of(None), kind_of(Some(77))], [ErrorKind::Internal; 3]);
    }
}
