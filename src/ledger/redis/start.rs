//! Builds the engine at start: what the database knows, and this node's log. The stream brings the rest.
//!
//! Runs once, before the ledger's thread loops. What always holds: the database's position is read before its groups,
//! and those before its newest rows; so every entry behind the position is in all three or can be followed.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::copy::Copy;
use super::flying::Flying;
use super::link::LedgerEnds;
use super::log::Log;
use super::reload::Asker;
use super::{Questions, RedisEngine, Session, Settings};
use crate::ids::MsgId;
use crate::journal::disk::Disk;
use crate::journal::{Position, Progress};
use crate::ledger::LedgerCounters;
use crate::ledger::groups::{GroupLimits, Groups};
use crate::ledger::pending::Pending;
use crate::ledger::sequence::{MsgIdSource, Sequences};
use crate::ledger::start::StartError;
use crate::limits::LEDGER_USERS_MAX;
use crate::shard::event::{NewestRow, StoredGroup};

/// Gathers what the database knows; [`RedisStart::finish`] adds the log.
#[derive(Debug)]
pub struct RedisStart {
    settings: Settings,
    sequences: Sequences,
    groups: Groups,
    users_over: bool,
}

impl RedisStart {
    /// Before groups and rows are visited, in this order.
    pub fn new(settings: Settings) -> Self {
        let sequences = Sequences::new(settings.seed);
        let groups = Groups::new(settings.seed ^ 1, settings.shards, GroupLimits::default());
        RedisStart { settings, sequences, groups, users_over: false }
    }

    /// A group in the database.
    pub fn group(&mut self, group: &StoredGroup) {
        self.groups.load(group, &mut self.sequences);
    }

    /// A user's newest row in the database.
    pub fn newest_row(&mut self, row: NewestRow) {
        match self.sequences.assign(row.user) {
            Some(slot) => self.sequences.raise(slot, row.seq),
            None => self.users_over = true,
        }
    }

    /// Opens the log, empties the copy. `before` is the database's position when reading began, `after` when it had
    /// ended; `msg_id_max` is the highest number in it.
    pub fn finish<D: Disk>(
        self,
        (log_disk, copy_disk): (D, D),
        progress: Arc<Progress>,
        (link, asker): (LedgerEnds, Asker),
        (before, after): (Position, Position),
        msg_id_max: MsgId,
    ) -> Result<RedisEngine<D>, StartError> {
        let RedisStart { settings, sequences, groups, users_over } = self;
        if users_over {
            return Err(StartError::Users(LEDGER_USERS_MAX));
        }
        let (log, torn) = Log::open(log_disk, settings.segment_bytes, settings.seed ^ 2)?;
        if let Some(torn) = torn {
            tracing::warn!(file = torn.file, offset = torn.offset, "the log ended in a batch that was being written");
        }
        let mut ids = MsgIdSource::new(settings.node, msg_id_max);
        log.each_open(&mut |record| {
            if let Some(msg_id) = record.msg_id() {
                ids.raise(msg_id);
            }
        })?;
        let copy = Copy::begin(copy_disk, settings.segment_bytes, Arc::clone(&progress), settings.seed ^ 3)?;
        progress.advance_applied(after);
        Ok(RedisEngine {
            settings,
            progress,
            link,
            log,
            copy,
            ids,
            sequences,
            groups,
            places: HashMap::with_hasher(FixedState::with_seed(settings.seed ^ 4)),
            pending: Pending::new(settings.seed ^ 5),
            flying: Flying::default(),
            questions: Questions::default(),
            asker,
            found: None,
            changed_at: HashMap::with_hasher(FixedState::with_seed(settings.seed ^ 7)),
            groups_at: after.0,
            loaded_for: 0,
            session: Session::Away,
            generation: None,
            making: None,
            nonce: settings.seed,
            seen: before.0,
            level_at: u64::MAX,
            stored_at_start: after.0,
            since_ms: u64::MAX,
            staged: Vec::new(),
            counters: LedgerCounters::default(),
        })
    }
}
