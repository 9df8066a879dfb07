//! What `serve` asks the doctor before it starts: whether this host keeps the connections it is configured for.
//!
//! On the main thread, before any shard has a ring. What always holds: a number that an operator has configured is
//! kept or refused; the default is what the host can keep.

#[cfg(test)]
mod tests;

use std::fmt;

use crate::config::Config;
use crate::config::typed::Origin;
use crate::doctor::host::Host;
use crate::doctor::host::live::ThisMachine;
use crate::doctor::values::{Amount, Kind, Values, ValuesError};
use crate::doctor::{Finding, Need, ProfileBy, checks};

/// Why `serve` does not start on this host.
#[derive(Debug, thiserror::Error)]
pub enum UnfitHost {
    /// What was configured cannot be kept; fewer could.
    #[error("this host cannot keep {connections} connections (limits.connections_max, from {origin}){}", Lines(.findings))]
    CannotKeep {
        /// As many as were asked for.
        connections: u64,
        /// Who wants them.
        origin: Origin,
        /// All that is in the way.
        findings: Vec<Finding>,
    },
    /// Whatever the number, no shard can run.
    #[error("the gateway cannot run on this host, however few the connections{}", Lines(.findings))]
    CannotRun {
        /// All that is in the way, and nothing that is not.
        findings: Vec<Finding>,
    },
    /// The file that says what to demand.
    #[error(transparent)]
    Values(#[from] ValuesError),
}

/// Sentences, a line each.
struct Lines<'a>(&'a [Finding]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|finding| write!(f, "\n  {finding}"))
    }
}

/// What `serve` goes on with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    /// Connections of the whole gateway.
    pub(crate) connections: u64,
    /// If they are fewer than the default: what keeps them down.
    pub(crate) reduced_by: Option<Finding>,
    /// What else is fatal for a configured number, and no matter of this process: the kernel will drop connections
    /// that the gateway could keep.
    pub(crate) warnings: Vec<Finding>,
}

impl Kept {
    /// Why the default was not kept, if it was not. Nobody has asked for that many: so it says what there is, and what
    /// to ask for more, and demands nothing.
    pub(crate) fn reduction(&self) -> Option<String> {
        let Finding { id, current, .. } = self.reduced_by.as_ref()?;
        Some(format!(
            "room for {} connections, as {id} allow here ({current}); `ringway doctor --connections N` says what more \
             would take",
            self.connections
        ))
    }
}

/// Memory of this machine, or of the cgroup that the process is in, bytes; `None`: that cannot be read.
pub(crate) fn memory_total(config: &Config) -> Option<u64> {
    Host::read(&ThisMachine, &Values::shipped().ok()?, &config.data_dir).memory_total()
}

/// How many connections the gateway is going to keep on this machine, whose limits were raised already.
pub(crate) fn connections(config: &Config, shards: usize) -> Result<Kept, UnfitHost> {
    let values = Values::shipped()?;
    let host = Host::read(&ThisMachine, &values, &config.data_dir);
    on(&host, &values, config, shards)
}

/// The same on any host.
fn on(host: &Host, values: &Values, config: &Config, shards: usize) -> Result<Kept, UnfitHost> {
    let connections = config.limits.connections_max as u64;
    let origin = &config.connections_origin;
    let need = Need {
        connections,
        shards,
        profile: values.profile_for(connections)?,
        profile_by: ProfileBy::Connections,
        journal_bytes_max: config.limits.journal_bytes_max,
        values,
    };
    let mut findings = checks::of_the_process(host, &need)?;
    findings.retain(Finding::is_fatal);
    if findings.is_empty() {
        let mut warnings = if *origin == Origin::Default { Vec::new() } else { checks::host(host, &need)? };
        warnings.retain(Finding::is_fatal);
        return Ok(Kept { connections, reduced_by: None, warnings });
    }
    let limits = affordable(host, values)?;
    let (fewer_would_do, in_the_way): (Vec<Finding>, Vec<Finding>) =
        findings.into_iter().partition(|finding| limits.iter().any(|(id, _)| *id == finding.id));
    if !in_the_way.is_empty() {
        return Err(UnfitHost::CannotRun { findings: in_the_way });
    }
    if *origin != Origin::Default {
        return Err(UnfitHost::CannotKeep { connections, origin: origin.clone(), findings: fewer_would_do });
    }
    let Some((id, least)) = limits.into_iter().min_by_key(|(_, connections)| *connections) else {
        return Ok(Kept { connections, reduced_by: None, warnings: Vec::new() });
    };
    let reduced_by = fewer_would_do.into_iter().find(|finding| finding.id == id);
    Ok(Kept { connections: least.clamp(1, connections), reduced_by, warnings: Vec::new() })
}

/// What grows with the connections, and for how many there is enough of it. Somebody who has said nothing gets a
/// gateway also on a host that has not the base for one under load: half of what there is.
fn affordable(host: &Host, values: &Values) -> Result<Vec<(&'static str, u64)>, ValuesError> {
    let descriptors = host.descriptors.map(|limit| limit.hard);
    let limits = [
        (checks::DESCRIPTORS, descriptors, values.amount(Kind::Rlimit, "nofile")?),
        (checks::MEMORY_AVAILABLE, host.memory_available(), values.amount(Kind::Memory, "available")?),
    ];
    let of = |(id, have, amount): (&'static str, Option<u64>, Amount)| {
        let have = have?;
        Some((id, checks::affordable(have, Amount { base: amount.base.min(have / 2), ..amount })))
    };
    Ok(limits.into_iter().filter_map(of).collect())
}
