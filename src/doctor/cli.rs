//! `ringway doctor`: what it takes on the command line, and for how many connections it asks.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use crate::cluster::look::look;
use crate::config::args::ConfigArgs;
use crate::config::typed::Origin;
use crate::config::{Config, StoreUrl};
use crate::doctor::checks::{mysql, redis};
use crate::doctor::host::Host;
use crate::doctor::host::live::ThisMachine;
use crate::doctor::report::{HostReport, Outcome};
use crate::doctor::values::{Profile, Values, ValuesError};
use crate::doctor::{Need, ProfileBy, checks};
use crate::store;
use crate::topology::cpus::{CpuError, CpuPlan};

/// Exit code: nothing could be said, which is as bad as the worst that could be.
pub const NOT_EXAMINED: u8 = Outcome::CannotServe as u8;

/// Is this host fit for so many connections? Changes nothing. Exit codes: 0 good, 1 warnings, 2 it cannot keep them,
/// or could not be asked.
#[derive(Args, Clone, Default, Debug)]
pub struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How many connections [default: the profile's, else a configured limits.connections_max, else those of the
    /// largest profile whose CPUs and memory this host has].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=16 << 20))]
    connections: Option<u64>,
    /// The kind of host it is to be: small, standard, large or flagship [default: the smallest for the connections].
    #[arg(long, value_name = "P")]
    profile: Option<String>,
    /// Also the Redis at this URL, as cluster.redis_url has it; without it the configured one.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Why nothing could be said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoctorError {
    /// The file that says what to demand.
    #[error(transparent)]
    Values(#[from] ValuesError),
    /// The configured CPUs.
    #[error(transparent)]
    Cpus(#[from] CpuError),
    /// What would talk to Redis, or to the database.
    #[error("no thread can be made to talk to Redis or MySQL: {0}")]
    Runtime(#[source] std::io::Error),
    /// No such profile.
    #[error("there is no profile `{name}`; there are {known}")]
    Profile {
        /// As typed.
        name: String,
        /// Those there are.
        known: String,
    },
}

/// What is asked for, and why so many.
struct Asked<'a> {
    connections: u64,
    because: String,
    profile: &'a Profile,
    profile_by: ProfileBy,
}

/// Prints what the doctor says of this host.
pub fn run(args: &DoctorArgs) -> Result<ExitCode, Box<dyn Error>> {
    let report = examine(args, &args.config.config()?)?;
    let text = if args.json { report.json() } else { report.page() };
    // Whoever reads may have seen enough; the exit code says the rest.
    std::io::stdout().write_all(text.as_bytes()).ok();
    Ok(ExitCode::from(report.outcome.exit_code()))
}

/// Examines this host for a gateway with this configuration.
fn examine(options: &DoctorArgs, config: &Config) -> Result<HostReport, DoctorError> {
    let values = Values::shipped()?;
    let host = Host::read(&ThisMachine, &values, &config.data_dir);
    let shards = CpuPlan::new(config.cpus.as_deref(), config.shards)?.shards.len();
    let asked = asked(options, config, &values, &host)?;
    let need = Need {
        connections: asked.connections,
        shards,
        profile: asked.profile,
        profile_by: asked.profile_by,
        journal_bytes_max: config.limits.journal_bytes_max,
        values: &values,
    };
    let mut findings = checks::host(&host, &need)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DoctorError::Runtime)?;
    if let StoreUrl::MySql(url) = &config.store.url {
        findings.extend(mysql::findings(&runtime.block_on(store::mysql::look::look(url)), url));
    }
    if let Some(url) = options.redis.as_ref().or(config.cluster.redis_url.as_ref()) {
        let looked = runtime.block_on(look(url, config.cluster.buckets));
        findings.extend(redis::findings_of_all(&looked, url, config.limits.stream_entries_max));
    }
    Ok(HostReport::new(&need, asked.because, findings))
}

fn asked<'a>(options: &DoctorArgs, config: &Config, values: &'a Values, host: &Host) -> Result<Asked<'a>, DoctorError> {
    let named = match &options.profile {
        None => None,
        Some(name) => Some(values.profile(name).ok_or_else(|| DoctorError::Profile {
            name: name.clone(),
            known: values.profiles.iter().map(|profile| profile.name.as_str()).collect::<Vec<_>>().join(", "),
        })?),
    };
    let fitting = fitting(values, host)?;
    let (connections, because) = match (options.connections, named, &config.connections_origin) {
        (Some(connections), ..) => (connections, "--connections".to_owned()),
        (None, Some(profile), _) => (profile.connections, format!("those of profile {}", profile.name)),
        (None, None, Origin::Default) => (
            fitting.connections,
            format!("those of the largest profile whose CPUs and memory are here: {}", fitting.name),
        ),
        (None, None, origin) => {
            (config.limits.connections_max as u64, format!("limits.connections_max, from {origin}"))
        }
    };
    Ok(Asked {
        connections,
        because,
        profile: match named {
            Some(profile) => profile,
            None => values.profile_for(connections)?,
        },
        profile_by: if named.is_some() { ProfileBy::Operator } else { ProfileBy::Connections },
    })
}

/// The largest profile whose CPUs and memory the host has; the smallest there is if it has not even that one's.
fn fitting<'a>(values: &'a Values, host: &Host) -> Result<&'a Profile, ValuesError> {
    // What is sold as 16 GiB shows a little less.
    let memory_mib = host.memory_total().unwrap_or(0) / checks::BYTES_PER_MIB;
    let fits = |profile: &&Profile| profile.cpus <= host.cpus.len() && profile.memory_gib * 1024 / 10 * 9 <= memory_mib;
    let largest = values.profiles.iter().rev().find(fits).or(values.profiles.first());
    largest.ok_or(ValuesError::Missing("profile"))
}
