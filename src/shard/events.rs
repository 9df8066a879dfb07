//! What happened to users lately: how they came and went, why they were refused, when they could not keep up.
//!
//! Part of the shard's core. What always holds: an event takes a place that is there already, but for the first one of a
//! place's users; nothing is kept of a delivery or of a message that was taken; users share places by a keyed hash, so whoever
//! comes and goes all the time displaces what is known of the few who have the same place, and of nobody else; what one session
//! does over and over is one event that says how often.

use super::Shard;
use super::session::{NIL, Phase};
use crate::clock::Now;
use crate::contract::keyed::TableKey;
use crate::contract::look::{UserEvent, UserEventKind};
use crate::limits::{USER_EVENTS_OF_PLACE, USER_EVENTS_PLACES};
use ringway_wire::ids::{DeviceId, UserId};
use ringway_wire::schema::{CloseReason, ErrorCode};

/// The events of a shard.
#[derive(Debug)]
pub(super) struct UserEvents {
    places: Vec<Option<Box<Place>>>,
    key: TableKey,
    /// The number of the next event.
    next: u64,
}

type Place = [UserEvent; USER_EVENTS_OF_PLACE];

const _: () = assert!(size_of::<Place>() <= 1_024, "what a place costs, as limits.rs says");
const _: () = assert!(USER_EVENTS_PLACES.is_power_of_two(), "a hash says the place by its lower bits");

impl UserEvents {
    pub(super) fn new(key: TableKey) -> Self {
        UserEvents { places: vec![None; USER_EVENTS_PLACES], key, next: 1 }
    }

    fn place(&self, user: UserId) -> usize {
        self.key.hash(user.0) as usize & (USER_EVENTS_PLACES - 1)
    }

    /// Keeps an event, in the place of the oldest, or of the same one if that may be said together.
    pub(super) fn note(&mut self, event: UserEvent) {
        let at = self.place(event.user);
        let number = self.next;
        self.next += 1;
        let Some(place) = self.places.get_mut(at) else { return };
        let place = place.get_or_insert_with(|| Box::new([UserEvent::NONE; USER_EVENTS_OF_PLACE]));
        if event.kind.is_said_together()
            && let Some(same) = place.iter_mut().find(|it| it.is_same(&event))
        {
            (same.last_ms, same.number) = (event.last_ms, number);
            same.times = same.times.saturating_add(1);
            return;
        }
        if let Some(oldest) = place.iter_mut().min_by_key(|it| it.number) {
            *oldest = UserEvent { number, ..event };
        }
    }

    /// What is known of a user, oldest first.
    pub(super) fn of(&self, user: UserId) -> Vec<UserEvent> {
        let place = self.places.get(self.place(user)).and_then(Option::as_deref);
        let is_of = |event: &&UserEvent| event.number > 0 && event.user == user;
        let mut events: Vec<UserEvent> = place.into_iter().flatten().filter(is_of).copied().collect();
        events.sort_unstable_by_key(|event| event.number);
        events
    }
}

impl Shard {
    /// Something happened to a session that is its user's.
    pub(super) fn note_of_session(&mut self, now: Now, slot: u32, kind: UserEventKind) {
        let Some(session) = self.sessions.at(slot).filter(|session| session.user != NIL) else { return };
        let Some(user) = self.directory.at(session.user).map(|user| user.id) else { return };
        let (device, connection) = (session.device, session.number(self.config.id, slot));
        self.events.note(UserEvent::new(now.unix_ms, user, device, connection, kind));
    }

    /// A login of a connection that is nobody's yet was refused; whose it would have been, its token says.
    pub(super) fn note_refused_login(
        &mut self,
        now: Now,
        slot: u32,
        user: UserId,
        device: DeviceId,
        reason: CloseReason,
    ) {
        let Some(session) = self.sessions.at(slot) else { return };
        let connection = session.number(self.config.id, slot);
        let kind = UserEventKind::LoginRefused(reason);
        self.events.note(UserEvent::new(now.unix_ms, user, device, connection, kind));
    }

    /// A connection ends. Call it before the session leaves its user.
    pub(super) fn note_close(&mut self, now: Now, slot: u32, reason: CloseReason) {
        let kind = match self.sessions.at(slot).map(|session| session.phase) {
            Some(Phase::Live | Phase::Behind) => UserEventKind::Closed(reason),
            _ => UserEventKind::LoginRefused(reason),
        };
        self.note_of_session(now, slot, kind);
    }

    /// A request was refused.
    pub(super) fn note_refusal(&mut self, now: Now, slot: u32, code: ErrorCode) {
        self.note_of_session(now, slot, UserEventKind::Refused(code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_ms: u64, user: u64, kind: UserEventKind) -> UserEvent {
        UserEvent::new(at_ms, UserId(user), DeviceId(1), 7, kind)
    }

    #[test]
    fn the_newest_events_of_a_user_are_kept_in_their_order() {
        let mut events = UserEvents::new(TableKey::new(1));
        for at_ms in 1..=100 {
            events.note(event(at_ms, 42, UserEventKind::LoggedIn));
        }
        let kept: Vec<u64> = events.of(UserId(42)).iter().map(|event| event.last_ms).collect();
        assert_eq!(kept, (101 - USER_EVENTS_OF_PLACE as u64..=100).collect::<Vec<_>>());
        assert_eq!(events.of(UserId(43)), []);
    }

    #[test]
    fn what_happens_over_and_over_is_one_event_that_says_how_often() {
        let mut events = UserEvents::new(TableKey::new(1));
        events.note(event(1, 42, UserEventKind::LoggedIn));
        for at_ms in 2..=1_000 {
            events.note(event(at_ms, 42, UserEventKind::Behind));
            events.note(event(at_ms, 42, UserEventKind::CaughtUp));
            events.note(event(at_ms, 42, UserEventKind::Refused(ErrorCode::RetryLater)));
        }
        let kept = events.of(UserId(42));
        assert_eq!(kept.len(), 4, "{kept:?}");
        let refused = kept.last().copied().unwrap_or(UserEvent::NONE);
        assert_eq!(refused.kind, UserEventKind::Refused(ErrorCode::RetryLater));
        assert_eq!((refused.first_ms, refused.last_ms, refused.times), (2, 1_000, 999));
    }

    #[test]
    fn one_who_comes_and_goes_displaces_what_is_known_of_those_in_the_same_place_alone() {
        let mut events = UserEvents::new(TableKey::new(1));
        for user in 0..1_000 {
            events.note(event(1, user, UserEventKind::LoggedIn));
        }
        for at_ms in 2..=10_000 {
            events.note(event(at_ms, 42, UserEventKind::Closed(CloseReason::LoggedOut)));
        }
        let displaced = (0..1_000).filter(|user| *user != 42 && events.of(UserId(*user)).is_empty()).count();
        assert!(displaced < 10, "{displaced}");
    }
}
