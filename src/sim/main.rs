//! The simulator: the gateway's core under a seeded world that crashes, delays, fills and starves it, judged
//! by a model that shares no code with it.
//!
//! There are two kinds of runs: one gateway by itself, and several as a cluster over models of Redis and a database.
//! `SEED=7 cargo test --test sim` replays one seed of both and prints its last events; `RUNS=1000` runs so many seeds
//! from `SEED` (or 1) on; `KIND=alone` or `KIND=cluster` runs that kind only; `FAULT=Swaps` tries those mutations only
//! whose name has that in it; `STEPS` is how long each run is, `EVENTS` how many events a replay prints, and `TRACE` shows
//! what the gateway logs. Without any, some seeds are run that are always the same, and a few that are not, each mutation
//! is tried until it is reported, and one seed is run twice to show that a seed decides everything. What always holds: the
//! exit code is 0 only if no run was violated and every mutation was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod acts;
mod alone;
mod brief;
mod check;
mod client;
mod cluster;
mod device_check;
mod disk;
mod events;
mod fairness;
mod gateway;
mod hostile;
mod ledger;
mod model;
mod mutation;
mod network;
mod plan;
mod proofs;
mod random;
mod sockets;
mod store;
mod tables;
mod wires;
mod world;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use alone::Alone;
use cluster::Cluster;
use model::{Checked, Violation};
use mutation::{MUTATIONS, Mutation};
use ringway::contract::internal::InternalErrors;
use world::World;

/// Seeds that a plain `cargo test` runs.
const RUNS: u64 = 60;
/// Seeds of clusters that it runs.
const CLUSTER_RUNS: u64 = 12;
/// Seeds that it runs of each kind and that no run before had.
const FRESH_RUNS: u64 = 6;
/// Steps of one run.
const STEPS: usize = 3_000;
/// Seeds in which a mutation must have been reported.
const MUTATION_SEEDS: u64 = 200;

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
    let kind = std::env::var("KIND").ok();
    let subjects = [Subject::Alone(Mutation::None), Subject::Cluster(cluster::mutation::Mutation::None)];
    let subjects: Vec<Subject> =
        subjects.into_iter().filter(|subject| kind.as_deref().is_none_or(|kind| kind == subject.kind())).collect();
    let outcomes: Vec<ExitCode> = match (number("SEED"), number("RUNS")) {
        (Some(seed), None) => subjects.iter().map(|subject| replay(*subject, seed, steps)).collect(),
        (seed, Some(runs)) => {
            subjects.iter().map(|subject| run_seeds(*subject, seed.unwrap_or(1), runs, steps)).collect()
        }
        (None, None) => subjects.iter().flat_map(|subject| everything(*subject, steps)).collect(),
    };
    if outcomes.iter().all(|code| *code == ExitCode::SUCCESS) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Something broken, what the report must contain, and the seed that is tried first.
type Planted = (Subject, &'static str, u64);

/// What a plain `cargo test` runs.
fn everything(subject: Subject, steps: usize) -> [ExitCode; 5] {
    let (runs, mutations): (u64, Vec<Planted>) = match subject {
        Subject::Alone(_) => {
            (RUNS, MUTATIONS.iter().map(|(mutation, what)| (Subject::Alone(*mutation), *what, 1)).collect())
        }
        Subject::Cluster(_) => {
            let mutations = cluster::mutation::MUTATIONS.iter();
            (
                CLUSTER_RUNS,
                mutations.map(|(mutation, what, seed)| (Subject::Cluster(*mutation), *what, *seed)).collect(),
            )
        }
    };
    if let Ok(named) = std::env::var("FAULT") {
        let mutations: Vec<Planted> =
            mutations.into_iter().filter(|(mutation, ..)| format!("{mutation:?}").contains(&named)).collect();
        let well = ExitCode::SUCCESS;
        return [run_mutations(&mutations, steps), well, well, well, well];
    }
    let fresh = run_seeds(subject, fresh_seed(), FRESH_RUNS, steps);
    let (fixed, twice) = (run_seeds(subject, 1, runs, steps), run_twice(subject, 1, steps));
    [prove(), fixed, fresh, run_mutations(&mutations, steps), twice]
}

/// By chance, which the process has from the operating system, and behind those that are tried in order. Whoever fails is
/// printed with its seed.
fn fresh_seed() -> u64 {
    (1 << 32) + (RandomState::new().hash_one(()) >> 32)
}

/// What is run: one gateway by itself or a cluster, as it is or with something broken.
#[derive(Clone, Copy, Debug)]
enum Subject {
    Alone(Mutation),
    Cluster(cluster::mutation::Mutation),
}

impl Subject {
    /// How `KIND` names it.
    fn kind(self) -> &'static str {
        match self {
            Subject::Alone(_) => "alone",
            Subject::Cluster(_) => "cluster",
        }
    }

    fn run(self, seed: u64, steps: usize) -> Outcome {
        match self {
            Subject::Alone(mutation) => match Alone::new(seed, steps, mutation) {
                Ok(mut alone) => {
                    let violation = judged(|| alone.run());
                    Outcome::of(alone.world, alone.crashes, violation)
                }
                Err(violation) => Outcome::of_no_start(violation),
            },
            Subject::Cluster(mutation) => match Cluster::new(seed, steps, mutation) {
                Ok(mut cluster) => {
                    let violation = judged(|| cluster.run());
                    Outcome::of(cluster.world, cluster.crashes, violation)
                }
                Err(violation) => Outcome::of_no_start(violation),
            },
        }
    }
}

impl Outcome {
    fn of(world: World, crashes: usize, violation: Option<String>) -> Outcome {
        Outcome {
            violation,
            events: world.events.last(),
            digest: world.events.digest(),
            crashes,
            rows: world.model.inboxes.values().map(|inbox| inbox.rows.len() as u64).sum(),
            sends: world.model.sends.len(),
            reached: world.reached,
        }
    }

    fn of_no_start(violation: Violation) -> Outcome {
        let (violation, reached) = (Some(violation.0), BTreeMap::new());
        Outcome { violation, events: Vec::new(), digest: 0, crashes: 0, rows: 0, sends: 0, reached }
    }
}

/// What became of a run.
fn judged(run: impl FnOnce() -> Checked) -> Option<String> {
    let before = InternalErrors::of_this_thread().total();
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => internal_error_since(before),
        Ok(Err(violation)) => Some(violation.0),
        Err(_) => Some(format!("a panic: {}", PANIC.take())),
    }
}

/// A mistake that the gateway noticed itself, and went on.
fn internal_error_since(before: u64) -> Option<String> {
    let errors = InternalErrors::of_this_thread();
    let at = errors.last().filter(|_| errors.total() > before)?;
    Some(format!("an internal error: {at}"))
}

/// One seed, with its last events if it fails.
fn replay(subject: Subject, seed: u64, steps: usize) -> ExitCode {
    let outcome = subject.run(seed, steps);
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
fn run_seeds(subject: Subject, first: u64, runs: u64, steps: usize) -> ExitCode {
    let mut reached = BTreeMap::new();
    let (mut failed, mut crashes, mut rows, mut sends) = (0, 0, 0, 0);
    for seed in first..first + runs {
        let outcome = subject.run(seed, steps);
        crashes += outcome.crashes;
        rows += outcome.rows;
        sends += outcome.sends;
        for (what, count) in outcome.reached {
            *reached.entry(what).or_insert(0) += count;
        }
        if let Some(violation) = outcome.violation {
            failed += 1;
            println!("seed {seed}: {violation}");
            println!("    replay: KIND={} SEED={seed} STEPS={steps} cargo test --test sim", subject.kind());
        }
    }
    let kind = subject.kind();
    println!("sim: {kind}: {runs} seeds, {sends} messages made, {rows} rows, {crashes} crashes: {failed} failed");
    println!("sim: {kind}: reached {reached:?}");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The model and the audit, against small histories made by hand.
fn prove() -> ExitCode {
    let failed = proofs::all().into_iter().filter_map(|(claim, outcome)| Some((claim, outcome.err()?)));
    let failed: Vec<_> = failed.inspect(|(claim, why)| println!("sim: {claim}: {why}")).collect();
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Each fault that no gateway may have must be reported within a few seeds, for what it is.
fn run_mutations(mutations: &[Planted], steps: usize) -> ExitCode {
    let mut unnoticed = 0;
    for (mutation, expected, first) in mutations {
        let reported = std::iter::once(*first).chain(1..=MUTATION_SEEDS).find_map(|seed| {
            let violation = mutation.run(seed, steps).violation?;
            violation.contains(*expected).then_some((seed, violation))
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
fn run_twice(subject: Subject, seed: u64, steps: usize) -> ExitCode {
    let (first, second) = (subject.run(seed, steps).digest, subject.run(seed, steps).digest);
    if first == second {
        return ExitCode::SUCCESS;
    }
    println!("sim: seed {seed} gave {first:016x} and then {second:016x}");
    ExitCode::FAILURE
}
