//! Limits and policies that are changed while the gateway runs: read again at SIGHUP, handed to whoever holds to them.
//!
//! On the main thread. What always holds: settings that cannot be used change nothing; what can be read only at a start
//! stays as it was.

use std::error::Error;

use super::threads::Running;
use crate::contract::policies::Rules;
use crate::topology::mailbox::Order;

/// Reads the settings again, and says what clients may do from now on.
pub(crate) type ReadRules<'a> = &'a dyn Fn() -> Result<Rules, Box<dyn Error>>;

impl Running {
    /// Reads the rules again, and hands them to the shards and the ledger.
    pub(super) fn reload(&self, read_rules: ReadRules<'_>) {
        const SIGNAL: &str = "SIGHUP";
        let rules = match read_rules() {
            Ok(rules) => rules,
            Err(error) => {
                tracing::error!(signal = SIGNAL, %error, "the settings cannot be used: all stays as it was");
                return;
            }
        };
        // A ledger that has nothing to do may not have taken the last ones: these replace them.
        self.ledger_rules_untaken.try_recv().ok();
        let mut taken = self.ledger_rules.try_send(rules).is_ok();
        for orders in &self.orders {
            taken &= orders.put(Order::Rules(Box::new(rules))).is_ok();
            orders.wake();
        }
        match taken {
            true => tracing::info!(
                signal = SIGNAL,
                "what clients may do, and how much in a time, is as the settings say now; all else is read at a start"
            ),
            false => tracing::warn!(
                signal = SIGNAL,
                "limits that were read before are still to be taken: send the signal again in a moment"
            ),
        }
    }
}
