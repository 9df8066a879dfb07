//! The checks: pure functions from what was read and what is needed to findings.
//!
//! [`host`] runs all that look at the machine. A check of something else, such as a database's settings, is another
//! function beside it that returns findings; the report takes them as they come. What always holds: a check that
//! cannot see what it looks at returns [`Verdict::Unknown`].

mod cpus;
mod disk;
mod io_uring;
mod memory;
pub(crate) mod mysql;
mod process;
pub(crate) mod redis;
mod rules;

pub(crate) use memory::{AVAILABLE as MEMORY_AVAILABLE, BYTES_PER_MIB, affordable};
pub(crate) use process::DESCRIPTORS;

use crate::doctor::host::Host;
use crate::doctor::values::{Kind, Rule, ValuesError};
use crate::doctor::{Finding, Need, Severity, Verdict};

/// Every check of the machine, in the order in which it is shown.
pub(crate) fn host(host: &Host, need: &Need<'_>) -> Result<Vec<Finding>, ValuesError> {
    let mut findings = of_the_process(host, need)?;
    findings.extend(rules::findings(host, need));
    findings.extend([cpus::count(host, need), cpus::quota(host), cpus::clock_source(host)]);
    findings.extend([disk::free(host, need), disk::file_system(host), process::client_ports(host, need)]);
    Ok(findings)
}

/// Those that decide whether this very process can keep its connections: the ones that `serve` runs.
pub(crate) fn of_the_process(host: &Host, need: &Need<'_>) -> Result<Vec<Finding>, ValuesError> {
    let mut findings = Vec::new();
    for rule in &need.values.rules {
        let finding = match (rule.kind, rule.key.as_str()) {
            (Kind::Kernel, _) => io_uring::release(host, rule),
            (Kind::Memory, "available") => memory::available(host, need, rule),
            (Kind::Memory, _) => memory::total(host, need, rule),
            (Kind::Rlimit, "nofile") => process::descriptors(host, need, rule),
            (Kind::Rlimit, _) => process::memlock(host, need, rule),
            (Kind::Sysctl | Kind::Conntrack | Kind::Nic | Kind::Sysfs, _) => continue,
        };
        findings.push(finding);
    }
    findings.insert(1.min(findings.len()), io_uring::ring(host));
    Ok(findings)
}

/// What a check looks at, and what it means if it is not as it should be.
#[derive(Clone, Copy)]
struct Subject<'a> {
    id: &'a str,
    severity: Severity,
    why: &'a str,
}

impl<'a> Subject<'a> {
    fn of(id: &'a str, rule: &'a Rule) -> Subject<'a> {
        Subject { id, severity: rule.severity, why: &rule.why }
    }

    /// It could be seen, and is as required or `fix` helps.
    fn seen(self, current: String, required: String, verdict: Verdict, fix: impl FnOnce() -> String) -> Finding {
        let fix = (verdict != Verdict::Good).then(fix);
        self.finding(current, required, verdict, fix)
    }

    fn good(self, current: String, required: String) -> Finding {
        self.finding(current, required, Verdict::Good, None)
    }

    fn bad(self, current: String, required: String, fix: impl FnOnce() -> String) -> Finding {
        self.finding(current, required, Verdict::Bad, Some(fix()))
    }

    /// It could not be seen: why not, and where it can be.
    fn unseen(self, reason: String, required: String, fix: String) -> Finding {
        self.finding(reason, required, Verdict::Unknown, Some(fix))
    }

    fn finding(self, current: String, required: String, verdict: Verdict, fix: Option<String>) -> Finding {
        let (id, why) = (self.id.to_owned(), self.why.to_owned());
        Finding { id, current, required, severity: self.severity, verdict, fix, why }
    }
}
