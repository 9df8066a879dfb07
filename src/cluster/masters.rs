//! Which Redis has which bucket of the ledger: one by itself has all of them, of a Redis Cluster each the master that has
//! the slot of the bucket's keys.
//!
//! On Redis's thread, at the beginning of each session. What always holds: a connection goes to one server and follows
//! nothing elsewhere; where a slot has moved to, only the next session asks, which looks at what is there before it goes
//! on.

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::{Config, Server, ServerConfig};
use fred::types::{CustomCommand, Value};
use fred::util::redis_keyslot;

use super::connection::{Ended, bytes_of, connect};

/// A server that has buckets.
#[derive(Clone, Debug)]
pub(super) struct Master {
    /// How to connect to it, and to no other.
    pub(super) config: Config,
    /// Its URL, for people; of a Redis Cluster without the password.
    pub(super) url: String,
    /// How many buckets it has.
    pub(super) buckets: usize,
}

/// The masters of all buckets.
#[derive(Clone, Debug)]
pub(super) struct Masters {
    /// Each once.
    masters: Vec<Master>,
    /// Which one a bucket lies on.
    of: Vec<usize>,
}

/// What every key of a bucket begins with; the braces keep them together on one master of a Redis Cluster. It names the
/// form of what is kept, so that another form is not misread.
pub(super) fn prefix(bucket: usize) -> String {
    format!("{{ringway:{bucket}}}:3:")
}

impl Masters {
    /// Looks for them. `turn`: another server of a Redis Cluster is asked first each time.
    pub(super) async fn find(url: &str, buckets: usize, turn: u64) -> Result<Masters, Ended> {
        let config = Config::from_url(url)?;
        let ServerConfig::Clustered { hosts, .. } = &config.server else {
            let master = Master { config, url: url.to_owned(), buckets };
            return Ok(Masters { masters: vec![master], of: vec![0; buckets] });
        };
        let mut failed = Ended::Lost("the URL names no server".to_owned());
        for at in 0..hosts.len() {
            let Some(host) = hosts.get((at + turn as usize) % hosts.len()) else { continue };
            match slots_at(&config, host).await {
                Ok(slots) => return Masters::new(&config, &slots, buckets),
                Err(ended) => failed = ended,
            }
        }
        Err(failed)
    }

    fn new(config: &Config, slots: &[Slots], buckets: usize) -> Result<Masters, Ended> {
        let (mut servers, mut of): (Vec<&Server>, Vec<usize>) = Default::default();
        for bucket in 0..buckets {
            let slot = redis_keyslot(prefix(bucket).as_bytes());
            let Some(server) = slots.iter().find(|slots| (slots.first..=slots.last).contains(&slot)) else {
                return Err(Ended::Lost(format!("no master of the Redis Cluster has slot {slot}")));
            };
            let known = servers.iter().position(|known| **known == server.master);
            of.push(known.unwrap_or(servers.len()));
            if known.is_none() {
                servers.push(&server.master);
            }
        }
        let master = |(at, server): (usize, &&Server)| Master {
            config: alone(config, server),
            url: format!("redis://{}{}:{}", user(config), server.host, server.port),
            buckets: of.iter().filter(|place| **place == at).count(),
        };
        Ok(Masters { masters: servers.iter().enumerate().map(master).collect(), of })
    }

    /// Each master once.
    pub(super) fn each(&self) -> &[Master] {
        &self.masters
    }

    /// The master of the first bucket.
    pub(super) fn first(&self) -> Result<&Config, Ended> {
        let first = self.of.first().and_then(|at| self.masters.get(*at));
        first.map(|master| &master.config).ok_or_else(|| Ended::Lost("there are no buckets".to_owned()))
    }

    /// Which of [`Self::each`] a bucket lies on.
    pub(super) fn places(&self) -> &[usize] {
        &self.of
    }
}

fn user(config: &Config) -> String {
    config.username.as_ref().map(|user| format!("{user}@")).unwrap_or_default()
}

/// The same credentials for one server of a Redis Cluster.
fn alone(config: &Config, server: &Server) -> Config {
    Config { server: ServerConfig::Centralized { server: server.clone() }, ..config.clone() }
}

/// A range of slots, and who has it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Slots {
    first: u16,
    last: u16,
    master: Server,
}

async fn slots_at(config: &Config, host: &Server) -> Result<Vec<Slots>, Ended> {
    let (client, task) = connect(&alone(config, host)).await?;
    let slots = ask_slots(&client, host).await;
    task.abort();
    slots
}

async fn ask_slots(client: &Client, host: &Server) -> Result<Vec<Slots>, Ended> {
    let command = CustomCommand::new_static("CLUSTER", None, false);
    let answer: Value = client.custom(command, vec!["SLOTS"]).await?;
    let makes_no_sense = || Ended::Lost("what the Redis Cluster says of its slots makes no sense".to_owned());
    let Value::Array(ranges) = answer else { return Err(makes_no_sense()) };
    ranges.into_iter().map(|range| range_of(range, host)).collect::<Option<_>>().ok_or_else(makes_no_sense)
}

/// First, last, the master, and then its replicas. A server that does not know its own address leaves it out.
fn range_of(range: Value, asked: &Server) -> Option<Slots> {
    let Value::Array(range) = range else { return None };
    let mut range = range.into_iter();
    let first = range.next()?.as_u64()?.try_into().ok()?;
    let last = range.next()?.as_u64()?.try_into().ok()?;
    let Value::Array(master) = range.next()? else { return None };
    let mut master = master.into_iter();
    let host = master.next().and_then(bytes_of).and_then(|host| String::from_utf8(host).ok()).unwrap_or_default();
    let port = master.next()?.as_u64()?.try_into().ok()?;
    let host = if host.is_empty() { asked.host.to_string() } else { host };
    Some(Slots { first, last, master: Server::new(host, port) })
}

#[cfg(test)]
mod tests;
