//! Processes that outlive the command that started them.

use super::state::{State, boot_id};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Every process we start, and what it starts, has this variable; its value is the state folder.
pub const MARK: &str = "MIZUYA_KUBERNETES_MARK";
/// How long the kernel may take to end a killed process.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// Lines of a log that go into an error message.
const LOG_TAIL: usize = 15;

/// One background process, known by its pid file.
#[derive(Debug)]
pub struct Daemon<'a> {
    state: &'a State,
    name: String,
}

/// A process for sure: its number alone may be another process's by now.
#[derive(Debug, Serialize, Deserialize)]
struct PidFile {
    pid: i32,
    /// Clock ticks after boot, as in `/proc/<pid>/stat`.
    started: u64,
    boot_id: String,
}

impl<'a> Daemon<'a> {
    /// The daemon of that name, running or not.
    pub fn new(state: &'a State, name: impl Into<String>) -> Self {
        Self { state, name: name.into() }
    }

    /// Starts it in a session of its own, with its output in its log; does nothing when it runs.
    pub fn start(&self, command: &Command) -> Result<()> {
        self.start_with(command, |_| {})
    }

    /// As [`Self::start`], with more settings than arguments and environment, such as the user it runs as.
    pub fn start_with(&self, command: &Command, settings: impl FnOnce(&mut Command)) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        self.state.folder("logs")?;
        self.state.folder("pids")?;
        let log = File::options().create(true).append(true).open(self.log())?;
        // setsid replaces itself, so the child's id stays the daemon's.
        let mut child = Command::new("setsid");
        child.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            child.env(key, value.unwrap_or_default());
        }
        child.env(MARK, self.state.root()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        child.current_dir(self.state.root());
        settings(&mut child);
        let child = child.spawn().with_context(|| format!("can't start {}", self.name))?;
        let pid = child.id().cast_signed();
        let started = start_time(pid).with_context(|| format!("{} ended at once", self.name))?;
        let file = serde_json::to_string(&PidFile { pid, started, boot_id: boot_id()? })?;
        fs::write(self.pid_file(), file).with_context(|| format!("can't write {}", self.pid_file().display()))
    }

    /// The process's id while it runs.
    pub fn pid(&self) -> Option<i32> {
        let file: PidFile = serde_json::from_str(&fs::read_to_string(self.pid_file()).ok()?).ok()?;
        let same = boot_id().ok()? == file.boot_id && start_time(file.pid)? == file.started;
        same.then_some(file.pid)
    }

    /// Fails with the end of its log unless it runs.
    pub fn check(&self) -> Result<()> {
        if self.pid().is_none() {
            bail!("{} is not running; its log {} ends with:\n{}", self.name, self.log().display(), self.log_tail());
        }
        Ok(())
    }

    /// Ends it: politely, and after `grace` by force.
    pub fn stop(&self, grace: Duration) -> Result<()> {
        if let Some(pid) = self.pid() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let deadline = Instant::now() + grace;
            while self.pid().is_some() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.kill()
    }

    /// Ends it by force.
    pub fn kill(&self) -> Result<()> {
        if let Some(pid) = self.pid() {
            kill_all(&[pid])?;
        }
        match fs::remove_file(self.pid_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The file with everything it printed.
    pub fn log(&self) -> PathBuf {
        self.state.path(&format!("logs/{}.log", self.name))
    }

    /// The last lines it printed.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }

    fn pid_file(&self) -> PathBuf {
        self.state.path(&format!("pids/{}.json", self.name))
    }
}

/// The processes that carry this state folder's mark, whether or not a pid file names them.
pub fn marked(state: &State) -> Vec<i32> {
    let mark = format!("{MARK}={}", state.root().display());
    processes().filter(|pid| environment_has(*pid, mark.as_bytes())).collect()
}

/// The marked processes one of whose arguments is `argument`.
pub fn marked_with_argument(state: &State, argument: &str) -> Vec<i32> {
    let has = |pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|one| one == argument.as_bytes())
    };
    marked(state).into_iter().filter(has).collect()
}

/// Kills the processes and waits until they are gone.
pub fn kill_all(pids: &[i32]) -> Result<()> {
    let alive: Vec<_> = pids.iter().filter_map(|pid| Some((*pid, start_time(*pid)?))).collect();
    for (pid, _) in &alive {
        // It may have ended by itself meanwhile.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    let deadline = Instant::now() + KILL_LIMIT;
    while alive.iter().any(|(pid, started)| start_time(*pid) == Some(*started)) {
        if Instant::now() > deadline {
            bail!("some of the processes {pids:?} are still there {} s after SIGKILL", KILL_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn environment_has(pid: i32, mark: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|one| one == mark)
}

/// Clock ticks after boot at which a process started; nothing for one that ended, reaped or not.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let status = fields.next()?;
    if matches!(status, "Z" | "X") {
        return None;
    }
    // Field 22 of proc(5), counted from the third, of which one is taken.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_has_a_start_time_and_an_ended_one_has_none() {
        let own = std::process::id().cast_signed();
        assert!(start_time(own).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time(i32::MAX), None);
    }
}
