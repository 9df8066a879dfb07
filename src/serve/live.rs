//! What is in force, and how it changes while the gateway runs: the settings are read again, or the API says otherwise.
//!
//! On the main thread. What always holds: either all of a change holds or nothing of it does, and what cannot be used changes
//! nothing; what can be read only at a start stays as it was; each value that changes is a line of the log; what the API said
//! goes before what the files say, until it is taken back or the gateway ends.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::after;
use tokio::sync::watch;

use super::threads::Running;
use crate::api::keys::{KeysChange, read_keys};
use crate::auth::AuthKeys;
use crate::config::keys::{Changes, KEYS};
use crate::config::typed::{Origin, Typed};
use crate::config::{Config, Drain};
use crate::contract::chain::Chain;
use crate::contract::policies::Rules;
use crate::control::ReloadSignal;
use crate::control::settings::{Setting, SettingsShown, SettingsWish};
use crate::control::webhooks::endpoints;
use crate::log;
use crate::token::verifying_key;
use crate::topology::mailbox::{Order, Slot};

/// How often a shard whose mailbox is full is tried, and how long after each.
const ORDER_TRIES: u32 = 100;
const ORDER_AGAIN: Duration = Duration::from_millis(20);

/// Reads what was typed again.
pub(crate) type ReadSettings<'a> = &'a dyn Fn() -> Result<Typed, Box<dyn Error>>;

/// See the module.
pub(super) struct Live<'a> {
    read: ReadSettings<'a>,
    in_force: Typed,
    /// What the files say of keys that are read only at a start, where that is something else.
    waiting: BTreeMap<&'static str, String>,
    /// What the API said, and with which key.
    said: BTreeMap<&'static str, (String, String)>,
    generation: u64,
    /// How it stops, as of now.
    pub(super) drain: Drain,
    shown: watch::Sender<Arc<SettingsShown>>,
    /// The API's keys; `None`: none were configured.
    keys: Option<KeysChange>,
    /// What tokens are verified with.
    auth: AuthKeys,
}

impl<'a> Live<'a> {
    pub(super) fn new(
        typed: &Typed,
        read: ReadSettings<'a>,
        drain: Drain,
        shown: watch::Sender<Arc<SettingsShown>>,
        keys: Option<KeysChange>,
        auth: AuthKeys,
    ) -> Live<'a> {
        let (waiting, said) = (BTreeMap::new(), BTreeMap::new());
        let live = Live { read, in_force: typed.clone(), waiting, said, generation: 1, drain, shown, keys, auth };
        live.show();
        live
    }

    /// Does what is wanted, and answers.
    pub(super) fn follow(&mut self, running: &Running, signal: ReloadSignal) {
        match signal {
            ReloadSignal::Files => match self.apply(running, self.said.clone()) {
                Ok(changed) => tracing::info!(
                    signal = "SIGHUP",
                    changed,
                    generation = self.generation,
                    "what can change while the gateway runs is as the settings say now; all else is read at a start"
                ),
                Err(why) => {
                    tracing::error!(signal = "SIGHUP", error = why, "the settings cannot be used: all stays as it was");
                }
            },
            ReloadSignal::Wish(SettingsWish { values, by, answer }) => {
                let outcome = self.wished(running, values, &by);
                if let Err(why) = &outcome {
                    tracing::warn!(
                        key = by,
                        error = why,
                        "the API wants settings that cannot be used: all stays as it was"
                    );
                }
                // Who does not wait any more can ask what holds.
                answer.send(outcome.map(|()| Arc::clone(&self.shown.borrow()))).ok();
            }
        }
    }

    fn wished(&mut self, running: &Running, values: BTreeMap<String, Option<String>>, by: &str) -> Result<(), String> {
        let mut said = self.said.clone();
        for (name, value) in values {
            let key = KEYS.iter().find(|key| key.name == name).ok_or_else(|| format!("there is no setting {name}"))?;
            match key.changes() {
                Changes::Now => {}
                Changes::AtReload => {
                    return Err(format!("{name} is changed in the files alone, and read again at SIGHUP"));
                }
                Changes::AtStart => return Err(format!("{name} is read only at a start")),
            }
            match value {
                Some(value) => drop(said.insert(key.name, (value, by.to_owned()))),
                None => drop(said.remove(key.name)),
            }
        }
        self.apply(running, said).map(drop)
    }

    /// Reads everything, and hands on what can change; how many values have.
    fn apply(&mut self, running: &Running, said: BTreeMap<&'static str, (String, String)>) -> Result<usize, String> {
        let failed = |error: &dyn Error| Chain(error).to_string();
        let mut typed = (self.read)().map_err(|error| failed(error.as_ref()))?;
        let mut waiting = BTreeMap::new();
        for key in KEYS {
            if key.changes() == Changes::AtStart && typed.text(key.name) != self.in_force.text(key.name) {
                waiting.insert(key.name, typed.shown(key.name));
            }
        }
        for (name, (value, by)) in &said {
            typed.set(name, value.clone(), Origin::Api(by.clone())).map_err(|error| failed(&error))?;
        }
        Config::new(&typed).map_err(|error| failed(&error))?;
        waiting.keys().for_each(|name| typed.keep(name, &self.in_force));
        let file = |name| Some(typed.text(name)).filter(|path| !path.is_empty()).map(std::path::Path::new);
        let endpoints =
            file("webhooks.endpoints_file").map(endpoints::load).transpose().map_err(|error| failed(&error))?;
        let keys = file("api.keys_file").map(read_keys).transpose().map_err(|error| failed(&error))?;
        // What is read only at a start is as it was: a secret that was typed in, too.
        let config = Config::new(&typed).map_err(|error| failed(&error))?;
        let auth = verifying_key(&config).map_err(|error| failed(&error))?;
        running.hand_on(&config, Some(&auth).filter(|auth| **auth != self.auth))?;
        // From here on nothing can fail.
        if typed.text("log.level") != self.in_force.text("log.level") {
            log::set_level(&config.log);
        }
        running.endpoints.send_if_modified(|known| {
            let endpoints = endpoints.unwrap_or_default();
            std::mem::replace(known, endpoints.clone()) != endpoints
        });
        if let (Some(to), Some(keys)) = (&self.keys, keys) {
            let names: Vec<String> = keys.iter().map(|key| key.to_string()).collect();
            let is_new = to.send_if_modified(|known| {
                let is_new = *known != keys;
                *known = keys;
                is_new
            });
            if is_new {
                tracing::info!(keys = names.join(", "), "the API's keys were read again, and have changed");
            }
        }
        if std::mem::replace(&mut self.auth, auth.clone()) != auth {
            tracing::info!(
                "the keys that tokens are verified with have changed: sessions stay, logins need a good one"
            );
        }
        self.drain = Drain { spread_s: self.drain.spread_s, ..config.drain };
        (self.said, self.waiting) = (said, waiting);
        Ok(self.took(typed))
    }

    /// Says what has changed.
    fn took(&mut self, typed: Typed) -> usize {
        let changed: Vec<_> = KEYS.iter().filter(|key| typed.text(key.name) != self.in_force.text(key.name)).collect();
        self.generation += u64::from(!changed.is_empty());
        for key in &changed {
            tracing::info!(
                setting = key.name,
                old = self.in_force.shown(key.name),
                new = typed.shown(key.name),
                origin = %typed.origin(key.name),
                generation = self.generation,
                "a setting has changed"
            );
        }
        for (name, next) in &self.waiting {
            tracing::warn!(setting = name, next, "this setting is read only at a start: it stays as it was until then");
        }
        self.in_force = typed;
        self.show();
        changed.len()
    }

    fn show(&self) {
        let setting = |key: &crate::config::keys::Key| Setting {
            setting: key.name,
            value: self.in_force.shown(key.name),
            origin: self.in_force.origin(key.name).to_string(),
            changes: match key.changes() {
                Changes::Now => "now",
                Changes::AtReload => "at_reload",
                Changes::AtStart => "at_start",
            },
            next_value: self.waiting.get(key.name).cloned(),
            about: key.about,
        };
        let settings = KEYS.iter().map(setting).collect();
        self.shown.send_replace(Arc::new(SettingsShown { generation: self.generation, settings }));
    }
}

impl Running {
    /// Hands what clients may do, and keys that have changed, to the shards, the ledger and the store.
    fn hand_on(&self, config: &Config, auth: Option<&AuthKeys>) -> Result<(), String> {
        let rules = config.rules();
        // A ledger that has nothing to do may not have taken the last ones: these replace them. So with the store.
        self.ledger_rules_untaken.try_recv().ok();
        self.store_rules_untaken.try_recv().ok();
        let taken = self.ledger_rules.try_send(rules).is_ok()
            && self.store_rules.try_send(config.store_rules()).is_ok()
            && self.orders.iter().all(|orders| order(orders, rules, auth));
        self.store_wake.notify_one();
        match taken {
            true => Ok(()),
            false => Err("limits that were said before are still to be taken: try again in a moment".to_owned()),
        }
    }
}

/// A shard that has much to do takes its orders a little later.
fn order(orders: &Slot<Order>, rules: Rules, auth: Option<&AuthKeys>) -> bool {
    for _ in 0..ORDER_TRIES {
        let put = orders.put(Order::Rules(Box::new(rules), auth.cloned().map(Box::new))).is_ok();
        orders.wake();
        if put {
            return true;
        }
        after(ORDER_AGAIN).recv().ok();
    }
    false
}
