//! The tuning scripts, run as they are: on copies of a host, and for real in namespaces of their own.
//!
//! What always holds: no test changes a setting of the machine that it runs on.

mod copies;
mod host;
mod installed;
mod real;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// One of the scripts in `tuning/`.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(name)
}

/// Runs a command, in the words of every system.
fn run(command: &mut Command) -> Said {
    Said::from(command.env("LC_ALL", "C").output().unwrap())
}

/// What a script said, and how it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Said {
    code: Option<i32>,
    text: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        Said { code: output.status.code(), text }
    }
}

impl Said {
    /// The same, if it ended with this code.
    fn with(self, code: i32) -> Said {
        assert_eq!(self.code, Some(code), "{}", self.text);
        self
    }

    /// The lines that begin with this label.
    fn lines(&self, label: &str) -> Vec<&str> {
        self.text.lines().filter_map(|line| line.strip_prefix(label)).map(str::trim).collect()
    }

    fn says(&self, words: &str) {
        assert!(self.text.contains(words), "expected {words:?} in:\n{}", self.text);
    }
}
