//! The part of a session with Redis in which nodes talk: a connection that hears, and what is being published.
//!
//! On Redis's thread; what is said means is [`super::nodes`]'s business. What always holds: messages are published in
//! order, and this node hears from before it publishes its first; the end of that connection ends the session.

use std::collections::VecDeque;

use fred::clients::Client;
use fred::interfaces::{EventInterface, PubsubInterface};
use fred::types::config::Config;
use fred::types::{ConnectHandle, Message};
use tokio::sync::{broadcast, mpsc};

use super::connection::{Ended, UnderWay, bytes_of, connect_hearing, front, sent};
use super::nodes::{Nodes, Publish};
use crate::contract::nodes::ToNodes;
use crate::limits::{NODE_MESSAGES_IN_FLIGHT_MAX, NODE_MESSAGES_MAX};

/// The channel that all nodes hear, without the database's number; with a node's number behind it, its own.
const CHANNEL: &str = "ringway:talk";

/// What can happen.
#[derive(Debug)]
pub(super) enum Received {
    /// Redis has taken a message.
    Published,
    /// A node speaks.
    Message(Message),
    /// So many messages were lost: this node did not look in time.
    Missed(u64),
    /// A shard speaks.
    Shard(ToNodes),
}

/// The talk.
pub(super) struct Subscription {
    publishes: Client,
    /// Of all nodes on this database.
    channel: String,
    messages: broadcast::Receiver<Message>,
    publishing: VecDeque<UnderWay<()>>,
    /// Keeps the subscription.
    _hears: Client,
    task: ConnectHandle,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Subscription {
    /// Connects and subscribes. `publishes`: the connection for calls.
    pub(super) async fn begin(config: &Config, node: u16, publishes: Client) -> Result<Subscription, Ended> {
        // Databases share their channels, keys they do not.
        let database = config.database.unwrap_or_default();
        let channel = format!("{CHANNEL}:{database}");
        let (hears, task) = connect_hearing(config, NODE_MESSAGES_MAX).await?;
        let messages = hears.message_rx();
        let subscription =
            Subscription { publishes, channel, messages, publishing: VecDeque::new(), _hears: hears.clone(), task };
        hears.subscribe(vec![subscription.channel.clone(), subscription.channel_of(node)]).await?;
        Ok(subscription)
    }

    fn channel_of(&self, node: u16) -> String {
        format!("{}:{node}", self.channel)
    }

    /// Sends what waits to be published, as far as there is room.
    pub(super) async fn publish(&mut self, nodes: &mut Nodes) {
        while self.publishing.len() < NODE_MESSAGES_IN_FLIGHT_MAX
            && let Some(publish) = nodes.next_publish()
        {
            let begun = self.begun(publish);
            self.publishing.push_back(sent(begun).await);
        }
    }

    fn begun(&self, Publish { to, bytes }: Publish) -> UnderWay<()> {
        let client = self.publishes.clone();
        let channel = to.map_or_else(|| self.channel.clone(), |node| self.channel_of(node));
        Box::pin(async move { Ok(client.publish::<(), _, _>(channel, bytes.as_slice()).await?) })
    }

    /// The node's last message. If Redis does not take it, the lease tells the others.
    pub(super) async fn say_last(&self, publish: Publish) {
        drop(self.begun(publish).await);
    }

    /// Waits for something to happen; may be dropped while it waits. Shards are not heard while too much is on its way.
    pub(super) async fn next(&mut self, told: &mut mpsc::Receiver<ToNodes>) -> Result<Received, Ended> {
        let has_room = self.publishing.len() < NODE_MESSAGES_IN_FLIGHT_MAX;
        tokio::select! {
            biased;
            published = front(&mut self.publishing) => {
                self.publishing.pop_front();
                published.map(|()| Received::Published)
            }
            message = self.messages.recv() => match message {
                Ok(message) => Ok(Received::Message(message)),
                Err(broadcast::error::RecvError::Lagged(count)) => Ok(Received::Missed(count)),
                Err(broadcast::error::RecvError::Closed) => Err(silent()),
            },
            _ = &mut self.task => Err(silent()),
            Some(told) = told.recv(), if has_room => Ok(Received::Shard(told)),
        }
    }

    /// Passes on what has happened, and all that the shards have told meanwhile, in one message if it fits.
    pub(super) fn apply(&mut self, heard: Received, nodes: &mut Nodes, told: &mut mpsc::Receiver<ToNodes>) {
        match heard {
            Received::Published => {}
            Received::Message(message) => nodes.heard(&bytes_of(message.value).unwrap_or_default()),
            Received::Missed(count) => nodes.missed(count),
            Received::Shard(first) => {
                nodes.told(first);
                while nodes.waiting() < NODE_MESSAGES_IN_FLIGHT_MAX
                    && let Ok(more) = told.try_recv()
                {
                    nodes.told(more);
                }
            }
        }
        nodes.flush();
    }
}

fn silent() -> Ended {
    Ended::Lost("the connection that hears other nodes has ended".to_owned())
}
