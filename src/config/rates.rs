//! Rates as they are typed: `1000/s, burst 20000`, or `off`.
//!
//! Used once at start, on the main thread. What always holds: a rate that is taken lets the largest message through.

use super::ConfigError;
use super::typed::Typed;
use crate::contract::traffic::TrafficLimits;
use crate::limits::RATE_MAX;
use crate::rate::Rate;
use ringway_wire::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, PRESENCE_USERS_MAX, SERVER_FRAME_BYTES_MAX};

/// The most that one request takes of a rate: messages or groups, rows or members, bytes.
const SENDS_AT_ONCE: u32 = 1;
const ROWS_AT_ONCE: u32 = GROUP_MEMBERS_MAX as u32;
const BYTES_AT_ONCE: u32 = (BODY_BYTES_MAX + GROUP_MEMBERS_MAX * 8) as u32;

impl Typed {
    /// What one account may send.
    pub(super) fn traffic(&self) -> Result<TrafficLimits, ConfigError> {
        Ok(TrafficLimits {
            address_logins: self.rate("limits.address_logins", SENDS_AT_ONCE)?,
            user_logins: self.rate("limits.user_logins", SENDS_AT_ONCE)?,
            session_requests: self.rate("limits.session_requests", SENDS_AT_ONCE)?,
            user_refusals: self.rate("limits.user_refusals", SENDS_AT_ONCE)?,
            user_bytes_out: self.rate("limits.user_bytes_out", SERVER_FRAME_BYTES_MAX as u32)?,
            user_presence: self.rate("limits.user_presence", PRESENCE_USERS_MAX as u32)?,
            session_sends: self.rate("limits.session_sends", SENDS_AT_ONCE)?,
            session_bytes: self.rate("limits.session_bytes", BYTES_AT_ONCE)?,
            user_sends: self.rate("limits.user_sends", SENDS_AT_ONCE)?,
            user_bytes: self.rate("limits.user_bytes", BYTES_AT_ONCE)?,
            conversation_bytes: self.rate("limits.conversation_bytes", BYTES_AT_ONCE)?,
            user_rows: self.rate("limits.user_rows", ROWS_AT_ONCE)?,
            user_groups_made: self.rate("limits.user_groups_made", SENDS_AT_ONCE)?,
            user_members_added: self.rate("limits.user_members_added", ROWS_AT_ONCE)?,
            user_recipients_new: self.rate("limits.user_recipients_new", SENDS_AT_ONCE)?,
            user_unstored_percent: self.number("limits.user_unstored_percent", 1, 100)? as u32,
            group_sends: self.rate("limits.group_sends", SENDS_AT_ONCE)?,
            group_rows: self.rate("limits.group_rows", ROWS_AT_ONCE)?,
        })
    }

    fn rate(&self, key: &'static str, burst_min: u32) -> Result<Rate, ConfigError> {
        parse(self.text(key), burst_min).ok_or_else(|| {
            self.refuse(
                key,
                format!(
                    "expected off, or as in \"1000/s, burst 20000\": from 1 to {RATE_MAX} a second, and at least \
                     {burst_min} at once"
                ),
            )
        })
    }
}

fn parse(text: &str, burst_min: u32) -> Option<Rate> {
    if text.trim() == "off" {
        return Some(Rate::UNLIMITED);
    }
    let (per_s, burst) = text.split_once(',')?;
    let number = |text: &str| text.trim().replace('_', "").parse::<u32>().ok();
    let per_s = number(per_s.trim().strip_suffix("/s")?).filter(|per_s| (1..=RATE_MAX).contains(per_s))?;
    let burst = number(burst.trim().strip_prefix("burst ")?).filter(|burst| *burst >= burst_min)?;
    Some(Rate::new(per_s, burst))
}
