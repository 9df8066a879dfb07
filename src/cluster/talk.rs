//! What nodes say to each other, as bytes.
//!
//! Pure functions, used by Redis's thread. A message is a head, which says who speaks, and items until its end, numbers
//! big-endian. What always holds: whatever is heard is read without panic; a message that makes no sense is none.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::contract::access::{AccessFact, AccessOrder, RevokedToken, Standing, TokenId};
use crate::contract::message::Message;
use crate::contract::nodes::SessionNews;
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, UserId};
use ringway_wire::limits::BODY_BYTES_MAX;
use ringway_wire::push::PushFrame;

/// The first byte of every message.
const FORMAT: u8 = 1;

const BEGINS: u8 = 1;
const ENDS: u8 = 2;
const WHOLE: u8 = 3;
const HELLO: u8 = 4;
const BYE: u8 = 5;
const EPHEMERAL: u8 = 6;
const ACCESS: u8 = 7;
const KICK: u8 = 8;
const KICK_OF_THEN: u8 = 9;
const KICK_DEVICE: u8 = 10;
const REVOKE_TOKEN: u8 = 11;

const TO_USER: u8 = 1;
const TO_GROUP: u8 = 2;

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Speaker {
    /// The number that `cluster.node_id` gives it.
    pub(crate) node: u16,
    /// Tells its process from those before it.
    pub(crate) process: u64,
    /// One more each time it begins to tell everything.
    pub(crate) epoch: u32,
}

/// What is said.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A session begins or ends, or is told again.
    Session(SessionNews),
    /// Everything has been told in this epoch: what was not has ended.
    Whole,
    /// The speaker wants to be told everything.
    Hello,
    /// The speaker stops, and its sessions end.
    Bye,
    /// An ephemeral message.
    Ephemeral(Arc<Message>),
    /// Who may log in.
    Access(AccessOrder),
}

/// Begins a message.
pub(crate) fn begin(speaker: Speaker, out: &mut Vec<u8>) {
    out.push(FORMAT);
    out.extend_from_slice(&speaker.node.to_be_bytes());
    out.extend_from_slice(&speaker.process.to_be_bytes());
    out.extend_from_slice(&speaker.epoch.to_be_bytes());
}

/// Appends an item.
pub(crate) fn put(item: &Item, out: &mut Vec<u8>) {
    match item {
        Item::Session(SessionNews { user, device, since_ms }) => {
            out.push(if since_ms.is_some() { BEGINS } else { ENDS });
            out.extend_from_slice(&user.0.to_be_bytes());
            out.extend_from_slice(&device.0.to_be_bytes());
            out.extend(since_ms.iter().flat_map(|since_ms| since_ms.to_be_bytes()));
        }
        Item::Whole => out.push(WHOLE),
        Item::Hello => out.push(HELLO),
        Item::Bye => out.push(BYE),
        Item::Access(AccessOrder::Kick(user)) => {
            out.push(KICK);
            out.extend_from_slice(&user.0.to_be_bytes());
        }
        Item::Access(AccessOrder::KickOfThen(user, at_ms)) => {
            out.push(KICK_OF_THEN);
            out.extend_from_slice(&user.0.to_be_bytes());
            out.extend_from_slice(&at_ms.to_be_bytes());
        }
        Item::Access(AccessOrder::KickDevice(user, device, at_ms)) => {
            out.push(KICK_DEVICE);
            for number in [user.0, device.0, *at_ms] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        Item::Access(AccessOrder::Token(RevokedToken { user, token, until_s })) => {
            out.push(REVOKE_TOKEN);
            for number in [user.0, token.0.get(), *until_s] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        Item::Access(AccessOrder::Fact(AccessFact { user, standing, since_ms, tokens_from_s })) => {
            out.extend_from_slice(&[ACCESS, u8::from(*standing == Standing::Banned)]);
            for number in [user.0, *since_ms, *tokens_from_s] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        Item::Ephemeral(message) => {
            let (kind, to) = match message.to {
                Conversation::User(user) => (TO_USER, user.0),
                Conversation::Group(group) => (TO_GROUP, group.0),
            };
            let body = message.push.body();
            out.extend_from_slice(&[EPHEMERAL, kind]);
            for number in [message.msg_id.0, message.sender.0, to, message.sent_at_ms] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(&(body.len() as u32).to_be_bytes());
            out.extend_from_slice(body);
        }
    }
}

/// Reads a message; `None`: it makes no sense.
pub(crate) fn read(bytes: &[u8]) -> Option<(Speaker, Vec<Item>)> {
    let mut rest = Rest(bytes);
    if rest.byte()? != FORMAT {
        return None;
    }
    let node = u16::from_be_bytes(*rest.array()?);
    let process = rest.number()?;
    let epoch = u32::from_be_bytes(*rest.array()?);
    let mut items = Vec::new();
    while !rest.0.is_empty() {
        items.push(rest.item()?);
    }
    Some((Speaker { node, process, epoch }, items))
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(array)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| *byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(|bytes| u64::from_be_bytes(*bytes))
    }

    fn item(&mut self) -> Option<Item> {
        Some(match self.byte()? {
            kind @ (BEGINS | ENDS) => {
                let (user, device) = (UserId(self.number()?), DeviceId(self.number()?));
                let since_ms = if kind == BEGINS { Some(self.number()?) } else { None };
                Item::Session(SessionNews { user, device, since_ms })
            }
            WHOLE => Item::Whole,
            HELLO => Item::Hello,
            BYE => Item::Bye,
            EPHEMERAL => Item::Ephemeral(Arc::new(self.message()?)),
            KICK => Item::Access(AccessOrder::Kick(UserId(self.number()?))),
            KICK_OF_THEN => Item::Access(AccessOrder::KickOfThen(UserId(self.number()?), self.number()?)),
            KICK_DEVICE => {
                let (user, device) = (UserId(self.number()?), DeviceId(self.number()?));
                Item::Access(AccessOrder::KickDevice(user, device, self.number()?))
            }
            REVOKE_TOKEN => {
                let (user, token) = (UserId(self.number()?), TokenId(NonZeroU64::new(self.number()?)?));
                let until_s = self.number()?;
                Item::Access(AccessOrder::Token(RevokedToken { user, token, until_s }))
            }
            ACCESS => {
                let standing = match self.byte()? {
                    0 => Standing::Allowed,
                    1 => Standing::Banned,
                    _ => return None,
                };
                let (user, since_ms, tokens_from_s) = (UserId(self.number()?), self.number()?, self.number()?);
                Item::Access(AccessOrder::Fact(AccessFact { user, standing, since_ms, tokens_from_s }))
            }
            _ => return None,
        })
    }

    fn message(&mut self) -> Option<Message> {
        let kind = self.byte()?;
        let (msg_id, sender, to) = (MsgId(self.number()?), UserId(self.number()?), self.number()?);
        let sent_at_ms = self.number()?;
        let to = match kind {
            TO_USER => Conversation::User(UserId(to)),
            TO_GROUP => Conversation::Group(GroupId(to)),
            _ => return None,
        };
        let length = u32::from_be_bytes(*self.array()?) as usize;
        if length > BODY_BYTES_MAX {
            return None;
        }
        let (body, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        let push = PushFrame::encode(msg_id, sender, to, sent_at_ms, body);
        Some(Message { msg_id, sender, to, client_msg_id: ClientMsgId::default(), sent_at_ms, push })
    }
}
