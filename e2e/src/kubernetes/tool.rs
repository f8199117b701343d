//! Other programs that are run to their end.

use anyhow::{Context, Result, bail};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs `command` and returns what it printed.
///
/// # Errors
/// When it can't be started or fails; the message has its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let result = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't start {}", command.get_program().display()))?;
    checked(command, &result)
}

/// Runs `command`, gives it `input` and returns what it printed.
pub fn output_for(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {}", command.get_program().display()))?;
    // All inputs here are far smaller than what the program reads before it writes.
    child.stdin.take().context("the pipe was just made")?.write_all(input.as_bytes())?;
    let result = child.wait_with_output()?;
    checked(command, &result)
}

/// Runs `command` for its effect alone.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Whether a program of this name can be run.
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A plain user's PATH lacks the folders of iptables and others.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.into_iter().any(|folder| folder.join(program).is_file())
}

fn checked(command: &Command, result: &Output) -> Result<String> {
    if !result.status.success() {
        bail!("`{}` failed ({}): {}", line(command), result.status, String::from_utf8_lossy(&result.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

fn line(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    std::iter::once(command.get_program().to_string_lossy()).chain(arguments).collect::<Vec<_>>().join(" ")
}
