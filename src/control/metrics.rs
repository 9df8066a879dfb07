//! The metrics, as Prometheus reads them.
//!
//! A pure function of the latest reports. What always holds: counters end in `_total` and only grow while the
//! process lives; the name of what was closed or shed is a label with the name that the code uses.

use std::fmt::Display;

use crate::VERSION;
use crate::contract::cause::Cause;
use crate::contract::internal::InternalErrors;
use crate::contract::latencies::Latencies;
use crate::contract::report::{LedgerReport, NodesReport, ShardReport, Spent};
use crate::contract::shard_counters::ShardCounters;
use crate::contract::store_counters::StoreCounters;
use crate::contract::traffic::TrafficLimit;
use crate::control::snapshot::{Readiness, Room, Snapshot};
use ringway_wire::request::reason_name;
use ringway_wire::schema::CloseReason;

use process::Process;

/// All metrics as text.
pub(crate) fn text(
    snapshot: &Snapshot,
    readiness: &Readiness,
    room: &Room,
    journal_disk_free: Option<u64>,
    now_ms: u64,
) -> String {
    let mut page = Page { text: String::with_capacity(16 * 1024) };
    let (ready, degraded) = match readiness {
        Readiness::Ready => (1, 0),
        Readiness::Degraded(_) => (1, 1),
        Readiness::NotReady(_) => (0, 0),
    };
    page.single("ringway_ready", "gauge", "1 if clients should be sent here", ready);
    page.single(
        "ringway_degraded",
        "gauge",
        "1 if it is ready and /readyz says what cannot be had meanwhile",
        degraded,
    );
    page.process(&process::read());
    page.room(room);
    page.internal_errors(&snapshot.internal_errors());
    let shards: Vec<&ShardReport> = snapshot.shards.iter().flatten().map(|(_, report)| report.as_ref()).collect();
    page.single("ringway_shards", "gauge", "Shards that report", shards.len());
    page.shards(&shards);
    page.closes_and_sheds(&shards);
    page.limited(&shards, &snapshot.ledger);
    page.budgets(&shards);
    page.latencies(&shards);
    page.journal_disk(journal_disk_free);
    page.ledger(&snapshot.ledger);
    page.store(&snapshot.store);
    let lag_s = snapshot.store_lag.ms(now_ms) as f64 / 1e3;
    page.single(
        "ringway_store_lag_seconds",
        "gauge",
        "How long the oldest of what the database lacks has been durable",
        lag_s,
    );
    if let Some(nodes) = &snapshot.nodes {
        page.nodes(nodes);
    }
    page.text
}

mod process;
pub(crate) mod webhooks;

struct Page {
    text: String,
}

/// One metric of every shard: name, kind, help, and where its value is.
type PerShard = (&'static str, &'static str, &'static str, fn(&ShardReport) -> u64);

const PER_SHARD: &[PerShard] = &[
    ("ringway_connections", "gauge", "Open connections", |r| r.core.connections),
    ("ringway_connections_unauthenticated", "gauge", "Not logged in yet", |r| r.core.connections_unauthenticated),
    ("ringway_sessions", "gauge", "Logged in", |r| r.core.sessions),
    ("ringway_sessions_behind", "gauge", "Sessions that catch up", |r| r.core.sessions_behind),
    ("ringway_memory_pressure", "gauge", "Memory: 0 there is room, 1 no logins, 2 sessions are ended", |r| {
        r.core.memory_pressure
    }),
    ("ringway_sessions_throttled", "gauge", "Sessions not read from because they were refused too often", |r| {
        r.core.sessions_throttled
    }),
    ("ringway_users", "gauge", "Users with a session", |r| r.core.users),
    ("ringway_outbox_bytes", "gauge", "Bytes waiting for clients", |r| r.core.outbox_bytes),
    ("ringway_intake_bytes", "gauge", "Bytes of frames that are not whole yet", |r| r.core.intake_bytes),
    ("ringway_audience_memberships", "gauge", "Memberships held for fan-out", |r| r.core.audience_memberships),
    ("ringway_rosters", "gauge", "Rosters held", |r| r.core.rosters),
    ("ringway_ephemerals_waiting", "gauge", "Ephemeral messages waiting for their recipients", |r| r.core.ephemerals),
    ("ringway_remote_sessions", "gauge", "Sessions known on other nodes", |r| r.core.remote_sessions),
    ("ringway_accepted_total", "counter", "Connections accepted", |r| r.core.accepted_total),
    ("ringway_adopted_total", "counter", "Connections taken over from shards", |r| r.core.adopted_total),
    ("ringway_handed_over_total", "counter", "Connections given to other shards", |r| r.core.handed_over_total),
    ("ringway_handovers_refused_total", "counter", "Lost on the way", |r| r.shell.handovers_refused),
    ("ringway_logins_total", "counter", "Logins", |r| r.core.logins_total),
    ("ringway_frames_in_total", "counter", "Frames from clients", |r| r.core.frames_in_total),
    ("ringway_bytes_in_total", "counter", "Bytes from clients", |r| r.core.bytes_in_total),
    ("ringway_bytes_out_total", "counter", "Bytes to clients", |r| r.core.bytes_out_total),
    ("ringway_sends_total", "counter", "Messages acknowledged to senders", |r| r.core.sends_total),
    ("ringway_pushes_live_total", "counter", "Rows pushed as they came", |r| r.core.pushes_live_total),
    ("ringway_pushes_caught_up_total", "counter", "Rows pushed from pages", |r| r.core.pushes_caught_up_total),
    ("ringway_pushes_ephemeral_total", "counter", "Ephemeral pushes", |r| r.core.pushes_ephemeral_total),
    ("ringway_gaps_total", "counter", "Gap frames", |r| r.core.gaps_total),
    ("ringway_fell_behind_total", "counter", "Sessions that were live and fell behind", |r| r.core.fell_behind_total),
    ("ringway_socket_reads_total", "counter", "Reads of sockets", |r| r.shell.reads),
    ("ringway_socket_writes_total", "counter", "Writes to sockets", |r| r.shell.sends),
    ("ringway_sockets_full_total", "counter", "Writes that a socket did not take whole", |r| r.shell.sockets_full),
    ("ringway_descriptors_out_total", "counter", "Times no descriptor was left", |r| r.shell.descriptors_out),
    ("ringway_mailbox_commits", "gauge", "Commits waiting for the shard", |r| r.depths.commits),
    ("ringway_mailbox_lanes", "gauge", "Envelopes waiting in its lanes", |r| r.depths.lanes),
    ("ringway_store_asks", "gauge", "Questions waiting for the store, as the shard sees them", |r| r.store_asks),
    ("ringway_mailbox_answers", "gauge", "Store answers waiting for it", |r| r.depths.answers),
];

/// What is shed: the name of what was full, and where it is counted.
type Shed = (&'static str, fn(&ShardCounters) -> u64);

const SHED: &[Shed] = &[
    ("connections", |c| c.shed.connections),
    ("connections_unauthenticated", |c| c.shed.connections_unauthenticated),
    ("connections_per_address", |c| c.shed.connections_per_address),
    ("descriptors", |c| c.shed.descriptors),
    ("large_replies", |c| c.shed.large_replies),
    ("memory_logins", |c| c.shed.memory_logins),
    ("memory_sessions", |c| c.shed.memory_sessions),
    ("intake", |c| c.shed.intake),
    ("submissions", |c| c.shed.submissions),
    ("lanes", |c| c.shed.lanes),
    ("lane_answers", |c| c.shed.lane_answers),
    ("store_asks", |c| c.shed.store_asks),
    ("in_flight", |c| c.shed.in_flight),
    ("roster_waiters", |c| c.shed.roster_waiters),
    ("syncs", |c| c.shed.syncs),
    ("presence", |c| c.shed.presence),
    ("ephemeral", |c| c.shed.ephemeral),
    ("remote_sessions", |c| c.shed.remote_sessions),
    ("cursors", |c| c.shed.cursors),
    ("announcements", |c| c.shed.announcements),
];

/// What a shard has shed, by what was full.
pub(crate) fn shed(counters: &ShardCounters) -> impl Iterator<Item = (&'static str, u64)> {
    SHED.iter().map(|(what, count)| (*what, count(counters)))
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.text.push_str(&format!("# HELP {name} {help}.\n# TYPE {name} {kind}\n"));
    }

    fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        self.text.push_str(&format!("{name}{labels} {value}\n"));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.value(name, "", value);
    }

    fn shards(&mut self, shards: &[&ShardReport]) {
        for (name, kind, help, value) in PER_SHARD {
            self.head(name, kind, help);
            for report in shards {
                self.value(name, &format!("{{shard=\"{}\"}}", report.shard), value(report));
            }
        }
    }

    fn process(&mut self, process: &Process) {
        let name = "ringway_build_info";
        self.head(name, "gauge", "1; the version is its label, and in a release the commit");
        self.value(name, &format!("{{version=\"{VERSION}\"}}"), 1);
        if let Some(seconds) = process.cpu_s {
            self.single("process_cpu_seconds_total", "counter", "CPU time, user and system", seconds);
        }
        let counted = [
            ("process_resident_memory_bytes", "Memory in RAM", process.resident_bytes),
            ("process_virtual_memory_bytes", "Address space", process.virtual_bytes),
            ("process_threads", "Threads", process.threads),
            ("process_open_fds", "Open descriptors", process.descriptors),
            ("process_max_fds", "Descriptors that it may open", process.descriptors_max),
        ];
        for (name, help, value) in counted {
            if let Some(value) = value {
                self.single(name, "gauge", help, value);
            }
        }
    }

    /// One histogram for each set of labels, without their braces.
    fn histogram(&mut self, name: &str, help: &str, of: &[(&str, &Latencies)]) {
        self.head(name, "histogram", help);
        for (labels, latencies) in of {
            let comma = if labels.is_empty() { "" } else { "," };
            for (bound_us, count) in latencies.up_to() {
                let bound = bound_us as f64 / 1e6;
                self.text.push_str(&format!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}\n"));
            }
            let count = latencies.count();
            self.text.push_str(&format!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}\n"));
            let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            self.value(&format!("{name}_sum"), &labels, latencies.sum_us() as f64 / 1e6);
            self.value(&format!("{name}_count"), &labels, count);
        }
    }

    fn latencies(&mut self, shards: &[&ShardReport]) {
        type Timed = (&'static str, &'static str, fn(&ShardReport) -> &Latencies);
        let timed: [Timed; 2] = [
            (
                "ringway_ack_seconds",
                "From when a durable message was read to when its sender's answer was written to the socket",
                |r| &r.shell.acks,
            ),
            (
                "ringway_delivery_seconds",
                "From when a durable message was read on this node to when it was written to the sockets of all its \
                 recipients of a shard",
                |r| &r.shell.deliveries,
            ),
        ];
        for (name, help, of) in timed {
            let labels: Vec<String> = shards.iter().map(|report| format!("shard=\"{}\"", report.shard)).collect();
            let each: Vec<(&str, &Latencies)> =
                std::iter::zip(&labels, shards).map(|(labels, report)| (labels.as_str(), of(report))).collect();
            self.histogram(name, help, &each);
        }
    }

    fn room(&mut self, room: &Room) {
        let name = "ringway_connections_max";
        self.head(name, "gauge", "Connections that there is room for, and what limits them");
        self.value(name, &format!("{{limited_by=\"{}\"}}", room.limited_by), room.connections_max);
    }

    fn internal_errors(&mut self, errors: &InternalErrors) {
        let name = "ringway_internal_errors_total";
        self.head(
            name,
            "counter",
            "States that only a mistake in this program can bring about, by where they were met",
        );
        for (place, count) in errors.each() {
            self.value(name, &format!("{{where=\"{}\"}}", place.name()), count);
        }
    }

    fn closes_and_sheds(&mut self, shards: &[&ShardReport]) {
        let name = "ringway_closes_total";
        self.head(name, "counter", "Connections closed, by reason");
        for report in shards {
            for (reason, count) in report.core.closes_total.iter().enumerate() {
                let reason = reason_name(CloseReason(reason as u16));
                self.value(name, &format!("{{shard=\"{}\",reason=\"{reason}\"}}", report.shard), count);
            }
        }
        let name = "ringway_shed_total";
        self.head(name, "counter", "Refused or dropped because something was full, by what was");
        for report in shards {
            for (what, count) in SHED {
                self.value(name, &format!("{{shard=\"{}\",what=\"{what}\"}}", report.shard), count(&report.core));
            }
        }
    }

    fn limited(&mut self, shards: &[&ShardReport], ledger: &LedgerReport) {
        let name = "ringway_limited_total";
        self.head(name, "counter", "Requests refused because an account or a group may not have more now, by limit");
        for limit in TrafficLimit::ALL {
            let of_shards: u64 = shards.iter().map(|report| report.core.limited.of(*limit)).sum();
            let count = of_shards + ledger.counters.limited.of(*limit);
            self.value(name, &format!("{{limit=\"{}\"}}", limit.name()), count);
        }
    }

    fn budgets(&mut self, shards: &[&ShardReport]) {
        type Column = (&'static str, &'static str, &'static str, fn(&Spent) -> f64);
        let columns: [Column; 3] = [
            ("ringway_budget_shares", "gauge", "Its part of the shard's time when all want some", |s| s.shares as f64),
            ("ringway_budget_busy_seconds_total", "counter", "Time spent in it", |s| s.busy_ns as f64 / 1e9),
            ("ringway_budget_turns_total", "counter", "How often it had its turn", |s| s.turns as f64),
        ];
        for (name, kind, help, value) in columns {
            self.head(name, kind, help);
            for report in shards {
                for spent in &report.budgets {
                    let labels = format!("{{shard=\"{}\",budget=\"{}\"}}", report.shard, spent.name);
                    self.value(name, &labels, value(spent));
                }
            }
        }
    }

    fn journal_disk(&mut self, free_bytes: Option<u64>) {
        // What is not known is not there.
        if let Some(bytes) = free_bytes {
            self.single(
                "ringway_journal_disk_free_bytes",
                "gauge",
                "Bytes left on the disk that has the journal",
                bytes,
            );
        }
    }

    fn ledger(&mut self, report: &LedgerReport) {
        let c = &report.counters;
        self.single("ringway_ledger_submissions", "gauge", "Submissions waiting for the ledger", report.submissions);
        let full = "1 while the journal takes nothing: its disk is full, or it has as much as it may";
        self.single("ringway_journal_full", "gauge", full, c.journal_full);
        let still = "1 while a node of a cluster numbers nothing; /readyz says why";
        self.single("ringway_ledger_stands_still", "gauge", still, u64::from(c.stands_still.is_some()));
        let skew = "How far this node's clock is from Redis's, either way";
        self.single("ringway_ledger_clock_skew_seconds", "gauge", skew, c.clock_skew_ms as f64 / 1e3);
        let totals = [
            ("waits_for_room", "Times a shard's mailbox was full", report.waits_for_room),
            ("messages", "Messages made durable", c.messages),
            ("rows", "Rows numbered", c.rows),
            ("commits", "Group commits", c.commits),
            ("bytes", "Journal bytes written", c.bytes),
            ("repeats", "Sends that were repeats", c.repeats),
            ("lookups", "Look-ups that went to the store", c.lookups),
            ("storage_full", "Submissions refused with STORAGE_FULL", c.storage_full),
            ("retry_later", "Submissions refused with RETRY_LATER", c.retry_later),
            (
                "bounced",
                "Submissions that Redis did not take at first: another change of their group had come before",
                c.bounced,
            ),
        ];
        for (name, help, value) in totals {
            self.single(&format!("ringway_ledger_{name}_total"), "counter", help, value);
        }
        self.histogram("ringway_ledger_sync_seconds", "How long an fdatasync of the journal takes", &[("", &c.syncs)]);
    }

    fn nodes(&mut self, c: &NodesReport) {
        self.single("ringway_cluster_nodes", "gauge", "Nodes of the cluster that are alive, this one too", c.nodes);
        let totals = [
            ("messages_published", "Messages to other nodes", c.published),
            ("messages_received", "Messages of other nodes", c.received),
            ("missed", "Messages of other nodes that were lost; what they said is asked for again", c.missed),
            ("unreadable", "Messages of other nodes that make no sense", c.unreadable),
            (
                "ephemeral_dropped",
                "Ephemeral messages of other nodes that a shard had no room for",
                c.ephemeral_dropped,
            ),
        ];
        for (name, help, value) in totals {
            self.single(&format!("ringway_cluster_{name}_total"), "counter", help, value);
        }
    }

    fn store(&mut self, c: &StoreCounters) {
        let gauges = [
            ("unavailable", "1 while the database takes no writes", c.unavailable),
            ("broken", "1 while journal and database contradict each other", c.broken),
            ("applied_position", "Everything below is in the database", c.applied),
            ("durable_position", "Everything below is durable in the journal", c.durable),
            ("secured_position", "Everything below survives a power loss in the database", c.secured),
            ("cache_bytes", "Memory of the embedded database's pages, 64 MiB at most", c.cache_bytes),
            ("tail_weight", "Weight of what is not in the database yet", c.tail_weight),
        ];
        for (name, help, value) in gauges {
            self.single(&format!("ringway_store_{name}"), "gauge", help, value);
        }
        let totals = [
            ("rows", "Inbox rows stored", c.rows),
            ("messages", "Messages stored", c.messages),
            ("names_taken", "Messages stored whose names other messages have", c.names_taken),
            ("group_changes", "Group changes stored", c.group_changes),
            ("transactions", "Transactions", c.transactions),
            ("retries", "Writes that failed and are repeated", c.retries),
            ("pages", "Pages read", c.pages),
            ("page_rows", "Rows in them", c.page_rows),
            ("reads_refused", "Reads the database did not answer", c.reads_refused),
            ("lookups", "Messages looked up", c.lookups),
            ("cursors", "Cursors stored", c.cursors),
            ("cursors_dropped", "Cursors thrown away", c.cursors_dropped),
            ("rows_expired", "Rows deleted by retention", c.rows_expired),
            ("messages_expired", "Messages deleted by retention", c.messages_expired),
            ("expiries", "Passes of retention over all inboxes", c.expiries),
            ("put_back", "Times the database was found put back to an earlier state", c.put_back),
            ("entries_lost", "Entries of the stream that it lost so, and this node does not have", c.entries_lost),
            ("secures", "Checkpoints", c.secures),
        ];
        for (name, help, value) in totals {
            self.single(&format!("ringway_store_{name}_total"), "counter", help, value);
        }
        let name = "ringway_store_refusals_total";
        self.head(name, "counter", "What the database refused or did not answer, by cause");
        for (cause, count) in std::iter::zip(Cause::ALL, c.refusals) {
            self.value(name, &format!("{{cause=\"{}\"}}", cause.name()), count);
        }
        let help = "How long a transaction of the store takes, gathering its rows included";
        self.histogram("ringway_store_transaction_seconds", help, &[("", &c.applying)]);
    }
}
