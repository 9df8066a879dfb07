//! What is changed while the gateway runs: limits, policies and the endpoints of webhooks, read again at SIGHUP and handed to
//! whoever holds to them.
//!
//! On the main thread. What always holds: settings that cannot be used change nothing; what can be read only at a start
//! stays as it was.

use std::error::Error;

use super::threads::Running;
use crate::config::Config;
use crate::contract::policies::Rules;
use crate::control::webhooks::endpoints::{self, Endpoint};
use crate::topology::mailbox::Order;

/// Reads the settings again.
pub(crate) type ReadSettings<'a> = &'a dyn Fn() -> Result<Config, Box<dyn Error>>;

impl Running {
    /// Reads the settings, and hands on what can change.
    pub(super) fn reload(&self, read_settings: ReadSettings<'_>) {
        const SIGNAL: &str = "SIGHUP";
        let (rules, endpoints) = match changeable(read_settings) {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(signal = SIGNAL, %error, "the settings cannot be used: all stays as it was");
                return;
            }
        };
        // Where no file was named at the start, nobody listens.
        self.endpoints.send_if_modified(|known| std::mem::replace(known, endpoints.clone()) != endpoints);
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
                "what clients may do, how much in a time, and who is told what, is as the settings say now; all else is read \
                 at a start"
            ),
            false => tracing::warn!(
                signal = SIGNAL,
                "limits that were read before are still to be taken: send the signal again in a moment"
            ),
        }
    }
}

fn changeable(read_settings: ReadSettings<'_>) -> Result<(Rules, Vec<Endpoint>), Box<dyn Error>> {
    let config = read_settings()?;
    let endpoints = config.webhooks.endpoints_file.as_deref().map(endpoints::load).transpose()?;
    Ok((config.rules(), endpoints.unwrap_or_default()))
}
