//! Runs what was asked for: each scenario of `ringway bench`, and `ringway chat`.

use super::args::{BenchArgs, BenchScenario, ChatArgs};
use super::contract::Stores;
use super::error::LoadError;
use super::outcome::Outcome;
use super::{abuse, chat, direct, disk, floor, group, idle, storm, targets};

/// Runs a bench and prints its report; `stores`: where its rows may be.
pub fn run_bench(args: &BenchArgs, stores: &dyn Stores) -> Result<Outcome, LoadError> {
    let clean = match &args.scenario {
        BenchScenario::Group(args) => group::run(args, stores)?,
        BenchScenario::Direct(args) => direct::run(args, stores)?,
        BenchScenario::Idle(args) => idle::run(args, stores)?,
        BenchScenario::Disk(args) => disk::run(args)?,
        BenchScenario::Floor(args) => floor::run(args)?,
        BenchScenario::Storm(args) => storm::run(args, stores)?,
        BenchScenario::Abuse(args) => abuse::run(args, stores)?,
        BenchScenario::Targets => targets::run()?,
    };
    Ok(if clean { Outcome::Clean } else { Outcome::NotClean })
}

/// Runs a chat until its input ends.
pub fn run_chat(args: &ChatArgs) -> Result<Outcome, LoadError> {
    chat::run(args)
}
