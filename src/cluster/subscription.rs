//! The part of a session with Redis in which nodes talk: a connection that is subscribed, and what is being published.
//!
//! On Redis's thread; what the messages mean is for [`super::nodes`] to say. What always holds: messages are published in
//! order, and this node is subscribed before it publishes its first; the end of that connection ends the session.

use std::collections::VecDeque;

use fred::clients::Client;
use fred::interfaces::{EventInterface, PubsubInterface};
use fred::types::config::Config;
use fred::types::{ConnectHandle, Message};
use tokio::sync::{broadcast, mpsc};

use super::connection::{Awaited, Ended, bytes_of, connect_subscriber, front, sent};
use super::nodes::{Nodes, Publish};
use crate::contract::nodes::ToNodes;
use crate::limits::{NODE_MESSAGES_IN_FLIGHT_MAX, NODE_MESSAGES_MAX};

/// The channel that all nodes are subscribed to, without the database's number; with a node's number behind it, its own.
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

/// The subscription, and what is being published.
pub(super) struct Subscription {
    publishes: Client,
    /// Of all nodes on this database.
    channel: String,
    messages: broadcast::Receiver<Message>,
    publishing: VecDeque<Awaited<()>>,
    /// Keeps the subscription.
    _subscriber: Client,
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
        let (subscriber, task) = connect_subscriber(config, NODE_MESSAGES_MAX).await?;
        let messages = subscriber.message_rx();
        let subscription = Subscription {
            publishes,
            channel,
            messages,
            publishing: VecDeque::new(),
            _subscriber: subscriber.clone(),
            task,
        };
        subscriber.subscribe(vec![subscription.channel.clone(), subscription.channel_of(node)]).await?;
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

    fn begun(&self, Publish { to, bytes }: Publish) -> Awaited<()> {
        let client = self.publishes.clone();
        let channel = to.map_or_else(|| self.channel.clone(), |node| self.channel_of(node));
        Box::pin(async move { Ok(client.publish::<(), _, _>(channel, bytes.as_slice()).await?) })
    }

    /// The node's last message. If Redis does not take it, the lease tells the others.
    pub(super) async fn say_last(&self, publish: Publish) {
        drop(self.begun(publish).await);
    }

    /// Waits for something to happen; may be dropped while it waits. Nothing is taken from shards while too much is on its way.
    pub(super) async fn next(&mut self, from_shards: &mut mpsc::Receiver<ToNodes>) -> Result<Received, Ended> {
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
            Some(said) = from_shards.recv(), if has_room => Ok(Received::Shard(said)),
        }
    }

    /// Passes on what has happened, and all that the shards have said meanwhile, in one message if it fits.
    pub(super) fn apply(&mut self, received: Received, nodes: &mut Nodes, from_shards: &mut mpsc::Receiver<ToNodes>) {
        match received {
            Received::Published => {}
            Received::Message(message) => nodes.apply_message(&bytes_of(message.value).unwrap_or_default()),
            Received::Missed(count) => nodes.missed(count),
            Received::Shard(first) => {
                nodes.apply_shard(first);
                while nodes.waiting() < NODE_MESSAGES_IN_FLIGHT_MAX
                    && let Ok(more) = from_shards.try_recv()
                {
                    nodes.apply_shard(more);
                }
            }
        }
        nodes.flush();
    }
}

fn silent() -> Ended {
    Ended::Lost("the connection that is subscribed to other nodes has ended".to_owned())
}
