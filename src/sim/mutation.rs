//! Faults that no gateway may have, put in on purpose: the simulator must report each of them.
//!
//! Pure. What always holds: with [`Mutation::None`] nothing is touched.

use std::sync::Arc;

use ringway::contract::delivery::Delivery;
use ringway::contract::ids::{ConnId, Origin, SessionRef, ShardId};
use ringway::contract::message::Incoming;
use ringway::contract::submission::{MessageSubmission, Submission};
use ringway_wire::frame::read_server;
use ringway_wire::ids::{ClientMsgId, Conversation, Seq, UserId};
use ringway_wire::request::Reply;

use crate::hostile::FIRST_HOSTILE;
use crate::random::Random;

/// A session that never existed: answers to it reach nobody.
const NOBODY: Origin =
    Origin::new(SessionRef { shard: ShardId(0), conn: ConnId { slot: u32::MAX, generation: u32::MAX } }, 0);

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Mutation {
    /// Nothing.
    #[default]
    None,
    /// `fdatasync` does nothing.
    LyingDisk,
    /// A secured store loses what it secured.
    ForgetfulStore,
    /// Two members of a group get each other's numbers.
    SwappedSeqs,
    /// Two frames to a client change places.
    SwappedFrames,
    /// A frame to a client is dropped.
    DroppedFrame,
    /// One-to-one messages are stored twice under different names.
    ForgottenNames,
    /// Outboxes are said to have no room at all.
    NoOutbox,
    /// Whoever sends while much waits of others is refused, though there is room.
    CrowdsOut,
    /// A shard reads nothing any more once a hostile connection was closed.
    StopsAtHostile,
    /// What is sent by somebody hostile counts as another's.
    TrustsHostile,
    /// Whoever sends more than one account may is not refused.
    Unlimited,
}

/// All of them, with what the report must contain.
pub(crate) const MUTATIONS: [(Mutation, &str); 11] = [
    (Mutation::LyingDisk, "I1"),
    (Mutation::ForgetfulStore, "I1"),
    (Mutation::SwappedSeqs, "I"),
    (Mutation::SwappedFrames, "I3"),
    (Mutation::DroppedFrame, "I3"),
    (Mutation::ForgottenNames, "I4"),
    (Mutation::NoOutbox, "I5"),
    (Mutation::CrowdsOut, "and is told RetryLater"),
    (Mutation::StopsAtHostile, "does not settle"),
    (Mutation::TrustsHostile, "that nobody sent"),
    (Mutation::Unlimited, "and may send"),
];

impl Mutation {
    /// A second submission of the same message under another name.
    pub(crate) fn twin(self, submission: &Submission) -> Option<Submission> {
        let Submission::Message(MessageSubmission { incoming }) = submission else {
            return None;
        };
        if self == Mutation::TrustsHostile && incoming.sender.0 >= FIRST_HOSTILE {
            let Incoming { to, client_msg_id, .. } = *incoming;
            let incoming = Incoming::new(NOBODY, UserId(1), to, client_msg_id, incoming.body());
            return Some(Submission::Message(MessageSubmission { incoming }));
        }
        let is_direct = matches!(incoming.to, Conversation::User(_));
        (self == Mutation::ForgottenNames && is_direct).then(|| {
            let mut name = incoming.client_msg_id;
            name.0[15] ^= 1;
            let incoming = Incoming::new(NOBODY, incoming.sender, incoming.to, ClientMsgId(name.0), incoming.body());
            Submission::Message(MessageSubmission { incoming })
        })
    }

    /// What a client reads in place of what was written: whole frames change places, or one is gone.
    pub(crate) fn reorder(self, bytes: Vec<u8>, random: &Random) -> Vec<u8> {
        if !matches!(self, Mutation::SwappedFrames | Mutation::DroppedFrame) || !random.chance(1, 20) {
            return bytes;
        }
        let mut frames: Vec<&[u8]> = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((prefix, _)) = rest.split_first_chunk::<4>() {
            // Only where the bytes are whole frames: a piece of one is left alone.
            let Some((frame, after)) = rest.split_at_checked(4 + u32::from_le_bytes(*prefix) as usize) else { break };
            let is_push = matches!(read_server(frame), Ok((_, Reply::Push(_))));
            if !is_push {
                return bytes;
            }
            frames.push(frame);
            rest = after;
        }
        if frames.len() < 2 || !rest.is_empty() {
            return bytes;
        }
        match self {
            Mutation::SwappedFrames => frames.swap(0, 1),
            _ => drop(frames.remove(0)),
        }
        frames.concat()
    }

    /// What a shard is given in place of what the ledger handed out.
    pub(crate) fn distort(self, delivery: &mut Delivery) {
        if self != Mutation::SwappedSeqs {
            return;
        }
        if let Delivery::Group { seqs, .. } = delivery {
            let mut swapped: Vec<Seq> = seqs.to_vec();
            swapped.reverse();
            *seqs = Arc::from(swapped);
        }
    }
}
