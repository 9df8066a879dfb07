//! The databases that tests use: the ones that `scripts/services.sh` starts, or those that the environment names.
//!
//! What always holds: a test has a database of its own, which goes when the test ends; and a test that stops or
//! kills a server has a server of its own.
#![allow(dead_code, reason = "unit tests and end-to-end tests each use a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Opts};

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
pub fn script(arguments: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services.sh");
    let output = Command::new(path).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/services.sh {}: {errors}", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

/// A test's own database on the shared server, or on another.
pub struct Database {
    server: String,
    name: String,
}

impl Database {
    /// An empty one on the shared server.
    pub fn create() -> Database {
        Database::create_on(shared_url())
    }

    /// An empty one on a server, by the URL of any database there.
    pub fn create_on(server: &str) -> Database {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("ringway_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let server = server.rsplit_once('/').expect("a URL with a database").0.to_owned() + "/";
        let database = Database { server, name };
        on(&database.server, &format!("CREATE DATABASE {}", database.name)).unwrap();
        database
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("{}{}", self.server, self.name)
    }

    /// The same for the driver.
    pub fn opts(&self) -> Opts {
        Opts::from_url(&self.url()).unwrap()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a statement.
    pub fn sql(&self, statement: &str) {
        on(&self.url(), statement).unwrap();
    }

    /// Rows of a query.
    pub fn rows<T: FromRow + Send + 'static>(&self, query: &str) -> Vec<T> {
        rows_on(&self.url(), query).unwrap()
    }

    /// Rows of a table.
    pub fn count(&self, table: &str) -> u64 {
        self.rows(&format!("SELECT COUNT(*) FROM {table}"))[0]
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A server that was stopped by its test took the database with it.
        on(&self.server, &format!("DROP DATABASE IF EXISTS {}", self.name)).ok();
    }
}

/// Runs a statement on a server.
pub fn on(url: &str, statement: &str) -> Result<(), mysql_async::Error> {
    rows_on::<mysql_async::Row>(url, statement).map(drop)
}

fn rows_on<T: FromRow + Send + 'static>(url: &str, query: &str) -> Result<Vec<T>, mysql_async::Error> {
    let opts = Opts::from_url(url)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let mut conn = Conn::new(mysql_async::OptsBuilder::from_opts(opts).prefer_socket(false)).await?;
        let rows = conn.query(query).await?;
        conn.disconnect().await?;
        Ok(rows)
    })
}
