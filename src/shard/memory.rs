//! What a shard does when the process is short of memory: lets nobody more in, then ends the sessions for which most is held.
//!
//! Part of the shard's core; the main thread measures, and says how short it is (`serve/memory.rs`). What always holds: who
//! holds little is never ended; who is ended gets back what was stored when the session comes again.

use super::Shard;
use super::session::Session;
use crate::clock::Now;
use crate::contract::memory::Pressure;
use crate::limits::{GREEDY_SESSION_BYTES_MIN, GREEDY_SESSIONS_CLOSED_MAX};
use ringway_wire::schema::CloseReason;

impl Shard {
    /// So short is the process of memory now. Said again and again while it lasts: each time some sessions end.
    pub(crate) fn set_pressure(&mut self, now: Now, pressure: Pressure) {
        self.pressure = pressure;
        if pressure < Pressure::CloseGreediest {
            return;
        }
        let held =
            |session: &Session| session.outbox_len() + session.intake.as_ref().map_or(0, |intake| intake.bytes());
        let mut greedy: Vec<(usize, u32)> = (0..self.sessions.high())
            .filter_map(|slot| Some((held(self.sessions.at(slot).filter(|session| session.phase.is_open())?), slot)))
            .filter(|(bytes, _)| *bytes >= GREEDY_SESSION_BYTES_MIN)
            .collect();
        greedy.sort_unstable_by(|one, other| other.cmp(one));
        for (_, slot) in greedy.into_iter().take(GREEDY_SESSIONS_CLOSED_MAX) {
            self.counts.shed.memory_sessions += 1;
            self.drop_session(now, slot, CloseReason::Overloaded);
        }
    }
}
