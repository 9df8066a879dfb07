//! Reports as people read them on a terminal: lines of a name and a value.

use std::fmt::Write;

use super::latency::Quantiles;

/// Lines of a name and a value.
#[derive(Default)]
pub(crate) struct Table {
    text: String,
}

impl Table {
    /// Adds a line.
    pub(crate) fn line(&mut self, name: &str, value: &str) {
        // Writing to a String cannot fail.
        writeln!(self.text, "{name:<26} {value}").ok();
    }

    /// The text so far.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Names the columns of [`Self::quantiles`].
    pub(crate) fn quantiles_head(&mut self) {
        self.line("latency (ms)", "     p50      p90      p99    p99.9      max");
    }

    /// Latencies, in milliseconds.
    pub(crate) fn quantiles(&mut self, name: &str, q: &Quantiles) {
        let ms = |us: f64| format!("{:8.3}", us / 1e3);
        self.line(&format!("  {name}"), &[q.p50, q.p90, q.p99, q.p999, q.max].map(ms).join(" "));
    }
}

/// Thousands apart: 30,000.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
