#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::latency::Quantiles;
use crate::soak::figures::{Phase, Span};
use crate::soak::orders::Totals;
use crate::soak::report::{Ramp, Setup};
use crate::soak::verdict::{Growth, Memory, MemoryRise, Verdict};

fn report() -> SoakReport {
    let mib = |mib: u64| mib << 20;
    let us = Quantiles { p50: 1_111.0, p90: 2_222.0, p99: 3_333.0, p999: 4_444.0, max: 5_555.0 };
    let delivery = Latency { count: 1_234, us };
    let growth = Growth { seconds: 45.0, from_bytes: 0.0, growth_bytes: 1.9 * mib(1) as f64, allowed_bytes: 8e6 };
    let rise = MemoryRise {
        from_bytes: mib(45),
        to_bytes: mib(56),
        first_quarter_bytes: mib(4) as i64,
        store_cache_bytes: mib(5) as i64,
    };
    SoakReport {
        version: "1",
        started_unix_ms: 1_795_830_123_000,
        exit_code: 0,
        verdict: Verdict { outcome: Outcome::Passed, findings: vec![] },
        setup: Setup {
            targets: vec![],
            connections: 1_500,
            processes: 2,
            source_addresses: 1,
            ramp_per_s: 5_000.0,
            for_s: 60,
            heartbeat_s: None,
            groups: 15,
            groups_made: 15,
            members: 50,
            rate_per_s: 50.0,
            direct_rate_per_s: 25.0,
            churn_per_min: 0.02,
            body_bytes: 100,
            returned: false,
            p99_max_ms: Some(20.0),
            memory_max: None,
            gateway_pids: vec![],
            emulated: false,
            kernel: "6.1".into(),
        },
        phases: vec![Span { phase: Phase::Steady, from_s: 0.0, to_s: 75.0 }],
        ramp: Ramp::default(),
        deliveries: None,
        totals: Totals::default(),
        latency: SteadyLatencies { delivery, ..SteadyLatencies::default() },
        memory: Some(Memory { steady: Some(growth), rise: Some(rise), ..Memory::default() }),
        descriptors: vec![],
        refused: vec![],
        load: vec![],
        intervals: vec![],
        seconds: vec![Second { at_s: 1.0, ..Second::default() }, Second { at_s: 2.0, ..Second::default() }],
    }
}

#[test]
fn the_page_says_when_with_which_options_and_the_latency_of_all() {
    let page = page(&report());
    for wanted in ["2026-11-28 01:42:03 UTC, 1m 15s", "1.111", "2.222", "3.333", "4.444", "5.555", "1,234"] {
        assert!(page.contains(wanted), "{wanted}");
    }
    for wanted in
        ["<code>--groups</code></td><td>15x50", "--churn</code></td><td>2 %", "--p99-max-ms</code></td><td>20"]
    {
        assert!(page.contains(wanted), "{wanted}");
    }
    assert!(!page.contains("--memory-max"));
}

#[test]
fn what_the_chart_of_the_memory_shows_and_what_is_judged_are_told_apart() {
    let page = page(&report());
    assert!(page.contains("45.0 to 56.0 MiB; not judged: +4.0 in the first quarter (buffers fill), then +5.0"));
    assert!(page.contains("1.9 MiB over the last 45 s"));
}

#[test]
fn every_wide_table_scrolls_and_every_chart_has_a_narrow_one() {
    let page = page(&report());
    assert_eq!(page.matches("<table>").count(), page.matches("<div class=\"scroll\"><table>").count());
    let charts = |size: Size| page.matches(&format!("<svg class=\"{}\"", size.class())).count();
    assert!(charts(Size::Wide) > 1);
    assert_eq!(charts(Size::Wide), charts(Size::Narrow));
}
