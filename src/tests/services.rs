//! The databases that tests use: the ones that `scripts/services.sh` starts, or those that the environment names.
//!
//! What always holds: a test has a database of its own, which goes when the test ends; and a test that stops or
//! kills a server has a server of its own.
#![allow(dead_code, reason = "unit tests and end-to-end tests each use a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Opts};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// How long a server may take to start or to stop on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The URL of the MariaDB that the tests share.
fn shared_url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| match std::env::var("RINGWAY_TEST_MYSQL_URL") {
        Ok(url) if !url.is_empty() => url,
        _ => {
            script(&["up"]);
            let status = script(&["status"]);
            status.lines().find(|line| line.starts_with("mysql://")).expect("a MariaDB runs").to_owned()
        }
    })
}

/// Runs `scripts/services.sh`; returns what it printed.
pub(crate) fn script(arguments: &[&str]) -> String {
    let output = Command::new(script_path()).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/services.sh {}: {errors}", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

/// `scripts/services.sh`.
pub(crate) fn script_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services.sh")
}

/// A test's own database on the shared server, or on another.
pub(crate) struct Database {
    server: String,
    name: String,
}

impl Database {
    /// An empty one on the shared server.
    pub(crate) fn create() -> Database {
        Database::create_on(shared_url())
    }

    /// An empty one on a server, by the URL of any database there.
    pub(crate) fn create_on(server: &str) -> Database {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("ringway_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let server = server.rsplit_once('/').expect("a URL with a database").0.to_owned() + "/";
        let database = Database { server, name };
        on(&database.server, &format!("CREATE DATABASE {}", database.name)).unwrap();
        database
    }

    /// One whose directory the server has found in its own when it started.
    pub(crate) fn found_on(server: &str, name: &str) -> Database {
        let server = server.rsplit_once('/').expect("a URL with a database").0.to_owned() + "/";
        Database { server, name: name.to_owned() }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("{}{}", self.server, self.name)
    }

    /// The same for the driver.
    pub(crate) fn opts(&self) -> Opts {
        Opts::from_url(&self.url()).unwrap()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs a statement.
    pub(crate) fn sql(&self, statement: &str) {
        on(&self.url(), statement).unwrap();
    }

    /// Rows of a query.
    pub(crate) fn rows<T: FromRow + Send + 'static>(&self, query: &str) -> Vec<T> {
        rows_on(&self.url(), query).unwrap()
    }

    /// Rows of a table.
    pub(crate) fn count(&self, table: &str) -> u64 {
        self.rows(&format!("SELECT COUNT(*) FROM {table}"))[0]
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A server that was stopped by its test took the database with it.
        on(&self.server, &format!("DROP DATABASE IF EXISTS {}", self.name)).ok();
    }
}

/// A MariaDB of a test's own, which may be stopped, killed and started again.
pub(crate) struct MariaDb {
    dir: PathBuf,
    port: u16,
    options: Vec<String>,
    child: Option<Child>,
}

impl MariaDb {
    /// Starts one whose data is in `dir`, which is made.
    pub(crate) fn start(dir: &Path, options: &[&str]) -> MariaDb {
        let mut server = MariaDb::stopped(dir, options);
        server.resume();
        server
    }

    /// The same, by a program that has [`script_path`] as its last argument and takes more.
    pub(crate) fn start_under(dir: &Path, options: &[&str], command: &mut Command) -> MariaDb {
        let mut server = MariaDb::stopped(dir, options);
        server.launch(command);
        server
    }

    fn stopped(dir: &Path, options: &[&str]) -> MariaDb {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        MariaDb { dir: dir.to_owned(), port, options, child: None }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// The URL of a database that every server has.
    pub(crate) fn url(&self) -> String {
        format!("mysql://ringway:ringway@127.0.0.1:{}/mysql", self.port)
    }

    /// Starts it again, on the same data, and waits until it answers.
    pub(crate) fn resume(&mut self) {
        self.launch(&mut Command::new(script_path()));
    }

    /// The same, by a program that has the script's path as its last argument and takes more.
    pub(crate) fn launch(&mut self, command: &mut Command) {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        command.arg("mariadb").arg(&self.dir).arg(self.port.to_string()).args(&self.options);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        for _ in 0..PATIENCE.as_millis() / 20 {
            if on(&self.url(), "SELECT 1").is_ok() {
                return;
            }
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "MariaDB ended with {ended:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("MariaDB does not answer:\n{}", self.log());
    }

    /// SIGTERM, and waits until it has ended.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let mut child = self.child.take().unwrap();
        for _ in 0..PATIENCE.as_millis() / 20 {
            if child.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child = Some(child);
        panic!("MariaDB does not end:\n{}", self.log());
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(self.pid().try_into().unwrap()), signal).unwrap();
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.with_extension("log")
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Runs a statement on a server.
pub(crate) fn on(url: &str, statement: &str) -> Result<(), mysql_async::Error> {
    rows_on::<mysql_async::Row>(url, statement).map(drop)
}

fn rows_on<T: FromRow + Send + 'static>(url: &str, query: &str) -> Result<Vec<T>, mysql_async::Error> {
    let opts = Opts::from_url(url)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let asked = async {
            let mut conn = Conn::new(mysql_async::OptsBuilder::from_opts(opts).prefer_socket(false)).await?;
            let rows = conn.query(query).await?;
            conn.disconnect().await?;
            Ok(rows)
        };
        // One that stands still answers nothing, and a test that has failed must end.
        let late = |_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(late)
    })
}
