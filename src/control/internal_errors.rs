//! Internal errors in the log: which place, how often, where it was met last.
//!
//! Owned by control's thread. What always holds: a place is named when it is first met, and then at most once in
//! `INTERNAL_ERRORS_SAID_MS` while it goes on being met.

use crate::contract::internal::{InternalErrors, Place};
use crate::limits::INTERNAL_ERRORS_SAID_MS;

/// What the log has said of each place, in the order of `Place::ALL`.
#[derive(Debug)]
pub(super) struct InternalErrorsLog {
    said: [Said; Place::ALL.len()],
}

#[derive(Clone, Copy, Debug)]
struct Said {
    count: u64,
    at_ms: Option<u64>,
}

impl Default for InternalErrorsLog {
    fn default() -> Self {
        InternalErrorsLog { said: [Said { count: 0, at_ms: None }; Place::ALL.len()] }
    }
}

impl InternalErrorsLog {
    /// Writes down what is to be said of these.
    pub(super) fn note(&mut self, now_ms: u64, errors: &InternalErrors) {
        if errors.total() == 0 {
            return;
        }
        for (place, count) in self.due(now_ms, errors) {
            let last = errors.last().map(ToString::to_string).unwrap_or_default();
            tracing::error!(
                place = place.name(),
                count,
                last,
                "internal error: the gateway goes on, but this is a mistake in its program; please report this line"
            );
        }
    }

    fn due(&mut self, now_ms: u64, errors: &InternalErrors) -> Vec<(Place, u64)> {
        let mut due = Vec::new();
        for (said, (place, count)) in self.said.iter_mut().zip(errors.each()) {
            let lately = said.at_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < INTERNAL_ERRORS_SAID_MS);
            if count > said.count && !lately {
                *said = Said { count, at_ms: Some(now_ms) };
                due.push((place, count));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;
    use crate::contract::internal::count;

    fn counted(places: &'static [Place]) -> InternalErrors {
        let counting = move || {
            places.iter().for_each(|place| count(*place));
            InternalErrors::of_this_thread()
        };
        std::thread::spawn(counting).join().unwrap()
    }

    #[test]
    fn a_place_is_named_at_once_and_then_once_a_minute_while_it_goes_on() {
        let mut log = InternalErrorsLog::default();
        assert_eq!(log.due(0, &InternalErrors::NONE), []);
        let once = counted(&[Place::Tail]);
        assert_eq!(log.due(1_000, &once), [(Place::Tail, 1)]);
        assert_eq!(log.due(100_000, &once), [], "nothing more was counted");
        let again = counted(&[Place::Tail, Place::Tail, Place::Store]);
        assert_eq!(log.due(110_000, &again), [(Place::Tail, 2), (Place::Store, 1)]);
        let more = counted(&[Place::Tail, Place::Tail, Place::Tail, Place::Store]);
        assert_eq!(log.due(111_000, &more), [], "it was named a second ago");
        assert_eq!(log.due(170_000, &more), [(Place::Tail, 3)]);
    }
}
