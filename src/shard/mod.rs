//! The shard's core: an event in, effects out. No socket, no clock, no file, no await.
//!
//! Owned by one pinned thread, whose shell (`net/`) hands it events and drains [`Effects`] after each, or at least
//! once a turn. What always holds: each session receives its user's inbox in `seq` order with nothing left out;
//! every queue and cache has its limit in `limits.rs`; the same events give the same effects. It leaves out
//! numbering and durability (the ledger), history (the store), and every system call.
//!
//! ```text
//! receive.rs   bytes → frames → requests        login.rs     token → registered → live
//! requests.rs  what a client may ask            reply.rs     what it is answered
//! group.rs     groups that live here            presence.rs  who is online, over all shards
//! fanout.rs    deliveries → outboxes            audience.rs  per group, who is online here
//! ephemeral.rs the same past the ledger         passing.rs   what of it an account puts into lanes in a tick
//! catchup.rs   pages for sessions behind        cursors.rs   what devices have acknowledged
//! large_replies.rs       what is large, one of a session's at a time
//! remote_sessions.rs     on other nodes        devices.rs   which sessions of a user may stay
//! unauthenticated.rs     connections before login        traffic.rs   what sessions and users may send
//! throttle.rs  who is refused too often, and not read from for a while
//! timers.rs    time-outs, the tick              heartbeats.rs how often a session must speak
//! close.rs     every end of a connection        drain.rs
//! access.rs    who may not log in               memory.rs    when memory is short
//! look.rs      what an operator sees        events.rs    what happened to users lately
//! route.rs     where the effects go
//! session.rs, directory.rs, outgoing.rs, outbox.rs, wheel.rs, index.rs, slab.rs    the state
//! ```

mod access;
mod audience;
mod catchup;
mod close;
pub mod config;
mod cursors;
mod devices;
mod directory;
mod drain;
pub mod effects;
mod ephemeral;
mod events;
pub(crate) mod fanout;
mod group;
mod heartbeats;
mod index;
mod large_replies;
mod login;
mod look;
mod memory;
pub(crate) mod outbox;
mod outgoing;
mod passing;
mod presence;
mod receive;
mod remote_sessions;
mod reply;
mod requests;
pub mod route;
mod session;
mod shares;
mod slab;
mod throttle;
mod timers;
mod traffic;
mod unauthenticated;
pub mod wheel;

use std::collections::VecDeque;

use self::access::Access;
use self::audience::Audiences;
use self::catchup::Pages;
use self::config::ShardConfig;
use self::cursors::Cursors;
use self::directory::Directory;
use self::drain::Drain;
use self::effects::Effects;
use self::ephemeral::{Ephemeral, Ephemerals};
use self::events::UserEvents;
use self::fanout::GroupRun;
use self::group::{RosterAsk, Rosters};
use self::heartbeats::Heartbeats;
use self::large_replies::LargeReplies;
pub(crate) use self::login::NotAdopted;
use self::outbox::Outbox;
use self::outgoing::Outgoing;
use self::passing::Passing;
use self::presence::Gathers;
use self::remote_sessions::RemoteSessions;
use self::session::{Flags, Phase, Session};
use self::slab::Slab;
use self::throttle::Throttled;
use self::traffic::Traffic;
use self::unauthenticated::Unauthenticated;
use self::wheel::{Wheel, tick_of};
use crate::auth::Authenticator;
use crate::clock::Now;
use crate::contract::delivery::Delivery;
use crate::contract::ids::{ConnId, Origin, PeerAddress, ShardId};
use crate::contract::internal::{InternalErrors, OrCount, Place, count};
use crate::contract::lane::{LaneAnswer, LaneEnvelope};
use crate::contract::memory::Pressure;
use crate::contract::message::Incoming;
use crate::contract::shard_counters::ShardCounters;
use crate::contract::store::{StoreAnswer, StoreAsk};
use crate::contract::submission::Submission;
use crate::limits::{
    AUDIENCE_MEMBERSHIPS_MAX, LANE_ACCOUNT_MAX, LANE_ANSWERS_WAITING_MAX, RETRY_AFTER_MS, SHARD_ROSTERS_MAX,
    TO_NODES_ACCOUNT_MAX,
};
use ringway_wire::frame::Encoder;
use ringway_wire::request::Taken;
use ringway_wire::schema::{CloseReason, ErrorCode};

/// One shard: its connections, its users' sessions, its groups. One thread owns it.
pub struct Shard {
    config: ShardConfig,
    auth: Authenticator,
    encoder: Encoder,
    sessions: Slab<Session>,
    directory: Directory,
    access: Access,
    audiences: Audiences,
    rosters: Rosters,
    outgoing: Outgoing,
    pages: Pages,
    gathers: Gathers,
    remote_sessions: RemoteSessions,
    cursors: Cursors,
    /// Logins whose cursor the store had no room to be asked for: again a little later, until their time is over.
    cursors_later: Vec<Origin>,
    heartbeats: Heartbeats,
    large: LargeReplies,
    events: UserEvents,
    throttled: Throttled,
    /// Sessions that were not read from because of all that they had asked, and may be again.
    answered_enough: Vec<ConnId>,
    wheel: Wheel,
    effects: Effects,
    counts: ShardCounters,
    draining: Option<Drain>,
    /// Answers that their lanes had no room for.
    answers_waiting: VecDeque<(ShardId, LaneEnvelope)>,
    /// Bytes that all intakes hold.
    intake_bytes: usize,
    unauthenticated: Unauthenticated,
    traffic: Traffic,
    /// Sessions that catch up.
    behind: usize,
    /// The member of a run's roster that the fan-out goes on with.
    run_from: u32,
    ephemerals: Ephemerals,
    ephemeral_count: u64,
    /// Ephemeral messages into lanes, and to other nodes.
    into_lanes: Passing,
    to_nodes: Passing,
    pressure: Pressure,
    retry_at_ms: u64,
    save_cursors_at_ms: u64,
    /// Timers that came out; kept for its memory.
    due: Vec<u32>,
}

/// What the shell does with a connection after a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterWrite {
    /// Nothing waits any more. When something does again, the connection is listed as dirty.
    Drained,
    /// More waits: write again when the socket is writable. It is not listed as dirty until it has drained.
    More,
    /// The last frame is out: close the socket, then call `disconnected`.
    CloseNow,
}

impl Shard {
    /// A shard without connections.
    pub fn new(config: ShardConfig, auth: Authenticator) -> Shard {
        Shard {
            auth,
            encoder: Encoder::new(),
            sessions: Slab::new(),
            directory: Directory::new(config.table_key),
            access: Access::new(config.table_key),
            audiences: Audiences::new(config.id, AUDIENCE_MEMBERSHIPS_MAX, config.table_key),
            rosters: Rosters::new(SHARD_ROSTERS_MAX, config.table_key),
            outgoing: Outgoing::new(&config),
            pages: Pages::default(),
            gathers: Gathers::default(),
            remote_sessions: RemoteSessions::new(config.table_key),
            cursors: Cursors::default(),
            cursors_later: Vec::new(),
            heartbeats: Heartbeats::new(&config),
            large: LargeReplies::new(config.table_key),
            events: UserEvents::new(config.table_key.derived(17)),
            throttled: Throttled::new(config.table_key),
            answered_enough: Vec::new(),
            wheel: Wheel::default(),
            effects: Effects::default(),
            counts: ShardCounters::default(),
            draining: None,
            answers_waiting: VecDeque::new(),
            intake_bytes: 0,
            unauthenticated: Unauthenticated::new(config.table_key),
            traffic: Traffic::new(config.table_key),
            behind: 0,
            run_from: 0,
            ephemerals: Ephemerals::new(config.table_key),
            ephemeral_count: 0,
            into_lanes: Passing::new(LANE_ACCOUNT_MAX, config.table_key.derived(15)),
            to_nodes: Passing::new(TO_NODES_ACCOUNT_MAX, config.table_key.derived(16)),
            pressure: Pressure::None,
            retry_at_ms: 0,
            save_cursors_at_ms: 0,
            due: Vec::new(),
            config,
        }
    }

    /// Which shard this is.
    pub(crate) fn id(&self) -> ShardId {
        self.config.id
    }

    /// A socket was accepted. An error: send `encode_refusal`'s bytes if the socket takes them, and close it.
    pub fn accept(&mut self, now: Now, from: PeerAddress) -> Result<ConnId, CloseReason> {
        self.admit()?;
        if let Err(refusal) = self.make_room_for_newcomer(now, from) {
            self.count_close(refusal);
            return Err(refusal);
        }
        let slot = self.open_slot(now, Phase::Fresh);
        self.unauthenticated.append(slot, from, &mut self.sessions);
        self.counts.accepted_total += 1;
        Ok(self.sessions.reached(slot).conn(slot))
    }

    /// May one more connection come, as far as it becomes a session?
    fn admit(&mut self) -> Result<(), CloseReason> {
        let admitted = match self.draining {
            Some(_) => Err(CloseReason::Draining),
            None => self.has_room_for_session(),
        };
        admitted.inspect_err(|refusal| self.count_close(*refusal))
    }

    /// May there be one more session?
    fn has_room_for_session(&mut self) -> Result<(), CloseReason> {
        if self.directory.sessions_count < self.config.connections_max {
            return Ok(());
        }
        self.counts.shed.connections += 1;
        Err(CloseReason::Overloaded)
    }

    /// Takes a slot for a connection that has not logged in yet.
    fn open_slot(&mut self, now: Now, phase: Phase) -> u32 {
        let slot = self.sessions.take();
        let session = self.sessions.reached(slot);
        *session = Session {
            generation: session.generation.wrapping_add(1),
            phase,
            user: session::NIL,
            next_of_user: session::NIL,
            received_tick: tick_of(now.mono_ms),
            ..Session::default()
        };
        self.wheel.arm(slot, tick_of(now.mono_ms + u64::from(self.config.login_timeout_ms) + wheel::TICK_MS));
        slot
    }

    /// The slot of a connection that is still there.
    #[inline]
    fn slot_of(&self, conn: ConnId) -> Option<u32> {
        let session = self.sessions.at(conn.slot)?;
        (session.generation == conn.generation && session.phase != Phase::Free).then_some(conn.slot)
    }

    /// The ledger hands out, in its order.
    pub fn deliver(&mut self, now: Now, delivery: Delivery) {
        match delivery {
            Delivery::Group { .. } => {
                if let Some(run) = GroupRun::at_front(std::slice::from_ref(&delivery)) {
                    self.deliver_group(now, &run, 0, usize::MAX);
                }
            }
            Delivery::Direct { message, sender_seq, recipient_seq, origin } => {
                self.deliver_direct(now, &message, sender_seq, recipient_seq, origin);
            }
            // The API's.
            Delivery::Numbered { .. } => count(Place::Mailbox),
            Delivery::Repeat { origin, msg_id, seq, sent_at_ms } => {
                self.send_ok(now, origin, msg_id, seq, sent_at_ms, Taken::Before);
            }
            Delivery::Refused { origin, code, retry_after_ms } => {
                self.refuse_origin(now, origin, code, retry_after_ms);
            }
            Delivery::Position { origin, newest, given } => self.position_found(now, origin, newest, given),
            Delivery::Groups { origin, groups } => {
                if let Some(slot) = self.settle(origin) {
                    self.reply_large(now, slot, |encoder| encoder.group_list(origin.request_id, &groups));
                }
            }
            Delivery::Sharing { origin, users } => self.gather_presence(now, origin, users),
            Delivery::Permitted { incoming, .. } => self.send_permitted(now, *incoming),
            Delivery::Roster { group, roster } => self.roster_found(now, group, roster.as_ref()),
            Delivery::Changed { origin, roster, announcement } => self.changed(now, origin, &roster, &announcement),
            Delivery::Reloaded { group, roster } => self.reloaded(group, roster.as_ref()),
            Delivery::Missed { newest } => newest.iter().for_each(|(user, newest)| self.missed(now, *user, *newest)),
            Delivery::Unchanged { origin, group, version } => self.group_ok(now, origin, group, version, &[]),
            Delivery::NotAdded { origin, code, users } => self.not_added(now, origin, code, &users),
        }
    }

    /// Another shard's core asks or answers.
    pub fn lane(&mut self, now: Now, envelope: LaneEnvelope) {
        match envelope {
            LaneEnvelope::GroupEphemeral { group, incoming } => {
                self.with_roster(now, group, RosterAsk::Ephemeral(incoming));
            }
            LaneEnvelope::GroupInfo { origin, user, group } => {
                self.with_roster(now, group, RosterAsk::Info { origin, user });
            }
            LaneEnvelope::Ephemeral { message, roster: Some(roster), origin, answers } => {
                self.enqueue_ephemeral(now, Ephemeral { message, roster, origin, answers });
            }
            LaneEnvelope::Ephemeral { message, roster: None, origin, .. } => {
                self.deliver_ephemeral_direct(now, &message, origin);
            }
            LaneEnvelope::EphemeralSend(incoming) => self.send_permitted(now, incoming),
            LaneEnvelope::Answer { origin, answer } => self.answered(now, origin, answer),
            LaneEnvelope::Presence { origin, users } => self.presence_asked(origin, users),
        }
    }

    /// The store answers.
    pub fn stored(&mut self, now: Now, answer: StoreAnswer) {
        match answer {
            StoreAnswer::Page { session, purpose, after, page } => self.page(now, session, purpose, after, &page),
            StoreAnswer::Cursor { origin, seq } => self.cursor_found(origin, seq),
            // The API's.
            StoreAnswer::Traced { .. } => count(Place::Mailbox),
            StoreAnswer::Unavailable { session, purpose: Some(purpose) } => {
                self.page_unreadable(now, session, purpose);
            }
            StoreAnswer::Unavailable { session, purpose: None } => {
                if let Some(slot) = self.slot_of(session.conn) {
                    self.close(now, slot, CloseReason::StoreUnavailable);
                }
            }
        }
    }

    /// The ledger's mailbox was full.
    pub(crate) fn refused_submission(&mut self, now: Now, submission: Submission) {
        self.counts.shed.submissions += 1;
        let origin = match submission {
            Submission::Roster { group, .. } => return self.roster_refused(now, group),
            Submission::Position { origin, .. } => {
                if let Some(slot) = self.slot_of(origin.session.conn) {
                    self.close(now, slot, CloseReason::Overloaded);
                }
                return;
            }
            Submission::Message(submission) => submission.incoming.origin,
            Submission::Change(submission) => submission.origin,
            Submission::Groups { origin, .. }
            | Submission::Made { origin, .. }
            | Submission::Sharing { origin, .. } => origin,
            Submission::Ephemeral(incoming) => incoming.origin,
        };
        let answer = LaneAnswer::Refused { code: ErrorCode::RetryLater, retry_after_ms: RETRY_AFTER_MS };
        self.answer_anywhere(now, origin, answer);
    }

    /// The lane to `shard` was full.
    pub(crate) fn refused_lane(&mut self, now: Now, shard: ShardId, envelope: LaneEnvelope) {
        self.counts.shed.lanes += 1;
        match envelope {
            LaneEnvelope::GroupEphemeral { incoming: Incoming { origin, .. }, .. }
            | LaneEnvelope::EphemeralSend(Incoming { origin, .. })
            | LaneEnvelope::GroupInfo { origin, .. } => {
                self.refuse_origin(now, origin, ErrorCode::RetryLater, RETRY_AFTER_MS);
            }
            LaneEnvelope::Ephemeral { origin, answers, .. } => self.ephemeral_refused(now, origin, answers),
            LaneEnvelope::Presence { origin, .. } => self.presence_refused(now, origin),
            answer @ LaneEnvelope::Answer { .. } if self.answers_waiting.len() < LANE_ANSWERS_WAITING_MAX => {
                self.answers_waiting.push_back((shard, answer));
            }
            LaneEnvelope::Answer { .. } => self.counts.shed.lane_answers += 1,
        }
    }

    /// Sends the answers again that their lanes had no room for.
    fn retry_answers(&mut self) {
        self.effects.lanes.append(&mut self.answers_waiting);
    }

    /// The store's mailbox was full.
    pub(crate) fn refused_ask(&mut self, now: Now, ask: StoreAsk) {
        self.counts.shed.store_asks += 1;
        match ask {
            StoreAsk::Page { session, purpose, .. } => self.page_unavailable(now, session, purpose),
            StoreAsk::Cursor { origin, .. } => self.cursors_later.push(origin),
            StoreAsk::SaveCursors(cursors) => self.keep_cursors(cursors),
            // The API's.
            StoreAsk::Trace { .. } => count(Place::Mailbox),
        }
    }

    /// What is to be done; drain it.
    pub fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    /// Whether to read from the connection's socket now. False: it does not read its replies, has asked as
    /// much as may be unanswered, was refused too often, its login is being looked up, or it is being closed. When it becomes
    /// true again it is listed in `Effects::resumed`.
    pub fn wants_read(&self, conn: ConnId) -> bool {
        let session = self.slot_of(conn).and_then(|slot| self.sessions.at(slot));
        session.is_some_and(|session| !session.flags.has(Flags::PAUSED))
    }

    /// Whether the connection is one of its user's sessions: its login was accepted, if perhaps not answered yet.
    pub(crate) fn is_registered(&self, conn: ConnId) -> bool {
        let session = self.slot_of(conn).and_then(|slot| self.sessions.at(slot));
        session.is_some_and(|session| session.phase.is_awaiting() || session.phase.is_open())
    }

    /// What waits for the connection; `None`: nothing.
    pub fn outbox(&mut self, conn: ConnId) -> Option<&mut Outbox> {
        let slot = self.slot_of(conn)?;
        self.sessions.at_mut(slot)?.outbox.as_deref_mut()
    }

    /// So many bytes of the connection's outbox were written; 0 when the socket took none.
    pub fn written(&mut self, now: Now, conn: ConnId, bytes: usize) -> AfterWrite {
        let Some(slot) = self.slot_of(conn) else { return AfterWrite::Drained };
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return AfterWrite::Drained };
        let before = session.outbox_len();
        self.outgoing.consume(session, bytes, now.mono_ms);
        self.counts.bytes_out_total += (before - session.outbox_len()) as u64;
        if session.phase == Phase::Closing {
            let drained = session.outbox.is_none();
            return if drained { AfterWrite::CloseNow } else { AfterWrite::More };
        }
        if session.flags.has(Flags::PAUSED) && bytes > 0 {
            // Its heartbeats are not read now; that it takes bytes shows that it lives.
            session.received_tick = tick_of(now.mono_ms);
        }
        if session.phase == Phase::Behind {
            self.want_page(slot);
        }
        self.large.has_room(conn);
        self.resume(now, slot);
        if self.outbox(conn).is_some() {
            self.watch_for_stall(slot);
            AfterWrite::More
        } else {
            AfterWrite::Drained
        }
    }

    /// Plain integers as of now.
    pub fn counters(&self) -> ShardCounters {
        ShardCounters {
            connections: self.sessions.taken() as u64,
            connections_unauthenticated: self.unauthenticated.count() as u64,
            sessions: self.directory.sessions_count as u64,
            users: self.directory.online_count as u64,
            sessions_behind: self.behind as u64,
            outbox_bytes: self.outgoing.waiting_bytes as u64,
            intake_bytes: self.intake_bytes as u64,
            audience_memberships: self.audiences.memberships_count() as u64,
            rosters: self.rosters.count() as u64,
            ephemerals: self.ephemerals.count() as u64,
            sessions_throttled: self.throttled.count() as u64,
            memory_pressure: self.pressure as u64,
            remote_sessions: self.remote_sessions.count() as u64,
            internal: InternalErrors::of_this_thread(),
            ..self.counts.clone()
        }
    }
}

#[cfg(test)]
impl Shard {
    /// The connection owns no heap memory.
    fn is_bare(&self, conn: ConnId) -> bool {
        let session = self.slot_of(conn).and_then(|slot| self.sessions.at(slot));
        session.is_some_and(|session| session.outbox.is_none() && session.intake.is_none())
    }
}

#[cfg(test)]
mod tests;
