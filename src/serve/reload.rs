//! Limits that are changed while the gateway runs: read again at SIGHUP, handed to whoever holds to them.
//!
//! On the main thread. What always holds: settings that cannot be used change nothing; what can be read only at a start
//! stays as it was.

use std::error::Error;

use super::threads::Running;
use crate::contract::traffic::TrafficLimits;
use crate::topology::mailbox::Order;

/// Reads the settings again, and says what one account may send.
pub type ReadLimits<'a> = &'a dyn Fn() -> Result<TrafficLimits, Box<dyn Error>>;

impl Running {
    /// Reads the limits again, and hands them to the shards and the ledger.
    pub(super) fn reload(&self, read_limits: ReadLimits<'_>) {
        const SIGNAL: &str = "SIGHUP";
        let traffic = match read_limits() {
            Ok(traffic) => traffic,
            Err(error) => {
                tracing::error!(signal = SIGNAL, %error, "the settings cannot be used: all stays as it was");
                return;
            }
        };
        // A ledger that has nothing to do may not have taken the last ones: these replace them.
        self.ledger_limits_untaken.try_recv().ok();
        let mut taken = self.ledger_limits.try_send(traffic).is_ok();
        for orders in &self.orders {
            taken &= orders.put(Order::Limits(Box::new(traffic))).is_ok();
            orders.wake();
        }
        match taken {
            true => tracing::info!(
                signal = SIGNAL,
                "what one account may do in a time is as the settings say now; all other settings are read at a start"
            ),
            false => tracing::warn!(
                signal = SIGNAL,
                "limits that were read before are still to be taken: send the signal again in a moment"
            ),
        }
    }
}
