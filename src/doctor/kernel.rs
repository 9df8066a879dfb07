//! A kernel's version, as it is compared.
//!
//! Read from what the kernel calls itself, and from `tuning/values.conf`. What always holds: versions are compared
//! number by number, never as text; what distributions write behind the second number decides nothing.

use std::fmt;

/// A kernel's version, as far as it decides anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct KernelVersion {
    /// The first number.
    pub(crate) major: u32,
    /// The second.
    pub(crate) minor: u32,
}

impl KernelVersion {
    /// From `6.1.0-18-cloud-amd64` or `5.8`.
    pub(crate) fn parse(release: &str) -> Option<KernelVersion> {
        let (major, rest) = release.trim().split_once('.')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
        Some(KernelVersion { major: major.parse().ok()?, minor: digits.parse().ok()? })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
