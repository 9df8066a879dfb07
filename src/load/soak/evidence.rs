//! What a soak has shown, put together: the facts for the verdict, and the report.
//!
//! What always holds: whatever was refused is in one table, by name, whoever counted it.

use super::conduct::Conductor;
use super::figures::{Phase, Second};
use super::memory_limit::{KILLED, REACHED};
use super::orders::{Effort, Names};
use super::report::{LoadProcess, Refused, Setup, SoakReport, SteadyLatencies};
use super::verdict::{Facts, Growth, Memory, MemoryRise, judge};

/// What must not be counted as refused: the load ended those.
const USUAL_CLOSES: &[&str] = &["PeerClosed", "LoggedOut"];
/// What the gateway's metrics call what ran out.
const GATEWAY_EXHAUSTED: &[(&str, &str)] = &[
    ("ringway_shed_total{what=\"descriptors\"}", "the gateway's descriptors"),
    ("ringway_descriptors_out_total", "descriptors or memory for the gateway's sockets"),
];
/// What the kernel calls it.
const KERNEL_EXHAUSTED: &[(&str, &str)] = &[
    ("EADDRNOTAVAIL", "ports of the source addresses (EADDRNOTAVAIL)"),
    ("EMFILE", "descriptors of a load generator's process (EMFILE)"),
    ("ENFILE", "descriptors of the host (ENFILE)"),
    ("ENOBUFS", "memory for sockets (ENOBUFS)"),
    ("ENOMEM", "memory (ENOMEM)"),
];

impl Conductor<'_> {
    /// Judges, and puts everything together.
    pub(super) fn report(&self) -> SoakReport {
        let facts = self.facts();
        let verdict = judge(&facts);
        let [delivery, ack, pong] = self.figures.steady_latencies();
        SoakReport {
            version: env!("CARGO_PKG_VERSION"),
            started_unix_ms: self.subject.started_unix_ms,
            exit_code: verdict.outcome.exit_code(),
            verdict,
            setup: self.setup(),
            phases: self.spans.clone(),
            ramp: self.ramp,
            deliveries: facts.missing,
            totals: facts.totals,
            latency: SteadyLatencies { delivery, ack, pong },
            memory: facts.memory,
            descriptors: self.descriptors.clone(),
            refused: self.refused(),
            load: self.load(),
            intervals: self.figures.intervals.clone(),
            seconds: self.figures.seconds.clone(),
        }
    }

    fn facts(&self) -> Facts {
        let figures = &self.figures;
        let refusals = figures.names(|beat| &beat.refusals);
        let [delivery, ..] = figures.steady_latencies();
        Facts {
            connections: self.args.connections.into(),
            seen: figures.sum(|beat| beat.seen),
            live_at_end: self.live_at_end,
            groups: self.args.groups().groups.into(),
            groups_made: self.groups_made,
            traffic_asked: self.args.rate + self.args.direct_rate > 0.0,
            totals: figures.totals(),
            missing: figures.missing(),
            open_at_end: figures.sum(|beat| beat.open),
            ends: figures.names(|beat| &beat.ends),
            killed_at_limit: self.memory_events(KILLED),
            storage_full: refusals.get("StorageFull").copied().unwrap_or(0),
            refusals,
            exhausted: self.exhausted(),
            gateway_gone: self.gateway_gone,
            processes_lost: self.processes_lost,
            interrupted: self.interrupted,
            efforts: figures.steady_efforts().to_vec(),
            delivery,
            p99_max_ms: self.args.p99_max_ms,
            memory_max: self.args.memory_max,
            emulated: self.args.emulated,
            memory: self.memory.map(|memory| Memory { steady: self.growth(), rise: self.rise(), ..memory }),
            descriptors: self.descriptors.clone(),
        }
    }

    /// How the gateway's memory changed in the last three quarters of the steady phase, beside what its store keeps of
    /// the database's pages: that fills up to its limit as rows come, whoever is connected.
    fn growth(&self) -> Option<Growth> {
        let of = |second: &&Second| second.phase == Phase::Steady;
        let all: Vec<_> = self.figures.seconds.iter().filter(of).collect();
        let (from_s, to_s) = (all.first()?.at_s, all.last()?.at_s);
        let later = all.iter().filter(|second| second.at_s >= from_s + (to_s - from_s) / 4.0);
        let samples: Vec<(f64, f64)> = later
            .filter_map(|second| {
                let cache_bytes = second.gateway_cache_bytes.unwrap_or(0);
                Some((second.at_s, second.gateway_resident_bytes?.saturating_sub(cache_bytes) as f64))
            })
            .collect();
        let totals = self.figures.totals();
        let (sent, gateways) = (totals.group_acked + totals.direct_acked, self.subject.gateways.len() as u64);
        Growth::of(&samples, sent * 3 / 4, gateways, self.facts.names_kept)
    }

    /// What the chart of the memory shows of the steady phase, so that it can be compared with what is judged.
    fn rise(&self) -> Option<MemoryRise> {
        let steady = || self.figures.seconds.iter().filter(|second| second.phase == Phase::Steady);
        let (first, last) = (steady().next()?, steady().next_back()?);
        let judged = steady().find(|second| second.at_s >= first.at_s + (last.at_s - first.at_s) / 4.0)?;
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let (from_bytes, to_bytes) = (first.gateway_resident_bytes?, last.gateway_resident_bytes?);
        let cache = |second: &Second| signed(second.gateway_cache_bytes.unwrap_or(0));
        Some(MemoryRise {
            from_bytes,
            to_bytes,
            first_quarter_bytes: signed(judged.gateway_resident_bytes?) - signed(from_bytes),
            store_cache_bytes: cache(last) - cache(judged),
        })
    }

    fn setup(&self) -> Setup {
        let (args, groups) = (self.args, self.args.groups());
        Setup {
            targets: self.subject.targets(),
            connections: args.connections,
            processes: self.spread.processes,
            source_addresses: self.spread.sources.len(),
            ramp_per_s: args.ramp,
            for_s: args.steady.as_secs(),
            heartbeat_s: args.heartbeat.map(|every| every.as_secs_f64()),
            groups: groups.groups,
            groups_made: self.groups_made,
            members: groups.members,
            rate_per_s: args.rate,
            direct_rate_per_s: args.direct_rate,
            churn_per_min: args.churn,
            body_bytes: args.body,
            returned: args.return_,
            p99_max_ms: args.p99_max_ms,
            memory_max: args.memory_max,
            gateway_pids: self.subject.pids(),
            emulated: args.emulated,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        }
    }

    /// What the gateway's metrics counted since the baseline.
    fn gateway_counted(&self, name: &str) -> u64 {
        let value =
            |metrics: &Option<super::watch::Metrics>| metrics.as_ref().and_then(|m| m.value(name)).unwrap_or(0.0);
        (value(&self.figures.gateway.metrics) - value(&self.baseline.metrics)).max(0.0) as u64
    }

    /// What has happened at the gateway's memory limits since the baseline.
    fn memory_events(&self, name: &str) -> u64 {
        let count = |names: &Names| names.get(name).copied().unwrap_or(0);
        count(&self.baseline.memory_limits.events()).saturating_sub(count(&self.baseline.memory_events))
    }

    fn exhausted(&self) -> Names {
        let kernel = self.figures.names(|beat| &beat.kernel);
        let ends = self.figures.names(|beat| &beat.ends);
        // Its limit may be what is configured, or what the host has room for.
        let limited_by = self.figures.gateway.metrics.as_ref().and_then(|metrics| {
            metrics.by_label("ringway_connections_max", "limited_by").next().map(|(name, _)| name.to_owned())
        });
        let limit = format!("room for connections ({})", limited_by.as_deref().unwrap_or("unknown"));
        let room = (limit.as_str(), self.gateway_counted("ringway_shed_total{what=\"connections\"}"));
        let gateway = GATEWAY_EXHAUSTED.iter().map(|(metric, name)| (*name, self.gateway_counted(metric)));
        let load = KERNEL_EXHAUSTED.iter().map(|(errno, name)| (*name, kernel.get(*errno).copied().unwrap_or(0)));
        let mut all: Names = gateway
            .chain([room])
            .chain(load)
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name.to_owned(), count))
            .collect();
        if self.figures.gateway.metrics.is_none()
            && let Some(count) = ends.get("Overloaded")
        {
            // Its metrics would say which.
            all.insert("a limit of the gateway (Overloaded)".to_owned(), *count);
        }
        all
    }

    fn refused(&self) -> Vec<Refused> {
        let figures = &self.figures;
        let mut all = Vec::new();
        let mut add = |side, what, name: &str, count: u64| {
            if count > 0 {
                all.push(Refused { side, what, name: name.to_owned(), count });
            }
        };
        if let Some(metrics) = &figures.gateway.metrics {
            for (name, _) in metrics.by_label("ringway_closes_total", "reason") {
                let count = self.gateway_counted(&format!("ringway_closes_total{{reason=\"{name}\"}}"));
                if !USUAL_CLOSES.contains(&name) {
                    add("gateway", "connections closed:", name, count);
                }
            }
            for (name, _) in metrics.by_label("ringway_shed_total", "what") {
                add("gateway", "shed:", name, self.gateway_counted(&format!("ringway_shed_total{{what=\"{name}\"}}")));
            }
            for (metric, name) in [
                ("ringway_descriptors_out_total", "descriptors"),
                ("ringway_ledger_storage_full_total", "StorageFull"),
                ("ringway_ledger_retry_later_total", "RetryLater"),
            ] {
                add("gateway", "refused:", name, self.gateway_counted(metric));
            }
        }
        for name in [REACHED, KILLED] {
            add("kernel", "the gateway's cgroup:", name, self.memory_events(name));
        }
        for (what, names) in [
            ("connections ended:", figures.names(|beat| &beat.ends)),
            ("requests refused:", figures.names(|beat| &beat.refusals)),
            ("refused by the kernel:", figures.names(|beat| &beat.kernel)),
        ] {
            names.iter().for_each(|(name, count)| add("load", what, name, *count));
        }
        all
    }

    fn load(&self) -> Vec<LoadProcess> {
        let both = self.figures.beats().iter().zip(self.figures.steady_efforts());
        let process = |(beat, effort): (&super::orders::Beat, &Effort)| LoadProcess {
            clients: beat.seen,
            busy_share: effort.busy_share(),
            late_share: effort.late_share(),
            lag_ms_max: effort.lag_ns_max as f64 / 1e6,
            cpu_cores: if effort.wall_ns == 0 { 0.0 } else { effort.cpu_ns as f64 / effort.wall_ns as f64 },
            resident_bytes: beat.resident_bytes,
        };
        both.map(process).collect()
    }
}
