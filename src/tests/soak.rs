//! `ringway soak`, the real one, against the real gateway: that it passes a gateway that does well, and says by name
//! what went wrong where something does.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::gateway::{Gateway, SECRET, pause, signal};

/// How long a soak of a test may take on a busy machine.
const SOAK_PATIENCE: Duration = Duration::from_secs(240);

/// A soak that has ended.
pub(crate) struct Soaked {
    /// Its exit code.
    pub code: i32,
    stderr: String,
    report: Value,
    page: String,
}

/// A soak that runs.
pub(crate) struct Soak {
    child: Child,
    stderr: std::thread::JoinHandle<String>,
    steady: std::sync::mpsc::Receiver<()>,
    report_dir: PathBuf,
}

/// The command line of a soak of the gateway in `dir`.
fn soak_command(dir: &Path, line: &str) -> Command {
    std::fs::write(dir.join("soak-secret"), SECRET).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.arg("soak").arg("--data-dir").arg(dir).arg("--secret-file").arg(dir.join("soak-secret"));
    command.arg("--report").arg(dir.join("report")).args(line.split_whitespace());
    command
}

/// The same under another program.
fn soak_under(program: &str, options: &[&str], dir: &Path, line: &str) -> Command {
    let plain = soak_command(dir, line);
    let mut command = Command::new(program);
    command.args(options).arg(plain.get_program()).args(plain.get_args());
    command
}

impl Soak {
    fn start(dir: &Path, mut command: Command) -> Soak {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (send, steady) = std::sync::mpsc::sync_channel(1);
        let read = move || {
            let mut all = String::new();
            for line in lines.map_while(Result::ok) {
                if line.contains(" steady ") {
                    send.try_send(()).ok();
                }
                all.push_str(&line);
                all.push('\n');
            }
            all
        };
        Soak { child, stderr: std::thread::spawn(read), steady, report_dir: dir.join("report") }
    }

    /// Soaks the gateway in `dir` with these options, to the end.
    pub(crate) fn run(dir: &Path, line: &str) -> Soaked {
        Soak::start(dir, soak_command(dir, line)).end()
    }

    /// Waits until messages are being sent.
    fn wait_until_steady(&self) {
        self.steady.recv_timeout(SOAK_PATIENCE).unwrap();
    }

    /// Its processes.
    fn processes(&self) -> Vec<u32> {
        let pid = self.child.id();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let children = threads.map(|t| std::fs::read_to_string(t.unwrap().path().join("children")).unwrap_or_default());
        children.collect::<String>().split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    fn end(mut self) -> Soaked {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > SOAK_PATIENCE {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("the soak has not ended:\n{}", self.stderr.join().unwrap());
            }
            pause(Duration::from_millis(20));
        };
        let stderr = self.stderr.join().unwrap();
        let read = |name: &str| std::fs::read_to_string(self.report_dir.join(name)).unwrap_or_default();
        let report = serde_json::from_str(&read("report.json")).unwrap_or(Value::Null);
        Soaked { code: status.code().unwrap_or(-1), stderr, report, page: read("report.html") }
    }
}

impl Soaked {
    /// A number in the report.
    pub(crate) fn number(&self, path: &str) -> u64 {
        self.report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path}:\n{self}"))
    }

    fn finds(&self, words: &str) -> bool {
        let findings = self.report["findings"].as_array().unwrap();
        findings.iter().any(|finding| finding["text"].as_str().unwrap().contains(words))
    }

    /// How often something of this name was refused, as one side counted it.
    fn refused(&self, side: &str, name: &str) -> u64 {
        let all = self.report["refused"].as_array().unwrap();
        let named = all.iter().filter(|refused| refused["side"] == side && refused["name"] == name);
        named.map(|refused| refused["count"].as_u64().unwrap()).sum()
    }

    /// Nothing lost, doubled, misplaced or harmed, of something.
    fn assert_nothing_lost(&self) {
        assert!(self.number("/deliveries/due") > 0, "{self}");
        let bad = ["/deliveries/lost", "/totals/duplicated", "/totals/out_of_order", "/totals/corrupt", "/totals/gaps"];
        for path in bad {
            assert_eq!(self.number(path), 0, "{path}:\n{self}");
        }
    }

    /// It passed. On a machine that is too busy for the load generator it may say just that, and nothing else.
    fn assert_passed(&self) {
        let findings = self.report["findings"].as_array().unwrap();
        let weighty: Vec<&Value> = findings.iter().filter(|finding| finding["speaks_for"] != "passed").collect();
        match self.report["outcome"].as_str().unwrap() {
            "passed" => assert_eq!((self.code, weighty.len()), (0, 0), "{self}"),
            "invalid_evidence" => {
                let busy = |text: &str| text.starts_with("process ") && text.contains("of its time");
                assert!(weighty.iter().all(|finding| busy(finding["text"].as_str().unwrap())), "{self}");
                assert_eq!(self.code, 3, "{self}");
            }
            _ => panic!("{self}"),
        }
    }
}

impl std::fmt::Display for Soaked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut report = self.report.clone();
        if let Some(report) = report.as_object_mut() {
            report.remove("seconds");
            report.remove("intervals");
        }
        write!(f, "exit code {}\n{}\n{report:#}", self.code, self.stderr)
    }
}

#[test]
fn thousands_come_break_off_leave_and_return_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let soaked = Soak::run(
        dir.path(),
        "--connections 4000 --processes 2 --ramp 4000/s --for 12s --groups 40x50 --rate 100/s --direct-rate 100/s \
         --churn 60% --return",
    );
    soaked.assert_nothing_lost();
    soaked.assert_passed();
    let totals = |name: &str| soaked.number(&format!("/totals/{name}"));
    assert_eq!(soaked.number("/ramp/logged_in"), 4_000);
    assert!(totals("churned") > 100, "{soaked}");
    // Those who broke off came back, and then everybody did.
    assert!(totals("resumed") >= 4_000 + totals("churned") / 2, "{soaked}");
    // What a load generator that was late could not send in time it has held back.
    let kept_pace = soaked.code == 0;
    let least = if kept_pace { 500 } else { 50 };
    assert!(totals("group_acked") > least && totals("direct_acked") > least, "{soaked}");
    let descriptors = soaked.report["descriptors"].as_array().unwrap();
    assert_eq!(descriptors.len(), 2, "after leaving, and after leaving for good");
    assert!(soaked.report["memory"]["bytes_per_connection"].as_f64().unwrap() > 200.0, "{soaked}");
    assert!(soaked.number("/latency/delivery/count") > 20 * least, "{soaked}");
    // The page shows what the file holds, and needs nothing from elsewhere.
    assert!(soaked.page.matches("<svg").count() >= 6, "{}", soaked.page);
    assert!(!soaked.page.contains("http"), "{}", soaked.page);
    assert!(soaked.page.contains(&format!("exit code {}", soaked.code)));
    // The gateway is as well as before.
    assert!(gateway.admin_page("/readyz").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_gateway_without_descriptors_refuses_by_name_and_serves_those_who_are_in() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    // It starts with what it needs for all it was configured for, and then has less.
    let pid = gateway.pid().to_string();
    assert!(Command::new("prlimit").args(["--pid", &pid, "--nofile=400"]).status().unwrap().success());
    let soaked = Soak::run(dir.path(), "--connections 800 --processes 1 --for 5s --groups 5x20 --churn 0%");
    assert_eq!(soaked.code, 4, "{soaked}");
    soaked.assert_nothing_lost();
    assert!(soaked.finds("the gateway's descriptors ran out"), "{soaked}");
    assert!(soaked.refused("gateway", "descriptors") > 0, "{soaked}");
    assert!(soaked.refused("load", "Overloaded") > 0, "{soaked}");
    let logged_in = soaked.number("/ramp/logged_in");
    assert!((200..400).contains(&logged_in), "{soaked}");
    assert!(soaked.page.contains("Overloaded"));
    assert!(gateway.admin_page("/readyz").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_gateway_short_of_memory_refuses_by_name_and_serves_those_who_are_in() {
    let dir = tempfile::tempdir().unwrap();
    // Room for 500 connections: half of what is left, at 5,376 bytes each (tuning/values.conf).
    let available_kib = 2 * 5_376 * 500 / 1_024;
    let meminfo = dir.path().join("meminfo");
    std::fs::write(&meminfo, format!("MemTotal: 8388608 kB\nMemAvailable: {available_kib} kB\n")).unwrap();
    let script = "mount --bind \"$0\" /proc/meminfo && exec \"$@\"";
    let options = ["--user", "--map-root-user", "--mount", "sh", "-c", script, meminfo.to_str().unwrap()];
    let mut command = Gateway::command_under("unshare", &options, dir.path(), &["--shards", "1"]);
    let gateway = Gateway::spawn(dir.path(), &mut command);
    let soaked = Soak::run(dir.path(), "--connections 800 --processes 1 --for 5s --groups 5x20 --churn 0%");
    assert_eq!(soaked.code, 4, "{soaked}");
    soaked.assert_nothing_lost();
    assert!(soaked.finds("room for connections (memory.available) ran out"), "{soaked}");
    assert!(soaked.refused("gateway", "connections") > 0, "{soaked}");
    assert!(soaked.refused("load", "Overloaded") > 0, "{soaked}");
    assert!((490..=500).contains(&soaked.number("/ramp/logged_in")), "{soaked}");
    assert!(gateway.admin_page("/readyz").starts_with("HTTP/1.1 200"));
}

/// The whole of `scripts/soak.sh`, since a cgroup is root's to make: the limit is the kernel's own, and so would be the
/// death.
#[test]
fn a_gateway_at_its_cgroups_memory_limit_refuses_by_name_and_is_not_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("scripts/soak.sh");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("RINGWAY", env!("CARGO_BIN_EXE_ringway"));
    command.args("--no-tune --memory-max 48M --connections 6000 --processes 1 --for 5s --churn 0%".split(' '));
    command.args("--groups 5x20 --report".split(' ')).arg(dir.path().join("report"));
    let soaked = Soak::start(dir.path(), command).end();
    assert_eq!(soaked.code, 4, "{soaked}");
    soaked.assert_nothing_lost();
    assert!(soaked.finds("room for connections (memory.available) ran out"), "{soaked}");
    assert!(soaked.refused("gateway", "connections") > 0, "{soaked}");
    assert!(soaked.refused("load", "Overloaded") > 0, "{soaked}");
    assert_eq!((soaked.refused("kernel", "killed at its memory limit"), soaked.number("/totals/dropped")), (0, 0));
    assert!((1_000..5_000).contains(&soaked.number("/ramp/logged_in")), "{soaked}");
}

#[test]
fn ports_that_run_out_are_foreseen_and_if_not_named() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        "ip link set lo up && echo '20000 20099' > /proc/sys/net/ipv4/ip_local_port_range && exec \"$0\" \"$@\"";
    let options = ["--user", "--map-root-user", "--net", "sh", "-c", script];
    let mut command = Gateway::command_under("unshare", &options, dir.path(), &["--shards", "1"]);
    let gateway = Gateway::spawn(dir.path(), &mut command);
    let pid = gateway.pid().to_string();
    let enter = ["--target", &pid, "--user", "--net", "--preserve-credentials"];
    let line = "--connections 300 --processes 1 --for 3s --groups 2x20 --churn 0% --source-ip 127.0.0.2";

    let refused = Soak::start(dir.path(), soak_under("nsenter", &enter, dir.path(), line)).end();
    assert_eq!(refused.code, 4, "{refused}");
    assert!(refused.stderr.contains("not fit: ports") && refused.stderr.contains("3 addresses"), "{refused}");

    let line = format!("{line} --anyway");
    let soaked = Soak::start(dir.path(), soak_under("nsenter", &enter, dir.path(), &line)).end();
    assert_eq!(soaked.code, 4, "{soaked}");
    soaked.assert_nothing_lost();
    assert!(soaked.finds("ports of the source addresses (EADDRNOTAVAIL)"), "{soaked}");
    assert!(soaked.refused("load", "EADDRNOTAVAIL") > 0, "{soaked}");
    assert!((50..=100).contains(&soaked.number("/ramp/logged_in")), "{soaked}");
}

#[test]
fn too_few_descriptors_for_the_load_are_foreseen_and_if_not_named() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    // Nobody in a user namespace of its own may raise the limit again.
    let options = ["--user", "--map-root-user", "prlimit", "--nofile=300"];
    let line = "--connections 600 --processes 1";
    let soaked = Soak::start(dir.path(), soak_under("unshare", &options, dir.path(), line)).end();
    assert_eq!(soaked.code, 4, "{soaked}");
    assert!(soaked.stderr.contains("not fit: descriptors") && soaked.stderr.contains("--processes 3"), "{soaked}");

    let line = format!("{line} --for 3s --groups 2x20 --churn 0% --anyway");
    let soaked = Soak::start(dir.path(), soak_under("unshare", &options, dir.path(), &line)).end();
    assert_eq!(soaked.code, 4, "{soaked}");
    soaked.assert_nothing_lost();
    assert!(soaked.finds("descriptors of a load generator's process (EMFILE) ran out"), "{soaked}");
    assert!(soaked.refused("load", "EMFILE") > 0, "{soaked}");
    assert!((200..300).contains(&soaked.number("/ramp/logged_in")), "{soaked}");
    assert!(gateway.admin_page("/readyz").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_gateway_that_dies_and_does_not_come_back_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let line = "--connections 300 --processes 2 --for 60s --groups 5x20 --churn 0%";
    let soak = Soak::start(dir.path(), soak_command(dir.path(), line));
    soak.wait_until_steady();
    gateway.kill();
    let soaked = soak.end();
    assert_eq!(soaked.code, 1, "{soaked}");
    assert!(soaked.finds("the gateway's process ended"), "{soaked}");
    assert_eq!(soaked.number("/totals/dropped"), 300, "{soaked}");
    assert!(soaked.refused("load", "ECONNREFUSED") > 0, "{soaked}");
}

#[test]
fn a_load_generator_that_stood_still_proves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let line = "--connections 300 --processes 2 --for 10s --groups 5x20 --rate 100/s --churn 0%";
    let soak = Soak::start(dir.path(), soak_command(dir.path(), line));
    soak.wait_until_steady();
    let processes = soak.processes();
    assert_eq!(processes.len(), 2);
    signal(processes[1], Signal::SIGSTOP).unwrap();
    // Part of what is tested: for so long nothing of it moves.
    pause(Duration::from_secs(4));
    signal(processes[1], Signal::SIGCONT).unwrap();
    let soaked = soak.end();
    assert_eq!((soaked.code, soaked.report["outcome"].as_str()), (3, Some("invalid_evidence")), "{soaked}");
    assert!(soaked.finds("was late for"), "{soaked}");
    soaked.assert_nothing_lost();
    drop(gateway);
}

#[test]
fn a_full_disk_is_named_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    // The journal on a file system of its own, in a mount namespace that goes with the process.
    let script =
        "mount -t tmpfs -o size=200m ringway-test \"$0\" && head -c 120m /dev/zero > \"$0/ballast\" && exec \"$@\"";
    let options = ["--user", "--map-root-user", "--mount", "sh", "-c", script, journal.to_str().unwrap()];
    let mut command = Gateway::command_under("unshare", &options, dir.path(), &["--shards", "1"]);
    let gateway = Gateway::spawn(dir.path(), &mut command);
    let soaked = Soak::run(
        dir.path(),
        "--connections 200 --processes 1 --for 15s --groups 0 --rate 0 --direct-rate 700/s --body 16000 --churn 0%",
    );
    assert_eq!(soaked.code, 4, "{soaked}");
    soaked.assert_nothing_lost();
    assert!(soaked.finds("disk or journal was full"), "{soaked}");
    assert!(soaked.refused("gateway", "StorageFull") > 0, "{soaked}");
    assert!(soaked.refused("load", "StorageFull") > 0, "{soaked}");
    assert_eq!(soaked.number("/totals/dropped"), 0, "the sessions stay: {soaked}");
    assert!(gateway.admin_page("/healthz").starts_with("HTTP/1.1 200"));
}
