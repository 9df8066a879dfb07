//! What one account may send: the limits, their names, and how often each was met.
//!
//! Plain values: each shard and the ledger have a copy, so it can be replaced while they run. What always holds: whoever
//! is refused gets `RETRY_LATER` with a time, and it is counted under the limit's name (what is above the limits of refusals
//! and of bytes out is not refused, but waits).
//!
//! A user lives on one shard of a node, so what its sessions send and how many bytes they send is counted there, exactly.
//! Rows are counted where it is known how many there are, before a message is numbered: by the ledger, which counts
//! changes of groups as well; for ephemeral messages, which it never sees, by the group's shard. So an account has at most each node's part of every limit, and of
//! rows that are not stored each shard's.

use crate::limits;
use crate::rate::Rate;

macro_rules! traffic_limits {
    ($($(#[$doc:meta])* $field:ident $limit:ident = $default:ident,)*) => {
        /// What one account may send, and what may be sent to one group.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct TrafficLimits {
            $($(#[$doc])* pub(crate) $field: Rate,)*
            /// Of what may be unstored, so much per cent may be one user's; 100: all of it.
            pub(crate) user_unstored_percent: u32,
        }

        /// One of them.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum TrafficLimit {
            $($(#[$doc])* $limit,)*
            /// A user's share of what is unstored.
            UserUnstored,
        }

        impl Default for TrafficLimits {
            fn default() -> Self {
                TrafficLimits {
                    $($field: Rate::new(limits::$default.0, limits::$default.1),)*
                    user_unstored_percent: limits::USER_UNSTORED_PERCENT,
                }
            }
        }

        impl TrafficLimits {
            /// Nothing is refused.
            pub const UNLIMITED: TrafficLimits = TrafficLimits::all(Rate::UNLIMITED);

            /// The same rate for everything that has one.
            pub const fn all(rate: Rate) -> Self {
                TrafficLimits { $($field: rate,)* user_unstored_percent: 100 }
            }

            /// These, but for the messages that a user may send: so many, by one session or by all of them.
            #[must_use]
            pub const fn with_user_sends(self, rate: Rate) -> Self {
                TrafficLimits { session_sends: rate, user_sends: rate, ..self }
            }
        }

        impl TrafficLimit {
            /// All of them, in the order of [`LimitedCounters`].
            pub(crate) const ALL: &[TrafficLimit] = &[$(TrafficLimit::$limit,)* TrafficLimit::UserUnstored];

            /// As a metric's label, and as its key in the table `[limits]`.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(TrafficLimit::$limit => stringify!($field),)*
                    TrafficLimit::UserUnstored => "user_unstored_percent",
                }
            }
        }
    };
}

traffic_limits! {
    /// Logins of one address (IPv6: of one /64), valid or not.
    address_logins AddressLogins = ADDRESS_LOGINS,
    /// Logins of one user.
    user_logins UserLogins = USER_LOGINS,
    /// Requests of one session, whatever is asked; an Ack is none.
    session_requests SessionRequests = SESSION_REQUESTS,
    /// Requests of a user that are refused; above it the session is not read from for a while.
    user_refusals UserRefusals = USER_REFUSALS,
    /// Bytes of long replies that a user's requests are answered with; above it they wait.
    user_bytes_out UserBytesOut = USER_BYTES_OUT,
    /// Users that a user asks for whether they are online.
    user_presence UserPresence = USER_PRESENCE,
    /// Messages that one session sends.
    session_sends SessionSends = SESSION_SENDS,
    /// Bytes of bodies, and of members named in changes of groups, that one session sends.
    session_bytes SessionBytes = SESSION_BYTES,
    /// Messages that all sessions of a user send.
    user_sends UserSends = USER_SENDS,
    /// Bytes that they send.
    user_bytes UserBytes = USER_BYTES,
    /// Bytes that a user sends to one other user, or to one group.
    conversation_bytes ConversationBytes = CONVERSATION_BYTES,
    /// Rows that a user's messages make: one for each recipient, the sender included.
    user_rows UserRows = USER_ROWS,
    /// Groups that a user makes.
    user_groups_made UserGroupsMade = USER_GROUPS_MADE,
    /// Members that a user adds, those of new groups and the maker included.
    user_members_added UserMembersAdded = USER_MEMBERS_ADDED,
    /// Users whom nobody has written to before, and who have never sent anything, that a user writes to.
    user_recipients_new UserRecipientsNew = USER_RECIPIENTS_NEW,
    /// Messages to one group.
    group_sends GroupSends = GROUP_SENDS,
    /// Rows that they make.
    group_rows GroupRows = GROUP_ROWS,
}

/// A limit is met: nothing was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limited {
    /// The limit that was met.
    pub(crate) limit: TrafficLimit,
    /// When the same would be taken.
    pub(crate) retry_after_ms: u32,
}

/// How often each limit was met.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct LimitedCounters([u64; TrafficLimit::ALL.len()]);

impl LimitedCounters {
    /// Counts one refusal.
    pub(crate) fn count(&mut self, limit: TrafficLimit) {
        if let Some(count) = self.0.get_mut(limit as usize) {
            *count += 1;
        }
    }

    /// How often this one was met.
    pub(crate) fn of(&self, limit: TrafficLimit) -> u64 {
        self.0.get(limit as usize).copied().unwrap_or_default()
    }
}
