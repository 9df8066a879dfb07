//! Programs of the host, run to their end.

use std::process::{Command, Output, Stdio};

use crate::error::Failure;

/// Runs a command line; gives what it printed.
pub(crate) fn run(words: &[&str]) -> Result<String, Failure> {
    let command = words.join(" ");
    let [program, arguments @ ..] = words else { return Ok(String::new()) };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| Failure::Command { command: command.clone(), said: error.to_string() })?;
    let Output { status, stdout, stderr } = output;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).join(" ");
    Err(Failure::Command { command, said })
}
