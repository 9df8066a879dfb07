//! What to do when a connection has ended: pure sums over what the gateway said and what chance gives.
//!
//! What always holds: no two clients that lost their connections at one moment are sent back at one moment; a wait is
//! never longer than the gateway asked for and as much again, or 45 s.

use crate::CloseReason;

/// The first wait after a connection that ended without a word; it doubles with each failure.
pub const BACKOFF_FIRST_MS: u64 = 500;
/// The longest such wait, before chance makes it half as long or half as long again.
pub const BACKOFF_MAX_MS: u64 = 30_000;
/// A session that stood so long has shown that the gateway is well: the next failure counts as the first.
pub const STABLE_MS: u32 = 30_000;

/// What to do after a connection has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextStep {
    /// Connect again at this time (monotonic), and log in as before.
    Reconnect {
        /// The moment, in monotonic milliseconds of the clock that the session is given.
        at_ms: u64,
    },
    /// The token is not, or no longer, accepted: get another, then connect again.
    NewToken(CloseReason),
    /// The cursor belongs to another gateway or an older backup: drop this copy of the inbox, call
    /// [`crate::Session::forget`], then connect again.
    DropInbox,
    /// Stay away: nothing that a client can do by itself would end otherwise.
    Stop(CloseReason),
}

/// The wait after so many failures in a row, milliseconds: 0.5 s doubling up to 30 s, times 0.5 to 1.5.
pub fn backoff_ms(failures: u8, random: u64) -> u64 {
    let wait_ms = (BACKOFF_FIRST_MS << failures.min(16)).min(BACKOFF_MAX_MS);
    wait_ms / 2 + random % (wait_ms + 1)
}

/// The wait that a `Closing` asks for: its own, and a random part of up to as much again.
pub fn asked_ms(reconnect_after_ms: u32, random: u64) -> u64 {
    let wait_ms = u64::from(reconnect_after_ms);
    wait_ms + random % (wait_ms + 1)
}

/// What a `Closing` that does not invite to come back demands.
pub fn demanded(reason: CloseReason) -> NextStep {
    match reason {
        CloseReason::TokenInvalid | CloseReason::TokenExpired => NextStep::NewToken(reason),
        CloseReason::SeqAhead => NextStep::DropInbox,
        _ => NextStep::Stop(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_half_a_second_to_half_a_minute_and_chance_spreads_each() {
        for (failures, wait_ms) in [(0, 500), (1, 1_000), (3, 4_000), (5, 16_000), (6, 30_000), (255, 30_000)] {
            assert_eq!(backoff_ms(failures, 0), wait_ms / 2, "{failures}");
            assert_eq!(backoff_ms(failures, wait_ms), wait_ms / 2 + wait_ms, "{failures}");
            assert!((0..50).map(|n| backoff_ms(failures, n * 7_919)).any(|ms| ms != wait_ms / 2), "{failures}");
        }
    }

    #[test]
    fn nobody_comes_back_before_the_gateway_asked_for_it_nor_after_twice_as_long() {
        let waits: Vec<u64> = (0..1_000).map(|n| asked_ms(1_500, n * 7_919)).collect();
        assert!(waits.iter().all(|ms| (1_500..=3_000).contains(ms)));
        assert!(waits.iter().any(|ms| *ms < 1_600) && waits.iter().any(|ms| *ms > 2_900));
    }
}
