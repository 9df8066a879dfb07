//! What a logged-in client may ask, and what it gets at once.
//!
//! Part of the shard's core. What always holds: each request gets exactly one answer (an Ack none, unless it is
//! wrong), echoing its id; a request that must wait for others counts among the session's requests in flight until then, and
//! a session that has `SESSION_IN_FLIGHT_MAX` of them is not read from.

use super::Shard;
use super::large_replies::LargeAsk;
use super::traffic::{Admission, Weight};
use crate::clock::Now;
use crate::contract::ids::{Origin, ShardId};
use crate::contract::internal::{OrCount, Place};
use crate::contract::lane::{Answers, LaneEnvelope};
use crate::contract::message::Incoming;
use crate::contract::policies::{Permission, Policies};
use crate::contract::submission::{ChangeSubmission, GroupChange, MessageSubmission, Submission};
use crate::limits::SMALL_CHANGE_USERS_MAX;
use ringway_wire::ids::{ClientMsgId, Conversation, Seq, UserId};
use ringway_wire::limits::SESSION_IN_FLIGHT_MAX;
use ringway_wire::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, PAGE_ROWS_MAX, PRESENCE_USERS_MAX};
use ringway_wire::request::{Adding, Durability, PageEnd, Request, Users};
use ringway_wire::schema::{CloseReason, ErrorCode};

/// Words for a refusal.
pub(super) fn text(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::RetryLater => {
            "it cannot be taken now, or nobody knows in time whether it was; send the same again later"
        }
        ErrorCode::StorageFull => "there is no room to store it; nothing was stored, send it again later",
        ErrorCode::UnknownGroup => "there is no such group",
        ErrorCode::NotAMember => "only members of the group may do this",
        ErrorCode::NotAllowed => "only the group's owner may do this, or whom the operator lets do it",
        ErrorCode::BodyTooLarge => "the body is larger than 16384 bytes",
        ErrorCode::ClientMsgIdInvalid => "client_msg_id is not a UUIDv7",
        ErrorCode::ClientMsgIdAhead => "client_msg_id lies more than 5 s ahead of the server's clock",
        ErrorCode::ClientMsgIdReused => "client_msg_id was used before for another message",
        ErrorCode::TooManyMembers => "a group has at most 5000 members",
        ErrorCode::AlreadyLoggedIn => "this connection is logged in already",
        ErrorCode::SeqAhead => "the seq is above the user's newest",
        ErrorCode::TokenInvalid => "the token does not count for this session",
        ErrorCode::TooManyGroups => "a user is in at most 2000 groups, and has made no more, left ones included",
        ErrorCode::BadRequest => {
            "client_msg_id is older than the messages that are kept, so a repeat could not be told: send under a new one"
        }
        _ => "the request is not valid",
    }
}

impl Shard {
    /// One request of a logged-in session.
    pub(super) fn request(&mut self, now: Now, slot: u32, request_id: u32, request: Request<'_>) {
        if !matches!(request, Request::Ack { .. } | Request::Logout)
            && self.admit_asking(now, slot, request_id) == Admission::Refused
        {
            return;
        }
        match request {
            Request::Login(_) => self.refuse(now, slot, request_id, ErrorCode::AlreadyLoggedIn, 0),
            Request::Ping => self.reply(now, slot, |encoder| encoder.pong(request_id, now.unix_ms)),
            Request::Send { to, client_msg_id, body, ephemeral } => {
                let durability = if ephemeral { Durability::Ephemeral } else { Durability::Durable };
                self.send(now, slot, request_id, to, client_msg_id, body, durability);
            }
            Request::SendToUnknownKind { kind } => {
                let text = format!("kind {kind} of conversation is not known: 0 is a user, 1 a group");
                self.refuse_saying(now, slot, request_id, ErrorCode::BadRequest, &text, 0);
            }
            Request::Ack { seq } => self.acknowledge(now, slot, request_id, seq),
            Request::Sync { after, rows_max } => self.sync(now, slot, request_id, after, rows_max),
            Request::GroupCreate { members, adding } => {
                self.change(now, slot, request_id, (members, adding), GroupChange::Create);
            }
            Request::GroupAdd { group, members, adding } => {
                self.change(now, slot, request_id, (Some(members), adding), |users| GroupChange::Add(group, users));
            }
            Request::GroupRemove { group, members } => {
                let members = (Some(members), Adding::All);
                self.change(now, slot, request_id, members, |users| GroupChange::Remove(group, users));
            }
            Request::GroupLeave { group } => {
                self.change(now, slot, request_id, (None, Adding::All), |_| GroupChange::Leave(group));
            }
            Request::GroupInfo { group } => self.ask_large(now, slot, request_id, LargeAsk::Info(group)),
            Request::GroupList => self.ask_large(now, slot, request_id, LargeAsk::Groups),
            Request::Presence { users } => self.presence(now, slot, request_id, users),
            Request::Refresh { token } => self.refresh(now, slot, request_id, token),
            Request::Logout => self.close_answering(now, slot, request_id, CloseReason::LoggedOut),
        }
    }

    /// Counts one more request in flight, and says who asks.
    pub(super) fn asking(&mut self, slot: u32, request_id: u32) -> Option<(Origin, UserId)> {
        let session = self.sessions.at_mut(slot).or_count(Place::Sessions)?;
        debug_assert!(session.in_flight < SESSION_IN_FLIGHT_MAX, "who has so many in flight is not read from");
        session.in_flight = session.in_flight.saturating_add(1);
        let user = self.directory.at(session.user).or_count(Place::Directory)?.id;
        Some((Origin::new(self.config.session_ref(session.conn(slot)), request_id), user))
    }

    #[expect(clippy::too_many_arguments, reason = "the frame's fields, and where it came from")]
    fn send(
        &mut self,
        now: Now,
        slot: u32,
        request_id: u32,
        to: Conversation,
        client_msg_id: ClientMsgId,
        body: &[u8],
        durability: Durability,
    ) {
        if body.len() > BODY_BYTES_MAX {
            return self.refuse(now, slot, request_id, ErrorCode::BodyTooLarge, 0);
        }
        if body.is_empty() {
            return self.refuse_saying(now, slot, request_id, ErrorCode::BadRequest, "the body is empty", 0);
        }
        if durability == Durability::Durable && client_msg_id.unix_ms().is_none() {
            return self.refuse(now, slot, request_id, ErrorCode::ClientMsgIdInvalid, 0);
        }
        if let Conversation::User(recipient) = to
            && self.config.policies.direct_messages == Permission::Nobody
            && self.user_of(slot) != Some(recipient)
        {
            return self.forbid(now, slot, request_id, "this gateway lets nobody write to another user");
        }
        let Some((origin, sender)) = self.asking(slot, request_id) else { return };
        let weight = Weight { sends: 1, bytes: body.len() as u64, to: Some(to) };
        if self.admit_request(now, origin, sender, weight) == Admission::Refused {
            return;
        }
        let incoming = Incoming::new(origin, sender, to, client_msg_id, body);
        match (to, durability) {
            (Conversation::Group(group), Durability::Ephemeral) => {
                let send = LaneEnvelope::GroupEphemeral { group, incoming };
                let home = ShardId::of_group(group, self.config.shards);
                if home == self.config.id {
                    self.lane(now, send);
                } else if self.into_lanes.take(sender) {
                    self.effects.lanes.push_back((home, send));
                } else {
                    self.ephemeral_refused(now, origin, Answers::Here);
                }
            }
            (Conversation::User(user), Durability::Ephemeral) => self.send_ephemeral_direct(now, user, incoming),
            // Only the ledger knows who is in a group, and whether it is a repeat.
            (_, Durability::Durable) => {
                self.effects.submissions.push_back(Submission::Message(MessageSubmission { incoming }));
            }
        }
    }

    fn acknowledge(&mut self, now: Now, slot: u32, request_id: u32, seq: Seq) {
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return };
        if seq > session.newest {
            return self.refuse(now, slot, request_id, ErrorCode::SeqAhead, 0);
        }
        let Some(user) = self.directory.at(session.user).map(|user| user.id).or_count(Place::Directory) else { return };
        let device = session.device;
        if self.cursors.acknowledge(user, device, seq) {
            self.save_cursors();
        }
    }

    fn sync(&mut self, now: Now, slot: u32, request_id: u32, after: Seq, rows_max: u32) {
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return };
        let newest = session.newest;
        if after > newest {
            return self.refuse(now, slot, request_id, ErrorCode::SeqAhead, 0);
        }
        if after == newest {
            return self.reply(now, slot, |encoder| {
                encoder.sync_page(request_id, [].into_iter(), None, after, PageEnd::Newest)
            });
        }
        let rows_max = if rows_max == 0 { PAGE_ROWS_MAX } else { PAGE_ROWS_MAX.min(rows_max as usize) };
        self.ask_large(now, slot, request_id, LargeAsk::Sync { after, rows_max: rows_max as u16 });
    }

    /// A change of a group goes to the ledger, which decides: at once if it is small, else one after another.
    fn change(
        &mut self,
        now: Now,
        slot: u32,
        request_id: u32,
        (members, adding): (Option<Users<'_>>, Adding),
        change: impl FnOnce(Vec<UserId>) -> GroupChange,
    ) {
        let users: Vec<UserId> = members.iter().flat_map(Users::iter).take(GROUP_MEMBERS_MAX + 1).collect();
        if users.len() > GROUP_MEMBERS_MAX {
            return self.refuse(now, slot, request_id, ErrorCode::TooManyMembers, 0);
        }
        let is_alone = users.is_empty();
        let weight = Weight { sends: 0, bytes: (users.len() * size_of::<UserId>()) as u64, to: None };
        let change = change(users);
        if matches!(&change, GroupChange::Add(_, users) | GroupChange::Remove(_, users) if users.is_empty()) {
            return self.refuse_saying(now, slot, request_id, ErrorCode::BadRequest, "members is empty", 0);
        }
        let Policies { group_creation, adding_members, .. } = self.config.policies;
        if matches!(change, GroupChange::Create(_)) && group_creation == Permission::Nobody {
            return self.forbid(now, slot, request_id, "this gateway lets nobody make a group");
        }
        let adds = matches!(change, GroupChange::Create(_) | GroupChange::Add(..)) && !is_alone;
        if adds && adding_members == Permission::Nobody {
            return self.forbid(now, slot, request_id, "this gateway lets nobody make others members of a group");
        }
        let Some((origin, actor)) = self.asking(slot, request_id) else { return };
        if self.admit_request(now, origin, actor, weight) == Admission::Refused {
            return;
        }
        // Behind what waits it goes too: a session's changes are made in the order in which it asked for them.
        if change.users().len() > SMALL_CHANGE_USERS_MAX || self.large.waits(slot) {
            return self.wait_for_turn(now, origin, LargeAsk::Change(change, adding));
        }
        self.effects.submissions.push_back(Submission::Change(ChangeSubmission { origin, actor, change, adding }));
    }

    /// The operator does not let clients do it.
    fn forbid(&mut self, now: Now, slot: u32, request_id: u32, what: &str) {
        self.refuse_saying(now, slot, request_id, ErrorCode::NotAllowed, what, 0);
    }

    pub(super) fn user_of(&self, slot: u32) -> Option<UserId> {
        let session = self.sessions.at(slot).or_count(Place::Sessions)?;
        self.directory.at(session.user).map(|user| user.id).or_count(Place::Directory)
    }

    fn presence(&mut self, now: Now, slot: u32, request_id: u32, users: Users<'_>) {
        if self.config.policies.presence == Permission::Nobody {
            return self.forbid(now, slot, request_id, "this gateway tells nobody who is online");
        }
        if users.len() > PRESENCE_USERS_MAX {
            let what = "at most 256 users may be asked for at once";
            return self.refuse_saying(now, slot, request_id, ErrorCode::BadRequest, what, 0);
        }
        if self.admit_presence(now, slot, request_id, users.len()) == Admission::Refused {
            return;
        }
        self.ask_large(now, slot, request_id, LargeAsk::Presence(users.iter().collect()));
    }
}
