//! The keys of the configuration, with their defaults.
//!
//! Constants only. What always holds: a default that is a bound is the one of `limits.rs`, and what `--print-config` says
//! of a key is what README.md says of it.

use crate::limits;

/// A key of the configuration.
#[derive(Debug)]
pub(crate) struct Key {
    /// Dotted name, as in the file.
    pub(crate) name: &'static str,
    /// What holds if nobody says otherwise; empty: nothing.
    pub(crate) default: &'static str,
    /// How its value is written in TOML.
    pub(crate) form: Form,
    /// One line for `--print-config`.
    pub(crate) about: &'static str,
}

/// How a key's value is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// A TOML string.
    Text,
    /// A TOML string that is never printed.
    Secret,
    /// A URL, printed without its password.
    Url,
    /// A TOML integer.
    Number,
}

/// When a key's value can change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Changes {
    /// While the gateway runs.
    Now,
    /// When the files are read again, and not over the API: it says whose tokens count, and who could say so could speak as
    /// anybody.
    AtReload,
    /// It is read at a start.
    AtStart,
}

/// Keys that can change while the gateway runs, beside those of policies.
const CHANGES_NOW: [&str; 36] = [
    "auth.hs256_secret_file",
    "auth.public_key_file",
    "auth.eddsa_public_key_file",
    "auth.jwks_file",
    "auth.issuer",
    "auth.other_key_files",
    "auth.audience",
    "session.heartbeat_s",
    "session.heartbeat_max_s",
    "session.login_timeout_s",
    "session.devices_max",
    "session.device_policy",
    "session.stall_timeout_s",
    "store.linger_ms",
    "store.retention_days",
    "drain.notice_s",
    "drain.timeout_s",
    "log.level",
    "limits.address_logins",
    "limits.user_logins",
    "limits.session_requests",
    "limits.user_refusals",
    "limits.user_bytes_out",
    "limits.user_presence",
    "limits.session_sends",
    "limits.session_bytes",
    "limits.user_sends",
    "limits.user_bytes",
    "limits.conversation_bytes",
    "limits.user_rows",
    "limits.user_groups_made",
    "limits.user_members_added",
    "limits.user_recipients_new",
    "limits.user_unstored_percent",
    "limits.group_sends",
    "limits.group_rows",
];

impl Key {
    /// When its value can change.
    pub(crate) fn changes(&self) -> Changes {
        match self.name.starts_with("policy.") || CHANGES_NOW.contains(&self.name) {
            true if self.name.starts_with("auth.") => Changes::AtReload,
            true => Changes::Now,
            false => Changes::AtStart,
        }
    }
}

const fn key(name: &'static str, default: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, default, form, about }
}

/// Every key, in the order in which `--print-config` shows them: plain ones first, then table by table.
pub(crate) const KEYS: &[Key] = &[
    key("listen", "127.0.0.1:7400", Form::Text, "where clients connect; port 0: any free one"),
    key("admin", "127.0.0.1:7401", Form::Text, "health, metrics and the API over HTTP; port 0: any free one"),
    key("data_dir", "ringway-data", Form::Text, "journal, embedded store, lock and development secret"),
    key("shards", "auto", Form::Text, "how many shards; auto: as many as there are CPUs to give them"),
    key("cpus", "", Form::Text, "CPUs the gateway may use, as in \"0,2-3\"; empty: all it is allowed to"),
    key("api.listen", "", Form::Text, "where the API alone is served, as in 0.0.0.0:7402; empty: on admin"),
    key(
        "api.keys_file",
        "",
        Form::Text,
        "who may call the API, a line each: NAME SCOPE[,SCOPE] KEY; empty: on a loopback address this machine's programs",
    ),
    key(
        "api.metrics",
        "open",
        Form::Text,
        "who may read /metrics: open (anybody who reaches it) or key (whoever has a key with the scope read)",
    ),
    key("auth.hs256_secret", "", Form::Secret, "verifies tokens: a shared secret of at least 32 bytes"),
    key("auth.hs256_secret_file", "", Form::Text, "a file that holds the shared secret"),
    key(
        "auth.public_key_file",
        "",
        Form::Text,
        "verifies tokens: a public key, PEM: Ed25519, RSA (2048 bits and more) or P-256",
    ),
    key("auth.eddsa_public_key_file", "", Form::Text, "the same, by its former name"),
    key(
        "auth.jwks_file",
        "",
        Form::Text,
        "verifies tokens: several keys, a JSON Web Key Set; a token's kid says which",
    ),
    key("auth.issuer", "", Form::Text, "tokens must be made by it (their claim iss); empty: iss is not looked at"),
    key(
        "auth.other_key_files",
        "",
        Form::Text,
        "files with keys that are good beside it, each as one of these, with commas between: while keys change",
    ),
    key("auth.audience", "", Form::Text, "tokens must be made for it (their claim aud); empty: aud is not looked at"),
    key("session.heartbeat_s", "25", Form::Number, "a client that is silent for two and a half of these is gone"),
    key("session.heartbeat_max_s", "300", Form::Number, "the longest heartbeat that a client may ask for"),
    key("session.login_timeout_s", "10", Form::Number, "a connection must have logged in by then"),
    key("session.devices_max", "8", Form::Number, "sessions of one user at a time"),
    key("session.device_policy", "replace-oldest", Form::Text, "above devices_max: replace-oldest or refuse-new"),
    key("session.stall_timeout_s", "30", Form::Number, "a connection that takes no byte for so long is closed"),
    key(
        "store.url",
        "sqlite:",
        Form::Url,
        "sqlite: keeps the store in data_dir; or mysql://USER:PASSWORD@HOST:PORT/DATABASE",
    ),
    key(
        "store.linger_ms",
        "500",
        Form::Number,
        "how long the store waits for more rows, while more come, before it writes",
    ),
    key("store.batch_rows", "500", Form::Number, "rows of one insert"),
    key("store.retention_days", "0", Form::Number, "messages older than so many days are deleted; 0: never"),
    key("store.pool_size", "4", Form::Number, "connections to a database server: one writes, the others read"),
    key(
        "cluster.redis_url",
        "",
        Form::Secret,
        "redis://... or redis-cluster://...: the ledger that several gateways share; empty: this one alone",
    ),
    key(
        "cluster.buckets",
        "1",
        Form::Number,
        "1 to 16, the same on every node: parts of the ledger, over several masters",
    ),
    key("cluster.node_id", "0", Form::Number, "0 to 1023, another one on every node: part of each message id"),
    key("drain.notice_s", "0", Form::Number, "so long before a stop /readyz says no while everybody is served"),
    key("drain.timeout_s", "30", Form::Number, "a stop that takes longer gives up; 0: it does not wait for clients"),
    key(
        "drain.spread_s",
        "10",
        Form::Number,
        "clients are sent away over so many seconds; where there is no other node, they come back spread over them",
    ),
    key(
        "log.level",
        "info",
        Form::Text,
        "off, error, warn, info, debug, trace, or parts with a level each: warn,ringway=debug",
    ),
    key("log.format", "auto", Form::Text, "human, json, or auto: human on a terminal"),
    key(
        "webhooks.endpoints_file",
        "",
        Form::Text,
        "who is told over HTTP what happens: a TOML file with an [[endpoint]] for each; empty: nobody",
    ),
    key(
        "webhooks.journal_bytes",
        WEBHOOKS_JOURNAL_BYTES,
        Form::Number,
        "journal that is kept for them, stored or not: what an endpoint that is down may miss before it loses something",
    ),
    key(
        "policy.direct_messages",
        "anyone",
        Form::Text,
        "who may write to another user: anyone, shared-group (who is in a group with that user) or nobody",
    ),
    key("policy.group_creation", "anyone", Form::Text, "who may make a group: anyone or nobody"),
    key(
        "policy.adding_members",
        "anyone",
        Form::Text,
        "who may make others members of a group, of a new one too: anyone, shared-group or nobody",
    ),
    key("policy.presence", "anyone", Form::Text, "who may ask who is online: anyone, shared-group or nobody"),
    key(
        "limits.connections_max",
        CONNECTIONS_MAX,
        Form::Number,
        "connections of the whole gateway, logged in; the default is reduced to what the host can keep",
    ),
    key(
        "limits.unauthenticated_max",
        UNAUTHENTICATED_MAX,
        Form::Number,
        "connections that have not logged in, beside those; above, the oldest of them goes",
    ),
    key(
        "limits.unauthenticated_per_address_max",
        UNAUTHENTICATED_PER_ADDRESS_MAX,
        Form::Number,
        "the same of one address (of one /64 with IPv6); behind a proxy, as many as unauthenticated_max",
    ),
    key(
        "limits.outbox_bytes_max",
        OUTBOX_BYTES_MAX,
        Form::Number,
        "bytes waiting for one connection; at least 131072, or it could not hold a page",
    ),
    key(
        "limits.outbox_bytes_per_shard_max",
        OUTBOX_SHARD_BYTES_MAX,
        Form::Number,
        "the same, for all of a shard; at least 1048576",
    ),
    key(
        "limits.journal_bytes_max",
        JOURNAL_BYTES_MAX,
        Form::Number,
        "journal not yet in the store; above: STORAGE_FULL",
    ),
    key(
        "limits.stream_entries_max",
        STREAM_ENTRIES_MAX,
        Form::Number,
        "of a cluster's stream, messages not yet in MySQL; above: STORAGE_FULL",
    ),
    key(
        "limits.names_s",
        "900",
        Form::Number,
        "15 to 900, the same on every node: how long Redis keeps names; less than 900 is for tests",
    ),
    key("limits.address_logins", ADDRESS_LOGINS, Form::Text, "logins of one address (one /64 with IPv6) to one shard"),
    key("limits.user_logins", USER_LOGINS, Form::Text, "logins of one user"),
    key("limits.session_requests", SESSION_REQUESTS, Form::Text, "requests of one session"),
    key("limits.user_refusals", USER_REFUSALS, Form::Text, "refusals of one user; above, it is not read from"),
    key("limits.user_bytes_out", USER_BYTES_OUT, Form::Text, "bytes of long replies to one user; above, they wait"),
    key("limits.user_presence", USER_PRESENCE, Form::Text, "users that a user asks for whether they are online"),
    key(
        "limits.session_sends",
        SESSION_SENDS,
        Form::Text,
        "messages of one session; above: RETRY_LATER; off: not limited",
    ),
    key("limits.session_bytes", SESSION_BYTES, Form::Text, "bytes of their bodies"),
    key("limits.user_sends", USER_SENDS, Form::Text, "messages of all of a user's sessions"),
    key("limits.user_bytes", USER_BYTES, Form::Text, "bytes of all of them"),
    key(
        "limits.conversation_bytes",
        CONVERSATION_BYTES,
        Form::Text,
        "bytes that a user sends to one other user, or to one group",
    ),
    key("limits.user_rows", USER_ROWS, Form::Text, "rows that a user's messages make, one a recipient"),
    key("limits.user_groups_made", USER_GROUPS_MADE, Form::Text, "groups that a user makes"),
    key("limits.user_members_added", USER_MEMBERS_ADDED, Form::Text, "members that a user adds, in new groups too"),
    key(
        "limits.user_groups_bytes_max",
        USER_GROUPS_BYTES_MAX,
        Form::Number,
        "memory of the groups that a user has made, whether still in them or not; above: TOO_MANY_GROUPS",
    ),
    key(
        "limits.user_recipients_new",
        USER_RECIPIENTS_NEW,
        Form::Text,
        "users nobody has written to before that a user writes to",
    ),
    key(
        "limits.user_unstored_percent",
        USER_UNSTORED_PERCENT,
        Form::Number,
        "what of journal_bytes_max, of the tail and of stream_entries_max one user may have; above: RETRY_LATER",
    ),
    key("limits.group_sends", GROUP_SENDS, Form::Text, "messages to one group, whoever sends them"),
    key("limits.group_rows", GROUP_ROWS, Form::Text, "rows that they make"),
    key("limits.memory_bytes_max", "auto", Form::Text, "memory of the process; auto: 9/10 of the host's"),
    key(
        "limits.turn_ms",
        "1",
        Form::Number,
        "how long logging in, asking or delivering may let the others wait; more where the CPU is emulated",
    ),
];

// The defaults are text here and numbers in `limits`; a test holds them together.
const CONNECTIONS_MAX: &str = "1000000";
const UNAUTHENTICATED_MAX: &str = "20000";
const UNAUTHENTICATED_PER_ADDRESS_MAX: &str = "5000";
const OUTBOX_BYTES_MAX: &str = "262144";
const OUTBOX_SHARD_BYTES_MAX: &str = "536870912";
const JOURNAL_BYTES_MAX: &str = "8589934592";
const STREAM_ENTRIES_MAX: &str = "1048576";
const WEBHOOKS_JOURNAL_BYTES: &str = "1073741824";
const ADDRESS_LOGINS: &str = "10000/s, burst 100000";
const USER_LOGINS: &str = "2/s, burst 200";
const SESSION_REQUESTS: &str = "1000/s, burst 20000";
const USER_REFUSALS: &str = "200/s, burst 2000";
const USER_BYTES_OUT: &str = "4194304/s, burst 33554432";
const USER_PRESENCE: &str = "2000/s, burst 50000";
const SESSION_SENDS: &str = "500/s, burst 10000";
const SESSION_BYTES: &str = "2097152/s, burst 33554432";
const USER_SENDS: &str = "1000/s, burst 20000";
const USER_BYTES: &str = "4194304/s, burst 67108864";
const CONVERSATION_BYTES: &str = "1048576/s, burst 16777216";
const USER_ROWS: &str = "50000/s, burst 1000000";
const USER_GROUPS_MADE: &str = "10/s, burst 1000";
const USER_MEMBERS_ADDED: &str = "2000/s, burst 200000";
const USER_GROUPS_BYTES_MAX: &str = "134217728";
const USER_RECIPIENTS_NEW: &str = "20/s, burst 5000";
const USER_UNSTORED_PERCENT: &str = "25";
const GROUP_SENDS: &str = "2000/s, burst 40000";
const GROUP_ROWS: &str = "100000/s, burst 2000000";

/// Keys of the table `[limits]`.
const LIMITS_KEYS_MAX: usize = 29;

const _: () = {
    assert!(KEYS.len() <= 41 + LIMITS_KEYS_MAX, "at most 41 keys and the [limits] table");
    assert!(limits::OUTBOX_BYTES_MAX == 262_144 && limits::OUTBOX_SHARD_BYTES_MAX == 536_870_912);
    assert!(limits::JOURNAL_BYTES_MAX == 8_589_934_592 && limits::CONNECTIONS_MAX == 1_000_000);
    assert!(limits::STORE_LINGER_MS == 500 && limits::BATCH_ROWS == 500 && limits::MYSQL_POOL_SIZE == 4);
    assert!(limits::UNAUTHENTICATED_MAX == 20_000 && limits::UNAUTHENTICATED_PER_ADDRESS_MAX == 5_000);
    assert!(limits::TURN_MS == 1 && limits::WEBHOOKS_JOURNAL_BYTES == 1_073_741_824);
};
