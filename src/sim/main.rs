//! The simulator: the gateway's core under a seeded world that crashes, delays, fills and starves it, judged
//! by a model that shares no code with it.
//!
//! `SEED=7 cargo test --test sim` replays one seed and prints its last events; `RUNS=1000` runs so many seeds
//! from `SEED` (or 1) on; `STEPS` is how long each run is, `EVENTS` how many events a replay prints, and `TRACE`
//! shows what the gateway logs. Without any, a few seeds are run, each mutation is
//! tried until it is reported, and one seed is run twice to show that a seed decides everything. What always
//! holds: the exit code is 0 only if no run was violated and every mutation was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod acts;
mod check;
mod client;
mod disk;
mod events;
mod gateway;
mod model;
mod mutation;
mod network;
mod plan;
mod proofs;
mod random;
mod sockets;
mod store;
mod world;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use mutation::{MUTATIONS, Mutation};
use ringway::contract::internal::InternalErrors;
use world::World;

/// Seeds that a plain `cargo test` runs.
const RUNS: u64 = 60;
/// Steps of one run.
const STEPS: usize = 3_000;
/// Seeds in which a mutation must have been reported.
const MUTATION_SEEDS: u64 = 60;

thread_local! {
    /// What the last panic said, and where.
    static PANIC: Cell<String> = const { Cell::new(String::new()) };
}

/// What became of one run.
struct Outcome {
    violation: Option<String>,
    events: Vec<String>,
    digest: u64,
    crashes: usize,
    rows: u64,
    sends: usize,
    /// How often what was reached.
    reached: BTreeMap<&'static str, u64>,
}

fn main() -> ExitCode {
    // What a test harness is asked for: there is one test here, and it is listed as such.
    if std::env::args().any(|argument| argument == "--list") {
        println!("sim: test");
        return ExitCode::SUCCESS;
    }
    std::panic::set_hook(Box::new(|panic| PANIC.set(panic.to_string())));
    if std::env::var_os("TRACE").is_some() {
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let steps = number("STEPS").unwrap_or(STEPS as u64) as usize;
    match (number("SEED"), number("RUNS")) {
        (Some(seed), None) => replay(seed, steps),
        (seed, Some(runs)) => run_seeds(seed.unwrap_or(1), runs, steps),
        (None, None) => {
            let proofs = prove();
            let seeds = run_seeds(1, RUNS, steps);
            let mutations = run_mutations(steps);
            let repeats = run_twice(1, steps);
            if [proofs, seeds, mutations, repeats].iter().all(|code| *code == ExitCode::SUCCESS) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn run(seed: u64, steps: usize, mutation: Mutation) -> Outcome {
    let mut world = match World::new(seed, steps, mutation) {
        Ok(world) => world,
        Err(violation) => {
            let violation = Some(violation.0);
            return Outcome {
                violation,
                events: Vec::new(),
                digest: 0,
                crashes: 0,
                rows: 0,
                sends: 0,
                reached: BTreeMap::new(),
            };
        }
    };
    let before = InternalErrors::of_this_thread().total();
    let violation = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(Ok(())) => internal_error_since(before),
        Ok(Err(violation)) => Some(violation.0),
        Err(_) => Some(format!("a panic: {}", PANIC.take())),
    };
    Outcome {
        violation,
        events: world.events.last(),
        digest: world.events.digest(),
        crashes: world.crashes,
        rows: world.users.iter().map(|user| world.model.newest_row(*user)).sum(),
        sends: world.model.sends.len(),
        reached: world.reached,
    }
}

/// A mistake that the gateway noticed itself, and went on.
fn internal_error_since(before: u64) -> Option<String> {
    let errors = InternalErrors::of_this_thread();
    let at = errors.last().filter(|_| errors.total() > before)?;
    Some(format!("an internal error: {at}"))
}

/// One seed, with its last events if it fails.
fn replay(seed: u64, steps: usize) -> ExitCode {
    let outcome = run(seed, steps, Mutation::None);
    println!(
        "seed {seed}: {} messages made, {} rows, {} crashes, digest {:016x}",
        outcome.sends, outcome.rows, outcome.crashes, outcome.digest
    );
    let Some(violation) = outcome.violation else {
        println!("seed {seed}: nothing violated");
        return ExitCode::SUCCESS;
    };
    outcome.events.iter().for_each(|event| println!("  {event}"));
    println!("seed {seed}: {violation}");
    ExitCode::FAILURE
}

/// Many seeds; each that fails is named, with the command that replays it.
fn run_seeds(first: u64, runs: u64, steps: usize) -> ExitCode {
    let mut reached = BTreeMap::new();
    let (mut failed, mut crashes, mut rows, mut sends) = (0, 0, 0, 0);
    for seed in first..first + runs {
        let outcome = run(seed, steps, Mutation::None);
        crashes += outcome.crashes;
        rows += outcome.rows;
        sends += outcome.sends;
        for (what, count) in outcome.reached {
            *reached.entry(what).or_insert(0) += count;
        }
        if let Some(violation) = outcome.violation {
            failed += 1;
            println!("seed {seed}: {violation}");
            println!("    replay: SEED={seed} STEPS={steps} cargo test --test sim");
        }
    }
    println!("sim: {runs} seeds, {sends} messages made, {rows} rows, {crashes} crashes: {failed} failed");
    println!("sim: reached {reached:?}");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The model and the audit, against small histories made by hand.
fn prove() -> ExitCode {
    let failed = proofs::all().into_iter().filter_map(|(claim, outcome)| Some((claim, outcome.err()?)));
    let failed: Vec<_> = failed.inspect(|(claim, why)| println!("sim: {claim}: {why}")).collect();
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Each fault that no gateway may have must be reported within a few seeds, for what it is.
fn run_mutations(steps: usize) -> ExitCode {
    let mut unnoticed = 0;
    for (mutation, expected) in MUTATIONS {
        let reported = (1..=MUTATION_SEEDS).find_map(|seed| {
            let violation = run(seed, steps, mutation).violation?;
            violation.contains(expected).then_some((seed, violation))
        });
        match reported {
            Some((seed, violation)) => {
                let line = violation.lines().next().unwrap_or_default();
                println!("sim: {mutation:?} is reported by seed {seed}: {line:.100}");
            }
            None => {
                unnoticed += 1;
                println!("sim: {mutation:?} went unnoticed in {MUTATION_SEEDS} seeds");
            }
        }
    }
    if unnoticed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A seed that does not decide everything cannot be replayed.
fn run_twice(seed: u64, steps: usize) -> ExitCode {
    let (first, second) = (run(seed, steps, Mutation::None).digest, run(seed, steps, Mutation::None).digest);
    if first == second {
        return ExitCode::SUCCESS;
    }
    println!("sim: seed {seed} gave {first:016x} and then {second:016x}");
    ExitCode::FAILURE
}
