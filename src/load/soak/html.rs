//! The report as one page: the verdict first, then what it rests on, then the charts.
//!
//! What always holds: the page needs nothing but itself, and shows nothing that `report.json` does not hold.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::chart::{Chart, Line, Scale, Size, escape};
use super::figures::{Interval, Latency, Second};
use super::report::{SoakReport, SteadyLatencies};
use super::verdict::Outcome;
use crate::error::LoadError;
use crate::table::count;

const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--soft:#57606a;--rule:#d8dee4;--band:#f3f5f8;--c0:#0969da;\
--c1:#bc4c00;--c2:#8250df}\
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--soft:#9aa4af;--rule:#30363d;--band:#161b22;\
--c0:#4493f8;--c1:#f0883e;--c2:#ab7df8}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:960px;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}small,.when{color:var(--soft)}.when{margin:.2rem 0 1rem}\
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}\
td,th{border-bottom:1px solid var(--rule);padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top}\
th{color:var(--soft);font-weight:500}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\
td:first-child,td code{white-space:nowrap}\
.verdict{padding:.8rem 1rem;border-radius:6px;color:#fff;font-size:1.2rem}\
.passed{background:#1a7f37}.failed{background:#cf222e}.invalid{background:#9a6700}.unfit{background:#6e7781}\
svg{width:100%;height:auto;display:block}svg.narrow{display:none}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}\
.grid{stroke:var(--rule);stroke-width:1}.band0{fill:none}.band1{fill:var(--band)}\
.line{fill:none;stroke-width:1.6}path.l0{stroke:var(--c0)}path.l1{stroke:var(--c1)}path.l2{stroke:var(--c2)}\
.keys{margin:.2rem 0;font-size:.85rem}.keys span{margin-right:1.2rem;white-space:nowrap}\
.keys i{display:inline-block;width:14px;height:4px;margin-right:.4rem;vertical-align:middle}\
i.l0{background:var(--c0)}i.l1{background:var(--c1)}i.l2{background:var(--c2)}\
@media(max-width:640px){body{margin:1rem auto}svg.wide{display:none}svg.narrow{display:block}\
.facts td{display:block;border:0;padding:0;white-space:normal}.facts td:first-child{color:var(--soft);font-size:.85rem}\
.facts td+td{border-bottom:1px solid var(--rule);padding-bottom:.25rem;margin-bottom:.25rem}}";

/// Writes `report.json` and `report.html` into a directory, which is made.
pub(crate) fn write(report: &SoakReport, dir: &Path) -> Result<(), LoadError> {
    fs::create_dir_all(dir).map_err(LoadError::io("the report's directory cannot be made"))?;
    let json = serde_json::to_vec_pretty(report)?;
    fs::write(dir.join("report.json"), json).map_err(LoadError::io("report.json cannot be written"))?;
    fs::write(dir.join("report.html"), page(report)).map_err(LoadError::io("report.html cannot be written"))
}

/// The page.
pub(crate) fn page(report: &SoakReport) -> String {
    let mut page = Page { html: String::new() };
    let (outcome, setup) = (report.verdict.outcome, &report.setup);
    let name = outcome.name();
    page.add("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.add("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.add(&format!("<title>Ringway soak: {name}</title><style>{STYLE}</style></head><body>"));
    page.add(&format!("<h1>Ringway soak</h1><p class=\"when\">{}</p>", escape(&report.when())));
    let colour = match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::InvalidEvidence => "invalid",
        Outcome::HostNotFit => "unfit",
    };
    page.add(&format!("<p class=\"verdict {colour}\">{name} (exit code {})</p>", report.exit_code));
    page.findings(report);
    page.overall(report);
    page.facts(report);
    page.options(report);
    page.refused(report);
    page.charts(report);
    page.latencies(&report.intervals);
    page.load(report);
    page.add(&format!(
        "<p><small>ringway {}, Linux {}, gateway at {}. All figures are in report.json beside this page.</small></p>",
        escape(report.version),
        escape(&setup.kernel),
        setup.targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    ));
    page.add("</body></html>\n");
    page.html
}

struct Page {
    html: String,
}

impl Page {
    fn add(&mut self, html: &str) {
        self.html.push_str(html);
    }

    fn findings(&mut self, report: &SoakReport) {
        if report.verdict.findings.is_empty() {
            return;
        }
        self.add("<h2>Findings</h2><div class=\"scroll\"><table><tr><th>speaks for</th><th>what was found</th></tr>");
        for finding in &report.verdict.findings {
            let speaks_for = if finding.speaks_for == Outcome::Passed { "nothing" } else { finding.speaks_for.name() };
            self.add(&format!("<tr><td>{speaks_for}</td><td>{}</td></tr>", escape(&finding.text)));
        }
        self.add("</table></div>");
    }

    /// Over the whole steady phase.
    fn overall(&mut self, report: &SoakReport) {
        self.add("<h2>Latency in the steady phase, milliseconds</h2><div class=\"scroll\"><table><tr><th></th>");
        for name in ["count", "p50", "p90", "p99", "p99.9", "max"] {
            self.add(&format!("<th class=\"n\">{name}</th>"));
        }
        self.add("</tr>");
        let SteadyLatencies { delivery, ack, pong } = report.latency;
        for (what, latency) in [("delivery", delivery), ("ack", ack), ("heartbeat", pong)] {
            self.add(&format!("<tr><td>{what}</td>"));
            self.quantiles(&latency);
            self.add("</tr>");
        }
        self.add("</table></div>");
    }

    fn options(&mut self, report: &SoakReport) {
        self.add("<h2>Options</h2><table class=\"facts\">");
        for (name, value) in report.setup.options() {
            self.add(&format!("<tr><td><code>{name}</code></td><td>{}</td></tr>", escape(&value)));
        }
        self.add("</table>");
    }

    /// Cells: how many, and how long, in milliseconds.
    fn quantiles(&mut self, latency: &Latency) {
        // Writing to a String cannot fail.
        write!(self.html, "<td class=\"n\">{}</td>", count(latency.count)).ok();
        let us = latency.us;
        for us in [us.p50, us.p90, us.p99, us.p999, us.max] {
            write!(self.html, "<td class=\"n\">{:.3}</td>", us / 1e3).ok();
        }
    }

    /// The same lines as the table on the terminal, without the latencies, which have a table of their own.
    fn facts(&mut self, report: &SoakReport) {
        self.add("<h2>What was done, and what came of it</h2><table class=\"facts\">");
        for (name, value) in report.lines() {
            self.add(&format!("<tr><td>{}</td><td>{}</td></tr>", escape(&name), escape(&value)));
        }
        self.add("</table>");
    }

    fn refused(&mut self, report: &SoakReport) {
        self.add("<h2>What was refused, by name</h2>");
        if report.refused.is_empty() {
            return self.add("<p>Nothing.</p>");
        }
        self.add("<div class=\"scroll\"><table><tr><th>counted by</th><th>what</th><th>name</th><th class=\"n\">times</th></tr>");
        for refused in &report.refused {
            let (side, what, name) = (refused.side, refused.what, escape(&refused.name));
            let times = count(refused.count);
            self.add(&format!("<tr><td>{side}</td><td>{what}</td><td>{name}</td><td class=\"n\">{times}</td></tr>"));
        }
        self.add("</table></div>");
    }

    fn charts(&mut self, report: &SoakReport) {
        for chart in charts(report) {
            let [wide, narrow] = [Size::Wide, Size::Narrow].map(|size| chart.svg(&report.phases, size));
            if let Some((wide, narrow)) = wide.zip(narrow) {
                self.add(&format!("<h2>{}</h2>{}{wide}{narrow}", escape(chart.title), chart.keys()));
            }
        }
    }

    fn latencies(&mut self, intervals: &[Interval]) {
        self.add(
            "<h2>Latency by interval, milliseconds</h2><div class=\"scroll\"><table><tr><th class=\"n\">from</th><th class=\"n\">to</th>",
        );
        self.add(
            "<th>phase</th><th>what</th><th class=\"n\">count</th><th class=\"n\">p50</th><th class=\"n\">p90</th>",
        );
        self.add("<th class=\"n\">p99</th><th class=\"n\">p99.9</th><th class=\"n\">max</th></tr>");
        for interval in intervals {
            for (what, latency) in
                [("delivery", interval.delivery), ("ack", interval.ack), ("heartbeat", interval.pong)]
            {
                if latency.count > 0 {
                    self.latency(interval, what, &latency);
                }
            }
        }
        self.add("</table></div>");
    }

    fn latency(&mut self, interval: &Interval, what: &str, latency: &Latency) {
        let Interval { from_s, to_s, phase, .. } = interval;
        let phase = phase.name();
        // Writing to a String cannot fail.
        write!(self.html, "<tr><td class=\"n\">{from_s:.0} s</td><td class=\"n\">{to_s:.0} s</td><td>{phase}</td>")
            .ok();
        self.add(&format!("<td>{what}</td>"));
        self.quantiles(latency);
        self.add("</tr>");
    }

    fn load(&mut self, report: &SoakReport) {
        self.add("<h2>The load generator's processes, in the steady phase</h2><div class=\"scroll\"><table><tr><th class=\"n\">clients</th>");
        self.add("<th class=\"n\">busy</th><th class=\"n\">late</th><th class=\"n\">longest lag</th>");
        self.add("<th class=\"n\">CPU</th><th class=\"n\">memory</th></tr>");
        for process in &report.load {
            let (busy, late) = (process.busy_share * 100.0, process.late_share * 100.0);
            let (lag, cpu, mib) =
                (process.lag_ms_max, process.cpu_cores, process.resident_bytes as f64 / (1 << 20) as f64);
            let clients = count(process.clients.into());
            write!(self.html, "<tr><td class=\"n\">{clients}</td><td class=\"n\">{busy:.1} %</td>").ok();
            write!(self.html, "<td class=\"n\">{late:.1} %</td><td class=\"n\">{lag:.0} ms</td>").ok();
            write!(self.html, "<td class=\"n\">{cpu:.2} cores</td><td class=\"n\">{mib:.1} MiB</td></tr>").ok();
        }
        self.add("</table></div>");
    }
}

fn charts(report: &SoakReport) -> Vec<Chart> {
    let by_second = |name, value: fn(&Second) -> Option<f64>| Line {
        name,
        points: report.seconds.iter().map(|second| (second.at_s, value(second))).collect(),
    };
    // A figure of an interval is level from its start to its end.
    let by_interval = |name, value: fn(&Interval) -> f64| {
        let measured = report.intervals.iter().filter(|interval| interval.delivery.count > 0);
        let ends = |interval: &Interval| [interval.from_s, interval.to_s].map(|at| (at, Some(value(interval) / 1e3)));
        Line { name, points: measured.flat_map(ends).collect() }
    };
    let linear = |title, lines| Chart { title, scale: Scale::Linear, lines };
    vec![
        linear(
            "Connections",
            vec![
                by_second("logged in", |s| Some(s.live as f64)),
                by_second("at the gateway, by its metrics", |s| s.gateway_connections.map(|n| n as f64)),
            ],
        ),
        Chart {
            title: "Delivery latency by interval, milliseconds",
            scale: Scale::Logarithmic,
            lines: vec![
                by_interval("p50", |i| i.delivery.us.p50),
                by_interval("p99", |i| i.delivery.us.p99),
                by_interval("p99.9", |i| i.delivery.us.p999),
            ],
        },
        linear("Deliveries per second", vec![by_second("deliveries", |s| s.deliveries_per_s)]),
        linear(
            "The gateway's memory, MiB",
            vec![
                by_second("all of it", |s| mib(s.gateway_resident_bytes)),
                by_second("without the store's cache: what is judged", |s| {
                    mib(s.gateway_resident_bytes?.checked_sub(s.gateway_cache_bytes?))
                }),
            ],
        ),
        linear("The load generator's memory, MiB", vec![by_second("memory", |s| mib(Some(s.load_resident_bytes)))]),
        linear("The gateway's CPU, cores", vec![by_second("gateway", |s| s.gateway_cpu_cores)]),
        linear("The gateway's descriptors", vec![by_second("gateway", |s| s.gateway_descriptors.map(|n| n as f64))]),
        linear(
            "The load generator: busy, percent of the time (the worst process)",
            vec![by_second("busy", |s| Some(s.load_busy_max * 100.0))],
        ),
    ]
}

/// Bytes, as the charts of memory show them.
fn mib(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| bytes as f64 / (1 << 20) as f64)
}

#[cfg(test)]
mod tests;
