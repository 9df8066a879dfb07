//! `bench targets`: every scenario with its target beside what is measured here.
//!
//! Each scenario runs in a process of its own, with the command that the table prints, so that every line can
//! be measured again by hand. What always holds: a scenario that is not clean is said to be so, whatever its
//! speed; a missed target is said, and is no failure, for it depends on the machine.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::bars::bar;
use super::error::LoadError;

/// A command and what it should show.
struct Scenario {
    name: &'static str,
    command: &'static [&'static str],
    figures: &'static [Figure],
}

/// One value of a report, by its JSON pointer.
struct Figure {
    name: &'static str,
    pointer: &'static str,
    /// What the value is multiplied with before it is shown.
    scale: f64,
    unit: &'static str,
    /// After scaling; `None`: only reported.
    target: Option<Target>,
}

/// What a figure should be.
#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn judge(self, value: f64) -> String {
        let (words, target, met) = match self {
            Target::AtMost(target) => ("at most", target, value <= target),
            Target::AtLeast(target) => ("at least", target, value >= target),
        };
        format!("   {words} {target}: {}", if met { "met" } else { "MISSED" })
    }
}

const fn at_most(target: Option<f64>) -> Option<Target> {
    match target {
        Some(target) => Some(Target::AtMost(target)),
        None => None,
    }
}

const fn figure(name: &'static str, pointer: &'static str, unit: &'static str, target: Option<f64>) -> Figure {
    Figure { name, pointer, scale: 1.0, unit, target: at_most(target) }
}

const fn ms(name: &'static str, pointer: &'static str, target: Option<f64>) -> Figure {
    Figure { name, pointer, scale: 1e-3, unit: "ms", target: at_most(target) }
}

const fn at_least(name: &'static str, pointer: &'static str, unit: &'static str, target: f64) -> Figure {
    Figure { name, pointer, scale: 1.0, unit, target: Some(Target::AtLeast(target)) }
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "burst",
        command: &["group", "--rounds", "21"],
        figures: &[
            figure("to the last delivery, median", "/burst_ms", "ms", Some(5.0)),
            ms("ack p99", "/ack_us/p99", None),
            figure("then to the last row", "/rows_stored_ms", "ms", None),
        ],
    },
    Scenario {
        name: "flood, ephemeral",
        command: &["group", "--flood", "5", "--ephemeral"],
        figures: &[
            figure("gateway CPU per delivery", "/server_cpu_us_per_delivery", "µs", Some(0.2)),
            figure("deliveries per second", "/deliveries_per_s", "", None),
        ],
    },
    Scenario {
        name: "flood, durable",
        command: &["group", "--flood", "5"],
        figures: &[
            figure("gateway CPU per delivery", "/server_cpu_us_per_delivery", "µs", None),
            figure("deliveries per second", "/deliveries_per_s", "", None),
            figure("stored rows per second", "/stored_rows_per_s", "", None),
            figure("time to drain", "/rows_stored_ms", "ms", None),
        ],
    },
    Scenario {
        name: "the disk alone, as often",
        command: &["disk", "--syncs", "1000"],
        figures: &[
            ms("write and fdatasync p50", "/sync_us/p50", None),
            ms("write and fdatasync p99", "/sync_us/p99", None),
        ],
    },
    Scenario {
        name: "the machine alone, as often: write, fdatasync, 300 sends",
        command: &["floor", "--messages", "1000"],
        figures: &[
            ms("delivery p50", "/delivery_us/p50", None),
            ms("delivery p99", "/delivery_us/p99", None),
            figure("one send", "/send_us", "µs", None),
        ],
    },
    Scenario {
        name: "100 messages a second",
        command: &["group", "--rate", "100", "--messages", "1000"],
        figures: &[
            ms("delivery p50", "/delivery_us/p50", Some(1.2)),
            ms("delivery p99", "/delivery_us/p99", Some(3.0)),
            ms("ack p50", "/ack_us/p50", None),
        ],
    },
    Scenario {
        name: "one of 300 stalled",
        command: &["group", "--stalled", "1", "--flood", "1", "--rounds", "5"],
        figures: &[
            figure("the others' p99, times that without", "/stalled/p99_ratio", "", Some(1.5)),
            figure("the stalled caught up in", "/stalled/caught_up_ms", "ms", None),
            Figure {
                name: "gateway memory grew by",
                pointer: "/stalled/resident_growth_bytes",
                scale: 1.0 / (1 << 20) as f64,
                unit: "MiB",
                target: None,
            },
        ],
    },
    Scenario {
        name: "pairs",
        command: &["direct", "--rounds", "11"],
        figures: &[
            figure("to the last delivery, median", "/burst_ms", "ms", None),
            figure("deliveries per second", "/deliveries_per_s", "", None),
        ],
    },
    Scenario {
        name: "idle",
        command: &["idle", "--connections", "15000"],
        figures: &[figure("memory per connection", "/bytes_per_connection", "B", Some(1280.0))],
    },
    Scenario {
        name: "storm",
        command: &["storm"],
        figures: &[
            at_least("logins per second and shard", "/login/per_s_per_shard", "", 15_000.0),
            figure("idle CPU, heartbeat 25 s", "/idle/0/server_cpu_percent", "%", None),
            figure("idle CPU, heartbeat 60 s", "/idle/1/server_cpu_percent", "%", Some(1.0)),
            ms("delivery p99, quiet", "/quiet/delivery_us/p99", None),
            ms("delivery p99, all coming back", "/storm/delivery_us/p99", None),
            figure("  of it, times quiet", "/p99_ratio", "", Some(2.0)),
        ],
    },
];

/// Runs all scenarios and prints the table; false: one was not clean.
pub(crate) fn run() -> Result<bool, LoadError> {
    let bar = bar(SCENARIOS.len() as u64, "scenarios");
    let mut clean = true;
    for scenario in SCENARIOS {
        let report = measure(scenario)?;
        let is_clean = report.pointer("/clean") == Some(&Value::Bool(true));
        clean &= is_clean;
        bar.suspend(|| print(scenario, &report, if is_clean { "clean" } else { "NOT CLEAN" }));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(clean)
}

fn measure(scenario: &Scenario) -> Result<Value, LoadError> {
    let exe = std::env::current_exe().map_err(LoadError::io("this program's own path is not known"))?;
    let mut command = Command::new(exe);
    command.arg("bench").args(scenario.command).arg("--json").stderr(Stdio::inherit());
    let output = command.output().map_err(LoadError::io("the scenario cannot be started"))?;
    // A scenario that failed has said why, and prints no report: not clean, and no figures.
    Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

fn print(scenario: &Scenario, report: &Value, verdict: &str) {
    println!("{} ({verdict}): ringway bench {}", scenario.name, scenario.command.join(" "));
    for figure in scenario.figures {
        let Some(value) = report.pointer(figure.pointer).and_then(Value::as_f64) else {
            println!("    {:<38} not measured", figure.name);
            continue;
        };
        let value = value * figure.scale;
        let shown = if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.3}") };
        let against = figure.target.map_or(String::new(), |target| target.judge(value));
        println!("    {:<38} {shown:>10} {:<3}{against}", figure.name, figure.unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_on_its_own_side() {
        assert_eq!(Target::AtMost(2.0).judge(2.0), "   at most 2: met");
        assert_eq!(Target::AtMost(2.0).judge(2.1), "   at most 2: MISSED");
        assert_eq!(Target::AtLeast(15_000.0).judge(15_001.0), "   at least 15000: met");
        assert_eq!(Target::AtLeast(15_000.0).judge(14_999.0), "   at least 15000: MISSED");
    }
}
