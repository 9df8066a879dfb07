//! Ringway's chaos: a cluster of real processes under faults that chance chooses, and a checker of what its clients saw.
//!
//! `make chaos` runs it, in namespaces that `scripts/chaos.sh` makes; it knows the gateway by its command line, its wire
//! protocol, its admin pages and the tables of its database. What always holds: a run that cannot be carried out
//! ends with exit code 2, one whose verdict is not "well" with 1.
//!
//! - [`conduct`]: the run. [`plan`], [`lab`], [`mariadb`], [`redis`], [`network`], [`process`]: the cluster, each
//!   process in a namespace of its own. [`clocks`]: the gateways' time of day.
//!   [`faults`]: what is done to it.
//! - [`clients`]: the process of the clients, over the client's core.
//! - [`history`]: a line for everything that happened. [`database`]: what was stored.
//! - [`checker`]: what the history says of the promises. [`report`]: what is printed.

mod checker;
mod clients;
mod clock;
mod clocks;
mod command;
mod conduct;
mod database;
mod error;
mod faults;
mod history;
mod lab;
mod mariadb;
mod network;
mod plan;
mod process;
mod redis;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use error::Failure;

#[derive(Parser, Debug)]
#[command(about = "A cluster of real processes under faults, and a checker of what its clients saw")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Disturbs a cluster and checks what its clients saw
    Run(conduct::RunArgs),
    /// Checks histories that were written before: all files of one run
    Check {
        /// The clients' first
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// The process of the clients, which `run` starts
    #[command(hide = true)]
    Clients(clients::ClientsArgs),
}

fn main() -> ExitCode {
    match carry_out(Cli::parse().what) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("chaos: {failure}");
            ExitCode::from(2)
        }
    }
}

fn carry_out(what: What) -> Result<bool, Failure> {
    match what {
        What::Run(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| Failure::Usage(error.to_string()))?.block_on(conduct::run(&args))
        }
        What::Check { files } => {
            let mut lines = Vec::new();
            for file in &files {
                history::read(file, |line| lines.push(line))?;
            }
            let (evidence, findings) = checker::check(lines);
            let dir = files.first().and_then(|file| file.parent()).unwrap_or_else(|| std::path::Path::new("."));
            Ok(report::print(&evidence, &findings, dir, 0))
        }
        What::Clients(args) => clients::run(&args).map(|()| true),
    }
}
