//! Kick, ban, revoke: what operators state of users, kept on disk, applied here and told to the cluster's other nodes.
//!
//! A thread of its own, which sleeps until an operator or another node says something. Operators speak to it over a Unix
//! socket in the data directory (`ringway admin`), which is the gateway's user's alone: a line asks, the lines until the end
//! answer. What always holds: an answer "ok" means that the facts are on this node's disk and on their way to its shards,
//! where they are applied in this order; every node keeps all facts, so that each of them survives as long as one node's
//! directory does; nodes that meet, or that Redis comes back to, tell each other all, and whom they have kicked lately.

pub(crate) mod list;

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::api::access::{AccessAsk, AccessAsked, AccessDone};
use crate::clock::Clock;
use crate::contract::access::{AccessFact, AccessNews, AccessOrder, RevokedToken, Standing, TokenId};
use crate::contract::chain::Chain;
use crate::contract::ids::ShardId;
use crate::contract::nodes::ToNodes;
use crate::control::access::list::{AccessList, ListError};
use crate::control::snapshot::Stage;
use crate::topology::mailbox::{Order, Slot};
use ringway_wire::ids::{DeviceId, UserId};

/// The socket's name in the data directory.
pub(crate) const SOCKET: &str = "admin.sock";
/// The longest line that is read.
const LINE_BYTES_MAX: u64 = 128;
/// How long an operator's connection may take: the next one waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// Facts of one message to other nodes.
const SENT_AT_ONCE: usize = 64;
/// Kicks that are told again to nodes that may have missed them, until this process ends; above it the oldest are not.
const KICKS_KEPT_MAX: usize = 1_024;
/// Between two looks whether a full mailbox has room.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What the thread is given.
pub(crate) struct AccessEnds {
    /// What is known from before; the shards know it already.
    pub(crate) list: AccessList,
    /// The process's time.
    pub(crate) clock: Clock,
    /// Already listening; `None`: it could not be made, and operators are not heard.
    pub(crate) socket: Option<UnixListener>,
    /// To each shard, by its id.
    pub(crate) shards: Vec<Slot<Order>>,
    /// To and from the thread that talks to other nodes, if there are any.
    pub(crate) nodes: Option<(mpsc::Sender<ToNodes>, mpsc::Receiver<AccessNews>)>,
    /// From the API.
    pub(crate) asks: mpsc::Receiver<AccessAsk>,
    /// From the main thread.
    pub(crate) stage: watch::Receiver<Stage>,
}

/// Runs until the gateway stops.
pub(crate) fn run(ends: AccessEnds) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(ends))
}

async fn serve(ends: AccessEnds) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let AccessEnds { list, clock, socket, shards, nodes, mut asks, mut stage } = ends;
    let listener = socket.map(tokio::net::UnixListener::from_std).transpose()?;
    assert!(!shards.is_empty(), "every user is at home on one of the shards");
    let (to_nodes, mut from_nodes) = nodes.map_or((None, None), |(to, from)| (Some(to), Some(from)));
    let mut access = Access { list, clock, shards, to_nodes, kicks: VecDeque::new() };
    loop {
        tokio::select! {
            Some(stream) = async { Some(listener.as_ref()?.accept().await) } => match stream {
                Ok((stream, _)) => access.answer(stream).await,
                // Out of descriptors, most likely.
                Err(_) => tokio::time::sleep(PATIENCE / 50).await,
            },
            Some(AccessAsk { user, asked, done }) = asks.recv() => {
                let carried_out = access.call(user, asked).await;
                // The caller may have gone.
                done.send(carried_out).ok();
            }
            Some(news) = async { from_nodes.as_mut()?.recv().await } => access.receive(news).await,
            changed = stage.changed() => if changed.is_err() || *stage.borrow() == Stage::Draining {
                return Ok(());
            },
        }
    }
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("expected kick, ban, unban, revoke or revoke-token with a user's number, or list")]
    Words,
    #[error("that token has expired by then: expected a Unix second that is still to come")]
    Expired,
    #[error("nothing was stated")]
    List(#[from] ListError),
}

/// The thread's state.
struct Access {
    list: AccessList,
    clock: Clock,
    shards: Vec<Slot<Order>>,
    to_nodes: Option<mpsc::Sender<ToNodes>>,
    /// Whom operators have kicked here, all or one device, when, Unix milliseconds; the oldest first.
    kicks: VecDeque<(UserId, Option<DeviceId>, u64)>,
}

impl Access {
    /// One operator's question.
    async fn answer(&mut self, mut stream: UnixStream) {
        let talk = async {
            let mut line = String::new();
            let (read, mut write) = stream.split();
            BufReader::new(read.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
            let answer = match self.carry_out(line.trim()).await {
                Ok(said) => format!("ok\n{said}"),
                Err(refused) => format!("error\n{}\n", Chain(&refused)),
            };
            write.write_all(answer.as_bytes()).await?;
            write.shutdown().await
        };
        // Who does not speak, or does not read, has gone: the next one's turn.
        timeout(PATIENCE, talk).await.map(drop).ok();
    }

    /// What the API asks.
    async fn call(&mut self, user: UserId, asked: AccessAsked) -> AccessDone {
        let stated = match asked {
            AccessAsked::Kick(device) => {
                self.kick(user, device).await;
                return AccessDone::Done;
            }
            AccessAsked::RevokeBefore(before_s) => {
                let before_s = before_s.unwrap_or_else(|| self.clock.now().unix_ms / 1_000 + 1);
                self.state(revoked(user, before_s)).await
            }
            AccessAsked::RevokeToken(token, until_s) => self.revoke_token(user, token, until_s).await,
        };
        match stated {
            Ok(_) => AccessDone::Done,
            Err(Refused::List(ListError::Full | ListError::FullOfTokens)) => AccessDone::Full,
            Err(Refused::Expired | Refused::Words) => AccessDone::Expired,
            Err(Refused::List(error)) => {
                tracing::error!(error = %Chain(&error), "what the API says of who may log in could not be kept");
                AccessDone::NotKept
            }
        }
    }

    async fn carry_out(&mut self, line: &str) -> Result<String, Refused> {
        let now_ms = self.clock.now().unix_ms;
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |text: &str| text.parse::<u64>().map_err(|_| Refused::Words);
        let fact = match words.as_slice() {
            ["list"] => return Ok(self.all_in_words(now_ms / 1_000)),
            ["revoke-token", user, token, until_s] => {
                let token = u64::from_str_radix(token, 16).ok().and_then(NonZeroU64::new).ok_or(Refused::Words)?;
                return self.revoke_token(UserId(number(user)?), TokenId(token), number(until_s)?).await;
            }
            ["kick", user] => return Ok(self.kick(UserId(number(user)?), None).await),
            ["kick", user, device] => {
                return Ok(self.kick(UserId(number(user)?), Some(DeviceId(number(device)?))).await);
            }
            ["ban", user] => self.standing(UserId(number(user)?), Standing::Banned, now_ms),
            ["unban", user] => self.standing(UserId(number(user)?), Standing::Allowed, now_ms),
            ["revoke", user] => revoked(UserId(number(user)?), now_ms / 1_000 + 1),
            ["revoke", user, before] => revoked(UserId(number(user)?), number(before)?),
            _ => return Err(Refused::Words),
        };
        self.state(fact).await
    }

    /// A fact holds from now on.
    async fn state(&mut self, fact: AccessFact) -> Result<String, Refused> {
        self.list.merge(&[fact])?;
        let said = in_words(&self.list.of(fact.user));
        tracing::info!(%said, "an operator says who may log in");
        self.apply(AccessOrder::Fact(fact)).await;
        self.publish(vec![AccessOrder::Fact(fact)]);
        Ok(format!("{said}\n"))
    }

    /// A token does not count from now on.
    async fn revoke_token(&mut self, user: UserId, token: TokenId, until_s: u64) -> Result<String, Refused> {
        let (now_s, revoked) = (self.clock.now().unix_ms / 1_000, RevokedToken { user, token, until_s });
        if until_s <= now_s {
            return Err(Refused::Expired);
        }
        self.list.revoke(&[revoked], now_s)?;
        let said = token_in_words(&revoked);
        tracing::info!(%said, "an operator says who may log in");
        self.apply(AccessOrder::Token(revoked)).await;
        self.publish(vec![AccessOrder::Token(revoked)]);
        Ok(format!("{said}\n"))
    }

    fn all_in_words(&self, now_s: u64) -> String {
        let facts = self.list.facts().map(in_words);
        let tokens = self.list.tokens().filter(|revoked| revoked.until_s > now_s);
        facts.chain(tokens.map(|revoked| token_in_words(&revoked))).map(|line| line + "\n").collect()
    }

    /// Ends a user's sessions, or that of one device, here and on the other nodes.
    async fn kick(&mut self, user: UserId, device: Option<DeviceId>) -> String {
        let now_ms = self.clock.now().unix_ms;
        self.kicks.retain(|(kicked, of, _)| (*kicked, *of) != (user, device));
        if self.kicks.len() >= KICKS_KEPT_MAX {
            self.kicks.pop_front();
        }
        self.kicks.push_back((user, device, now_ms));
        let order = match device {
            None => AccessOrder::Kick(user),
            Some(device) => AccessOrder::KickDevice(user, device, now_ms),
        };
        tracing::info!(user = user.0, device = device.map(|device| device.0), "sessions are ended");
        self.apply(order).await;
        self.publish(vec![order]);
        match device {
            None => format!("user {}: sessions ended\n", user.0),
            Some(device) => format!("user {}: session of device {} ended\n", user.0, device.0),
        }
    }

    /// That the user may, or may not; later than what was stated before, whatever the clock says.
    fn standing(&self, user: UserId, standing: Standing, now_ms: u64) -> AccessFact {
        let since_ms = now_ms.max(self.list.of(user).since_ms.saturating_add(1));
        AccessFact { standing, since_ms, ..AccessFact::none(user) }
    }

    /// To the user's shard.
    async fn apply(&self, order: AccessOrder) {
        let home = ShardId::of_user(order.user(), self.shards.len() as u16);
        // Whoever is banned must not stay logged in because an order went nowhere.
        let shard = &self.shards[usize::from(home.0)];
        while shard.put_if_received(Order::Access(order)).is_err() {
            shard.wake();
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        shard.wake();
    }

    /// To the other nodes. While Redis is away nobody takes it: they are told all when it is back.
    fn publish(&self, orders: Vec<AccessOrder>) {
        if let Some(nodes) = &self.to_nodes
            && nodes.try_send(ToNodes::Access(orders)).is_err()
        {
            tracing::warn!(
                "other nodes could not be told now who may log in: they are told when they are spoken to again"
            );
        }
    }

    /// All facts and the last kicks, to the other nodes. Who asked for it asks again if the talk with them ends meanwhile.
    async fn notify_all(&self) {
        let Some(nodes) = &self.to_nodes else { return };
        let now_s = self.clock.now().unix_ms / 1_000;
        let facts = self.list.facts().copied().map(AccessOrder::Fact);
        let tokens = self.list.tokens().filter(|revoked| revoked.until_s > now_s).map(AccessOrder::Token);
        let kicks = self.kicks.iter().map(|(user, device, at_ms)| match device {
            None => AccessOrder::KickOfThen(*user, *at_ms),
            Some(device) => AccessOrder::KickDevice(*user, *device, *at_ms),
        });
        // Apart: a node of before there were any does not understand them, nor what is said together with one.
        let (orders, tokens): (Vec<_>, Vec<_>) = (facts.chain(kicks).collect(), tokens.collect());
        for orders in orders.chunks(SENT_AT_ONCE).chain(tokens.chunks(SENT_AT_ONCE)) {
            if timeout(PATIENCE, nodes.send(ToNodes::Access(orders.to_vec()))).await.is_err() {
                return;
            }
        }
    }

    async fn receive(&mut self, news: AccessNews) {
        match news {
            AccessNews::Received(orders) => {
                let (mut facts, mut tokens) = (Vec::new(), Vec::new());
                for order in &orders {
                    match order {
                        AccessOrder::Fact(fact) => facts.push(*fact),
                        AccessOrder::Token(revoked) => tokens.push(*revoked),
                        AccessOrder::Kick(_) | AccessOrder::KickOfThen(..) | AccessOrder::KickDevice(..) => {}
                    }
                }
                let now_s = self.clock.now().unix_ms / 1_000;
                for error in
                    [self.list.merge(&facts), self.list.revoke(&tokens, now_s)].into_iter().filter_map(Result::err)
                {
                    // It holds here until the end of the process, and another node has it on its disk.
                    tracing::error!(error = %Chain(&error), "what another node says of who may log in could not be kept");
                }
                for order in orders {
                    self.apply(order).await;
                }
            }
            AccessNews::TellAll => self.notify_all().await,
        }
    }
}

fn revoked(user: UserId, tokens_from_s: u64) -> AccessFact {
    AccessFact { tokens_from_s, ..AccessFact::none(user) }
}

/// A revoked token, for people.
fn token_in_words(revoked: &RevokedToken) -> String {
    let RevokedToken { user, token, until_s } = revoked;
    format!("user {}: token {:016x} is revoked until {until_s} (Unix seconds)", user.0, token.0)
}

/// A fact, for people.
fn in_words(fact: &AccessFact) -> String {
    let AccessFact { user, standing, tokens_from_s, .. } = fact;
    let standing = match standing {
        Standing::Allowed => "may log in",
        Standing::Banned => "is banned",
    };
    let tokens = match tokens_from_s {
        0 => String::new(),
        from => format!(", with tokens issued at {from} (Unix seconds) or later"),
    };
    format!("user {} {standing}{tokens}", user.0)
}
