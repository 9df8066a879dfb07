//! The MySQL server that the store's database lies in.
//!
//! What always holds: neither account nor password of the URL is in any finding.

#[cfg(test)]
mod tests;

use mysql_async::Opts;

use super::Subject;
use crate::contract::chain::Chain;
use crate::doctor::{Finding, Severity, Verdict};
use crate::limits::MYSQL_CONNECT_TIMEOUT_MS;
use crate::store::StoreError;
use crate::store::mysql::look::Look;

/// The oldest versions that the store is tried with.
const MYSQL: (u32, u32) = (8, 0);
const MARIADB: (u32, u32) = (10, 11);

/// Every check of it, in the order in which it is shown.
pub(crate) fn findings(looked: &Result<Look, StoreError>, url: &Opts) -> Vec<Finding> {
    let address = format!("{}:{}", url.ip_or_hostname(), url.tcp_port());
    match looked {
        Ok(look) => vec![version(look, &address), writes(look, &address), durable(look)],
        Err(error) => {
            let subject = Subject { id: "mysql", severity: Severity::Fatal, why: "the store's database lies in it" };
            let required = format!("answers within {MYSQL_CONNECT_TIMEOUT_MS} ms");
            let current = format!("{address}: {}", Chain(error));
            vec![subject.bad(current, required, || "look at store.url, and at the server's log".to_owned())]
        }
    }
}

/// The server's name, and its version as it says it.
fn named(look: &Look) -> (&'static str, &str) {
    let (version, _) = look.version.split_once('-').unwrap_or((&look.version, ""));
    let says = |word: &str| look.version.contains(word) || look.comment.contains(word);
    let known = [("MariaDB", "MariaDB"), ("TiDB", "TiDB"), ("Percona", "Percona Server")];
    (known.iter().find(|(word, _)| says(word)).map_or("MySQL", |(_, name)| name), version)
}

fn version(look: &Look, address: &str) -> Finding {
    let why = "with another one the store has not been tried";
    let subject = Subject { id: "mysql", severity: Severity::Warning, why };
    let required = "MySQL 8.0, MariaDB 10.11, or newer".to_owned();
    let (name, version) = named(look);
    let current = format!("{name} {version}");
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return subject.unseen(current, required, format!("mysql --host {address} --execute 'SELECT VERSION()'"));
    };
    let is_good = match name {
        "MariaDB" => (major, minor) >= MARIADB,
        "TiDB" => false,
        _ => (major, minor) >= MYSQL,
    };
    subject.seen(current, required, Verdict::good_if(is_good), || format!("run one of these at {address}"))
}

fn writes(look: &Look, address: &str) -> Finding {
    let why = "what is acked stays in the journals, until that is full and senders are refused";
    let subject = Subject { id: "mysql.read_only", severity: Severity::Fatal, why };
    let current = if look.is_read_only { "on" } else { "off" };
    subject.seen(current.to_owned(), "off".to_owned(), Verdict::good_if(!look.is_read_only), || {
        format!("SET GLOBAL read_only = 0, or name the primary in store.url instead of {address}")
    })
}

fn durable(look: &Look) -> Finding {
    let why = "a power loss of the server may take messages that the journal has given up already";
    let subject = Subject { id: "mysql.innodb_flush_log_at_trx_commit", severity: Severity::Warning, why };
    subject.seen(look.flush_at_commit.to_string(), "1".to_owned(), Verdict::good_if(look.flush_at_commit == 1), || {
        "SET GLOBAL innodb_flush_log_at_trx_commit = 1, and the same in the server's configuration".to_owned()
    })
}
