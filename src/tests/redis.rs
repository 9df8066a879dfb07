//! A Redis of a test's own, which it may stop, kill and empty.
//!
//! Owned by the test that started it. What always holds: one that is dropped leaves no process behind.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::gateway::{PATIENCE, pause, signal};

/// A running Redis that keeps what it acknowledges.
pub struct Redis {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Redis {
    /// Starts one on a free port and waits until it answers.
    pub fn start() -> Redis {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let redis = Redis { child: spawn(port, dir.path()), port, dir };
        redis.wait();
        redis
    }

    /// For `cluster.redis_url`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// SIGKILL; it stays away until [`Self::start_again`].
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// After a kill: the same data on the same port.
    pub fn start_again(&mut self) {
        self.child = spawn(self.port, self.dir.path());
        self.wait();
    }

    /// A copy of its data as they are now.
    pub fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_files(self.dir.path(), copy.path());
        copy
    }

    /// After a kill: puts the data of a copy in place of its own.
    pub fn put_back(&self, copy: &tempfile::TempDir) {
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            }
        }
        copy_files(copy.path(), self.dir.path());
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, which: Signal) {
        signal(self.child.id(), which).unwrap();
    }

    /// One command; returns the first line of what it answers, or what is wrong.
    pub fn command(&self, words: &[&str]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes())?;
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    fn wait(&self) {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if self.command(&["PING"]).is_ok_and(|answer| answer.starts_with("+PONG")) {
                return;
            }
            pause(Duration::from_millis(10));
        }
        panic!("Redis does not answer on port {}", self.port);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_files(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

fn spawn(port: u16, dir: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("redis.log")).unwrap();
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always"])
        .args(["--save", "", "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone().unwrap()))
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap()
}
