//! Watches how much memory the process has, and tells the shards when it is too much, before the kernel ends it.
//!
//! On the main thread, which has nothing else to do. What counts is what the kernel would have to find room for: pages that
//! belong to no file (`RssAnon`). What always holds: nobody is refused while there is room; what was begun at a limit ends a
//! little below it, so that it does not flicker; each change is in the log.

use super::threads::Running;
use crate::contract::memory::Pressure;
use crate::topology::mailbox::Order;

/// Where nobody more is let in, of the limit, per cent.
const NO_LOGINS_PERCENT: u64 = 90;
/// So much below its beginning each ends.
const RELIEF_PERCENT: u64 = 2;

/// What was found last.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    /// Bytes that the process may have; `None`: nobody knows.
    limit: Option<u64>,
    pressure: Pressure,
}

impl MemoryWatch {
    pub(super) fn new(limit: Option<u64>) -> Self {
        MemoryWatch { limit, pressure: Pressure::None }
    }

    /// What so many bytes come to.
    fn look(&mut self, bytes: u64) -> Pressure {
        let Some(limit) = self.limit else { return Pressure::None };
        let reaches = |percent: u64, stage: Pressure| {
            let relief = if self.pressure >= stage { RELIEF_PERCENT } else { 0 };
            bytes >= limit / 100 * (percent - relief)
        };
        self.pressure = if reaches(100, Pressure::CloseGreediest) {
            Pressure::CloseGreediest
        } else if reaches(NO_LOGINS_PERCENT, Pressure::NoLogins) {
            Pressure::NoLogins
        } else {
            Pressure::None
        };
        self.pressure
    }
}

impl Running {
    /// Looks, and tells the shards.
    pub(super) fn watch_memory(&self, watch: &mut MemoryWatch) {
        let Some(bytes) = anonymous_bytes().filter(|_| watch.limit.is_some()) else { return };
        let before = watch.pressure;
        let pressure = watch.look(bytes);
        if pressure != before {
            let limit = watch.limit.unwrap_or_default();
            match pressure {
                Pressure::None => tracing::info!(bytes, limit, "there is memory again: logins are taken"),
                Pressure::NoLogins => {
                    tracing::warn!(bytes, limit, "memory is short: no logins are taken (limits.memory_bytes_max)");
                }
                Pressure::CloseGreediest => {
                    tracing::error!(
                        bytes,
                        limit,
                        "memory is at its limit: the sessions that hold most of it are ended"
                    );
                }
            }
        }
        if pressure != before || pressure == Pressure::CloseGreediest {
            for orders in &self.orders {
                // A shard that has no room for an order has older ones to take; it is told again.
                orders.put(Order::Memory(pressure)).ok();
                orders.wake();
            }
        }
    }
}

/// Pages of the process that belong to no file.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_nine_tenths_nobody_is_let_in_at_the_limit_the_greediest_go_and_both_end_a_little_below() {
        let mut watch = MemoryWatch::new(Some(1_000));
        for (bytes, expected) in [
            (0, Pressure::None),
            (899, Pressure::None),
            (900, Pressure::NoLogins),
            (880, Pressure::NoLogins),
            (879, Pressure::None),
            (1_000, Pressure::CloseGreediest),
            (980, Pressure::CloseGreediest),
            (979, Pressure::NoLogins),
            (100, Pressure::None),
        ] {
            assert_eq!(watch.look(bytes), expected, "{bytes}");
        }
        assert_eq!(MemoryWatch::new(None).look(u64::MAX), Pressure::None);
        assert!(anonymous_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
