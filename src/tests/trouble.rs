//! Whatever is wrong with a MySQL server: one line of the log says so and a metric counts it by cause, messages are
//! taken and delivered meanwhile, and it goes on by itself once the server is mended. What was configured wrongly is
//! refused at start.

use std::path::{Path, PathBuf};
use std::process::Command;

use mysql_async::prelude::Queryable;
use ringway_client::Event;
use ringway_wire::ids::{Conversation, MsgId, Seq, UserId};
use tokio::runtime::Runtime;

use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, SECRET};
use crate::services::{Database, MariaDb, script_path};

/// The account of a gateway: these rights are enough for all it does.
const ACCOUNT: &str = "gateway";
const RIGHTS: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE";

/// A MariaDB of its own, and a gateway that stores in it.
struct Bed {
    mariadb: MariaDb,
    database: Database,
    gateway: Gateway,
    sender: Connection,
    receiver: Connection,
    received: Vec<(Seq, MsgId)>,
    sent: Vec<MsgId>,
}

impl Bed {
    fn start(dir: &Path, mariadb: MariaDb, database: Database) -> Bed {
        make_account(&database);
        let data_dir = dir.join("data");
        std::fs::create_dir(&data_dir).unwrap();
        let mut command = Gateway::command(&data_dir, &["--shards", "1", "--set", "log.format=json"]);
        command.env("RINGWAY_STORE_URL", account_url(&database, ACCOUNT));
        let gateway = Gateway::spawn(&data_dir, &mut command);
        let (sender, receiver) = (gateway.client(1, 1, None), gateway.client(2, 1, Some(Seq(0))));
        let mut bed = Bed { mariadb, database, gateway, sender, receiver, received: Vec::new(), sent: Vec::new() };
        bed.send(b"while all is well");
        bed.await_stored();
        bed
    }

    /// A message that is acked, and delivered.
    fn send(&mut self, body: &[u8]) {
        let id = self.sender.new_client_msg_id();
        let request = self.sender.send(Conversation::User(UserId(2)), id, body).unwrap();
        let Event::Sent { msg_id, .. } = self.sender.answer(request, PATIENCE).unwrap() else {
            panic!("the message was not acked")
        };
        self.sent.push(msg_id);
        let Some(Event::Row(row)) = self.receiver.next(PATIENCE).unwrap() else { panic!("it was not delivered") };
        assert_eq!((row.msg_id, row.body.as_slice()), (msg_id, body));
        self.received.push((row.seq, row.msg_id));
    }

    fn await_stored(&mut self) {
        let (database, sent) = (&self.database, self.sent.len() as u64);
        self.gateway.wait_until("everything is stored", |_| database.count("messages") >= sent);
    }

    /// Ends the gateway's connections: what is asked only of new ones is asked of them now.
    fn cut_connections(&self) {
        let ask = format!("SELECT id FROM information_schema.processlist WHERE user = '{ACCOUNT}'");
        for id in self.database.rows::<u64>(&ask) {
            self.database.sql(&format!("KILL {id}"));
        }
    }

    /// What the log says about the store being written, since the gateway started.
    fn said(&self) -> Vec<String> {
        let log = self.gateway.log();
        let lines = log.lines().filter(|line| line.contains("\"cause\":"));
        lines.map(ToOwned::to_owned).collect()
    }

    /// A trouble begins: a message is acked and delivered all the same, the metric counts the cause, and one line of
    /// the log has these words.
    fn suffers(&mut self, cause: &str, words: &[&str]) {
        self.send(b"in trouble");
        let name = format!("ringway_store_refusals_total{{cause=\"{cause}\"}}");
        // Several attempts, and one line.
        self.gateway.wait_until(&format!("{name} is at least 3"), |gateway| metric(gateway, &name) >= Some(3));
        assert_eq!(metric(&self.gateway, "ringway_store_unavailable"), Some(1));
        let named = format!("\"cause\":\"{cause}\"");
        let lines: Vec<String> = self.said().into_iter().filter(|line| line.contains(&named)).collect();
        assert_eq!(lines.len(), 1, "one line says so:\n{}", self.gateway.log());
        for word in words {
            assert!(lines[0].contains(word), "expected {word:?} in {}", lines[0]);
        }
        let readyz = self.gateway.admin_page("/readyz");
        assert!(readyz.contains("200") && readyz.contains("ready, degraded: "), "{readyz}");
        self.send(b"still in trouble");
    }

    /// The server was mended: everything lands, once.
    fn recovers(mut self) {
        self.gateway.wait_until("the store takes writes again", |gateway| {
            metric(gateway, "ringway_store_unavailable") == Some(0)
        });
        self.send(b"after it");
        self.await_stored();
        assert!(self.gateway.log().contains("the journal is being applied to the store again"));
        let stored: Vec<(Seq, MsgId)> = self
            .database
            .rows::<(u64, u64)>("SELECT seq, msg_id FROM inbox WHERE user_id = 2 ORDER BY seq")
            .into_iter()
            .map(|(seq, msg_id)| (Seq(seq), MsgId(msg_id)))
            .collect();
        assert_eq!(stored, self.received);
        let messages: Vec<u64> = self.database.rows("SELECT msg_id FROM messages ORDER BY msg_id");
        assert_eq!(messages.into_iter().map(MsgId).collect::<Vec<_>>(), self.sent);
        assert_eq!(metric(&self.gateway, "ringway_store_broken"), Some(0));
        self.gateway.terminate();
        assert!(self.gateway.wait().success());
    }
}

/// A metric, with its labels.
fn metric(gateway: &Gateway, name: &str) -> Option<u64> {
    let page = gateway.admin_page("/metrics");
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn make_account(database: &Database) {
    database.sql(&format!("CREATE USER IF NOT EXISTS '{ACCOUNT}'@'%' IDENTIFIED BY '{ACCOUNT}'"));
    database.sql(&format!("GRANT {RIGHTS} ON {}.* TO '{ACCOUNT}'@'%'", database.name()));
}

/// The database's URL for the gateway's account.
fn account_url(database: &Database, password: &str) -> String {
    database.url().replace("ringway:ringway@", &format!("{ACCOUNT}:{password}@"))
}

/// Runs `serve`, which must refuse at once, and returns what it said.
fn refusal(data_dir: &Path, url: &str) -> String {
    let output = Command::new("timeout")
        .args(["30", env!("CARGO_BIN_EXE_ringway"), "serve"])
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
        .arg(data_dir)
        .env("RINGWAY_AUTH_HS256_SECRET", SECRET)
        .env("RINGWAY_STORE_URL", url)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "it must refuse, and not wait");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "expected {word:?} in:\n{text}");
    }
}

fn bed(dir: &Path) -> Bed {
    open_to_others(dir);
    let mariadb = MariaDb::start(&dir.join("mariadb"), &[]);
    let database = Database::create_on(&mariadb.url());
    Bed::start(dir, mariadb, database)
}

#[test]
fn a_read_only_database_is_said_once_and_written_again_when_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = bed(dir.path());
    bed.database.sql("SET GLOBAL read_only = 1");
    bed.suffers("read_only", &["read-only", "messages are kept in the journal"]);
    bed.database.sql("SET GLOBAL read_only = 0");
    bed.recovers();
}

#[test]
fn a_database_whose_disk_is_full_is_said_once_and_written_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("mariadb");
    let tables = data.join("full");
    std::fs::create_dir_all(&tables).unwrap();
    // The database's tables on a file system of their own, in a mount namespace that goes with the process.
    let script = "mount -t tmpfs -o size=30m ringway-test \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(&tables).arg(script_path());
    let mariadb = MariaDb::start_under(&data, &[], &mut command);
    let inside = PathBuf::from(format!("/proc/{}/root", mariadb.pid())).join(tables.strip_prefix("/").unwrap());
    let database = Database::found_on(&mariadb.url(), "full");
    let mut bed = Bed::start(dir.path(), mariadb, database);

    let ballast = inside.join("ballast");
    std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(&ballast).unwrap()).unwrap_err();
    // What the tables have room for without growing is soon used up. (Of bodies that do not fit a page MariaDB 10.11
    // itself dies then.)
    let body = vec![b'x'; 4_000];
    for _ in 0..200 {
        bed.send(&body);
    }
    bed.suffers("full", &["full"]);
    std::fs::remove_file(ballast).unwrap();
    bed.recovers();
}

#[test]
fn a_wrong_password_is_refused_at_start_and_waited_for_in_a_running_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = bed(dir.path());
    let other = dir.path().join("other");
    says(&refusal(&other, &account_url(&bed.database, "wrong")), &["Access denied", ACCOUNT]);

    bed.database.sql(&format!("ALTER USER '{ACCOUNT}'@'%' IDENTIFIED BY 'changed'"));
    bed.cut_connections();
    bed.suffers("denied", &["Access denied", ACCOUNT]);
    bed.database.sql(&format!("ALTER USER '{ACCOUNT}'@'%' IDENTIFIED BY '{ACCOUNT}'"));
    bed.recovers();
}

#[test]
fn a_missing_database_is_refused_at_start_and_waited_for_in_a_running_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = bed(dir.path());
    let other = dir.path().join("other");
    let (name, url) = (bed.database.name().to_owned(), bed.database.url());
    says(&refusal(&other, &url.replace(&name, "not_there")), &["Unknown database", "not_there"]);

    // It is moved away whole, and back.
    let server = bed.mariadb.url();
    let run = |statement: String| crate::services::on(&server, &statement).unwrap();
    let ask = format!("SELECT table_name AS name FROM information_schema.tables WHERE table_schema = '{name}'");
    let tables: Vec<String> = bed.database.rows(&ask);
    assert!(tables.len() >= 8, "{tables:?}");
    run("CREATE DATABASE elsewhere".to_owned());
    for table in &tables {
        run(format!("RENAME TABLE {name}.{table} TO elsewhere.{table}"));
    }
    run(format!("DROP DATABASE {name}"));
    bed.suffers("no_database", &["database"]);
    run(format!("CREATE DATABASE {name}"));
    for table in &tables {
        run(format!("RENAME TABLE elsewhere.{table} TO {name}.{table}"));
    }
    bed.recovers();
}

#[test]
fn a_schema_of_another_version_is_refused_at_start_and_not_written_by_a_running_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = bed(dir.path());
    let [version] = bed.database.rows::<u32>("SELECT version FROM ringway_schema")[..] else { panic!("one row") };
    bed.database.sql("UPDATE ringway_schema SET version = 99");
    bed.cut_connections();
    bed.suffers("schema", &["schema version 99", "use a newer gateway"]);
    assert_eq!(metric(&bed.gateway, "ringway_store_broken"), Some(1));
    let other = dir.path().join("other");
    says(&refusal(&other, &account_url(&bed.database, ACCOUNT)), &["schema version 99", "use a newer gateway"]);
    bed.database.sql(&format!("UPDATE ringway_schema SET version = {version}"));
    bed.recovers();
}

#[test]
fn too_small_a_max_allowed_packet_is_refused_at_start_and_waited_for_in_a_running_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = bed(dir.path());
    bed.database.sql("SET GLOBAL max_allowed_packet = 16384");
    bed.cut_connections();
    bed.suffers("packet", &["raise max_allowed_packet"]);
    let other = dir.path().join("other");
    says(&refusal(&other, &account_url(&bed.database, ACCOUNT)), &["raise max_allowed_packet"]);
    bed.database.sql("SET GLOBAL max_allowed_packet = 16777216");
    bed.recovers();
}

/// The other transaction has done more, so the gateway's is the one that is undone.
#[test]
fn a_deadlock_is_said_counted_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = bed(dir.path());
    bed.database.sql("CREATE TABLE ballast (id INT NOT NULL PRIMARY KEY) ENGINE=InnoDB");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut other = Other::connect(&runtime, &bed.database);
    other.run("START TRANSACTION");
    other.run("INSERT INTO ballast SELECT seq FROM seq_1_to_2000");
    // The row that the gateway will write next.
    other.run("INSERT INTO inbox (user_id, seq, msg_id) VALUES (2, 2, 7)");
    bed.send(b"into a deadlock");
    let writing = format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{ACCOUNT}' AND info LIKE 'INSERT INTO inbox%'"
    );
    let database = &bed.database;
    bed.gateway.wait_until("the gateway wants to write the row", |_| database.rows::<u64>(&writing) == [1]);
    other.run("SELECT position FROM ledger_position WHERE node = 0 FOR UPDATE");
    let name = "ringway_store_refusals_total{cause=\"lock\"}";
    bed.gateway.wait_until("a deadlock is counted", |gateway| metric(gateway, name) >= Some(1));
    other.run("ROLLBACK");
    let lines = bed.said();
    assert_eq!(lines.len(), 1, "{lines:?}");
    says(&lines[0], &["\"cause\":\"lock\"", "Deadlock found"]);
    bed.recovers();
}

/// Nothing that the gateway tries again can mend this: it says so, and keeps what it cannot write.
#[test]
fn a_row_that_somebody_else_has_written_is_a_contradiction_until_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = bed(dir.path());
    bed.database.sql("INSERT INTO inbox (user_id, seq, msg_id) VALUES (2, 2, 7)");
    bed.suffers("constraint", &["Duplicate entry", "ringway store check"]);
    assert_eq!(metric(&bed.gateway, "ringway_store_broken"), Some(1));
    bed.database.sql("DELETE FROM inbox WHERE user_id = 2 AND seq = 2");
    bed.recovers();
}

/// A connection of the test's own, with a transaction on it.
struct Other<'a> {
    runtime: &'a Runtime,
    conn: mysql_async::Conn,
}

impl Other<'_> {
    fn connect<'a>(runtime: &'a Runtime, database: &Database) -> Other<'a> {
        let opts = mysql_async::OptsBuilder::from_opts(database.opts()).prefer_socket(false);
        let conn = runtime.block_on(mysql_async::Conn::new(opts)).unwrap();
        Other { runtime, conn }
    }

    fn run(&mut self, statement: &str) {
        let run = async { tokio::time::timeout(PATIENCE, self.conn.query_drop(statement)).await };
        self.runtime.block_on(run).unwrap().unwrap();
    }
}

/// A server that is started by root runs as somebody else, who must get to its directory.
fn open_to_others(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}
