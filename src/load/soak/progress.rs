//! How a soak is going, for whoever watches: a line that changes on a terminal, a line now and then elsewhere.
//!
//! Owned by the conductor; it measures nothing.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::ProgressBar;

use super::figures::{Figures, Phase};
use crate::table::count;

/// How often a line is written where lines stay.
const LINE_EVERY_NS: u64 = 5_000_000_000;
const TICK: Duration = Duration::from_millis(200);

/// Shows how it is going.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    line_ns: u64,
    phase: Phase,
}

impl Progress {
    /// On standard error.
    pub(crate) fn start() -> Progress {
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(TICK);
        }
        Progress { bar, line_ns: 0, phase: Phase::Start }
    }

    /// Now it is like this.
    pub(crate) fn show(&mut self, figures: &Figures, connections: u32, now_ns: u64) {
        if let Some(bar) = &self.bar {
            return bar.set_message(line(figures, connections, now_ns));
        }
        let phase = figures.phase();
        if now_ns >= self.line_ns + LINE_EVERY_NS || phase != self.phase {
            (self.line_ns, self.phase) = (now_ns, phase);
            eprintln!("{}", line(figures, connections, now_ns));
        }
    }

    /// No more.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(figures: &Figures, connections: u32, now_ns: u64) -> String {
    let live = count(figures.sum(|beat| beat.live));
    let mut line = format!(
        "{:6.0} s  {:8}{live} of {} online, {} delivered",
        figures.at_s(now_ns),
        figures.phase().name(),
        count(connections.into()),
        count(figures.totals().delivered),
    );
    let delivery = figures.delivery_now();
    if delivery.count > 0 {
        line += &format!(", p99 {:.1} ms", delivery.us.p99 / 1e3);
    }
    if let Some(process) = figures.gateway.process {
        line += &format!(", gateway {} MiB", count(process.resident_bytes >> 20));
    }
    line
}
