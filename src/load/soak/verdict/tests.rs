#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

const NAMES_KEPT: Duration = Duration::from_secs(600);

/// A soak in which everything held.
fn good() -> Facts {
    Facts {
        connections: 1_000,
        seen: 1_000,
        live_at_end: 1_000,
        groups: 10,
        groups_made: 10,
        traffic_asked: true,
        totals: Totals { delivered: 5_000, ..Totals::default() },
        missing: Some(Missing { due: 5_000, lost: 0, away: 0 }),
        efforts: vec![Effort { wall_ns: 1_000, busy_ns: 300, ..Effort::default() }; 2],
        descriptors: vec![Descriptors { baseline: 50, after_all_left: 52, back: true }],
        memory: Some(Memory::default()),
        ..Facts::default()
    }
}

fn outcome(change: impl FnOnce(&mut Facts)) -> Outcome {
    let mut facts = good();
    change(&mut facts);
    judge(&facts).outcome
}

fn names(name: &str) -> Names {
    [(name.to_owned(), 3)].into_iter().collect()
}

#[test]
fn a_soak_in_which_everything_held_is_passed() {
    assert_eq!(judge(&good()), Verdict { outcome: Outcome::Passed, findings: vec![] });
}

#[test]
fn each_thing_that_must_not_happen_fails_it() {
    type Change = fn(&mut Facts);
    let changes: [(&str, Change); 15] = [
        ("lost", |f| f.missing = Some(Missing { due: 5, lost: 1, away: 0 })),
        ("unchecked", |f| f.missing = Some(Missing { due: 5, lost: 0, away: 1 })),
        ("not found out", |f| f.missing = None),
        ("duplicated", |f| f.totals.duplicated = 1),
        ("out of order", |f| f.totals.out_of_order = 1),
        ("corrupt", |f| f.totals.corrupt = 1),
        ("gaps", |f| f.totals.gaps = 1),
        ("gone", |f| f.gateway_gone = true),
        ("never in", |f| f.seen = 999),
        ("not back", |f| f.live_at_end = 999),
        ("dropped", |f| f.totals.dropped = 1),
        ("unanswered", |f| f.open_at_end = 1),
        ("groups", |f| f.groups_made = 9),
        ("refused", |f| f.refusals = names("NotAMember")),
        ("descriptors", |f| f.descriptors[0].back = false),
    ];
    for (what, change) in changes {
        assert_eq!(outcome(change), Outcome::Failed, "{what}");
    }
}

#[test]
fn a_slow_delivery_fails_only_if_a_limit_was_given() {
    let slow = |f: &mut Facts| f.delivery.us.p99 = 80_000.0;
    assert_eq!(outcome(slow), Outcome::Passed);
    let limited = |f: &mut Facts| {
        slow(f);
        f.p99_max_ms = Some(79.0);
    };
    assert_eq!(outcome(limited), Outcome::Failed);
}

#[test]
fn a_load_generator_that_was_the_bottleneck_proves_nothing_but_a_loss() {
    let late = |f: &mut Facts| {
        f.efforts[1].late_ns = 60;
        f.totals.dropped = 5;
    };
    assert_eq!(outcome(late), Outcome::InvalidEvidence);
    assert_eq!(outcome(|f| f.efforts[0].busy_ns = 960), Outcome::InvalidEvidence);
    assert_eq!(outcome(|f| f.processes_lost = 1), Outcome::InvalidEvidence);
    assert_eq!(outcome(|f| f.interrupted = true), Outcome::InvalidEvidence);
    assert_eq!(outcome(|f| f.totals.delivered = 0), Outcome::InvalidEvidence);
    let lost = |f: &mut Facts| {
        late(f);
        f.missing = Some(Missing { due: 5, lost: 1, away: 0 });
    };
    assert_eq!(outcome(lost), Outcome::Failed);
}

#[test]
fn on_an_emulated_machine_only_the_latencies_prove_nothing() {
    let late = |f: &mut Facts| {
        f.emulated = true;
        f.efforts[0].busy_ns = 990;
        f.efforts[1].late_ns = 900;
    };
    assert_eq!(outcome(late), Outcome::Passed);
    let changes: [fn(&mut Facts); 3] = [|f| f.totals.dropped = 1, |f| f.interrupted = true, |f| f.open_at_end = 1];
    for change in changes {
        let both = outcome(|f| {
            late(f);
            change(f);
        });
        assert_ne!(both, Outcome::Passed);
    }
}

#[test]
fn a_connection_that_costs_too_much_fails_it_if_a_limit_was_given() {
    let costs = |f: &mut Facts| f.memory = Some(Memory { bytes_per_connection: Some(1_281.0), ..Memory::default() });
    assert_eq!(outcome(costs), Outcome::Passed);
    for (most, judged) in [(1_280.0, Outcome::Failed), (1_281.0, Outcome::Passed)] {
        let limited = |f: &mut Facts| {
            costs(f);
            f.memory_max = Some(most);
        };
        assert_eq!(outcome(limited), judged);
    }
}

#[test]
fn what_ran_out_by_name_explains_who_is_missing_and_nothing_else() {
    let short = |f: &mut Facts| {
        f.exhausted = names("the gateway's descriptors");
        f.seen = 400;
        f.live_at_end = 400;
    };
    assert_eq!(outcome(short), Outcome::HostNotFit);
    assert_eq!(outcome(|f| f.storage_full = 1), Outcome::HostNotFit);
    let short_and_late = |f: &mut Facts| {
        short(f);
        f.efforts[1].late_ns = 600;
    };
    assert_eq!(outcome(short_and_late), Outcome::HostNotFit);
    // It ran out for a while, and everybody got in in the end.
    assert_eq!(outcome(|f| f.exhausted = names("ports")), Outcome::Passed);
    let duplicated = |f: &mut Facts| {
        short(f);
        f.totals.duplicated = 1;
    };
    assert_eq!(outcome(duplicated), Outcome::Failed);
}

#[test]
fn memory_is_flat_or_not_by_its_line_and_not_by_its_noise() {
    let mib = (1 << 20) as f64;
    let samples = |growth_mib: f64| -> Vec<(f64, f64)> {
        (0..=100)
            .map(|t| {
                let noise = if t % 2 == 0 { 4.0 } else { -4.0 };
                (f64::from(t), (100.0 + noise + growth_mib * f64::from(t) / 100.0) * mib)
            })
            .collect()
    };
    let flat = Growth::of(&samples(1.0), 0, 1, NAMES_KEPT).unwrap();
    assert!(flat.is_flat() && (flat.growth_bytes / mib - 1.0).abs() < 0.1, "{flat:?}");
    let grown = Growth::of(&samples(20.0), 0, 1, NAMES_KEPT).unwrap();
    assert!(!grown.is_flat() && (grown.growth_bytes / mib - 20.0).abs() < 0.5, "{grown:?}");
    // What a hundred thousand messages leave for ten minutes is no leak.
    assert!(Growth::of(&samples(20.0), 100_000, 1, NAMES_KEPT).unwrap().is_flat());
    assert_eq!(Growth::of(&samples(20.0)[..9], 0, 1, NAMES_KEPT), None);
    let leaking = |f: &mut Facts| f.memory = Some(Memory { steady: Some(grown), ..Memory::default() });
    assert_eq!(outcome(leaking), Outcome::Failed);
}
