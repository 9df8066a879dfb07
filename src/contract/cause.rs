//! Why a database refused, in one word: the label of a metric.
//!
//! What always holds: whatever the database, the same trouble has the same name.

/// See each variant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    /// No connection, or it was lost.
    Connection,
    /// No answer in time.
    Timeout,
    /// The database takes no writes.
    ReadOnly,
    /// The database's disk is full.
    Full,
    /// The user or the password is wrong, or a privilege is missing.
    Denied,
    /// The database that the URL names is not there.
    NoDatabase,
    /// The tables are missing, of another version, or of something else.
    Schema,
    /// A statement is longer than the database takes (`max_allowed_packet`).
    Packet,
    /// A deadlock, or a lock that was not given in time.
    Lock,
    /// A row is there already that should not be, or does not fit.
    Constraint,
    /// What is stored is damaged or contradicts itself.
    Damage,
    /// Another gateway writes into the same database.
    Taken,
    /// The journal could not be read; the database is well.
    Journal,
    /// Something else; the error says what.
    Other,
}

impl Cause {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::ALL.len();
    /// All of them, in the order of their declaration.
    pub(crate) const ALL: [Cause; 14] = [
        Cause::Connection,
        Cause::Timeout,
        Cause::ReadOnly,
        Cause::Full,
        Cause::Denied,
        Cause::NoDatabase,
        Cause::Schema,
        Cause::Packet,
        Cause::Lock,
        Cause::Constraint,
        Cause::Damage,
        Cause::Taken,
        Cause::Journal,
        Cause::Other,
    ];

    /// As metrics and logs name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cause::Connection => "connection",
            Cause::Timeout => "timeout",
            Cause::ReadOnly => "read_only",
            Cause::Full => "full",
            Cause::Denied => "denied",
            Cause::NoDatabase => "no_database",
            Cause::Schema => "schema",
            Cause::Packet => "packet",
            Cause::Lock => "lock",
            Cause::Constraint => "constraint",
            Cause::Damage => "damage",
            Cause::Taken => "taken",
            Cause::Journal => "journal",
            Cause::Other => "other",
        }
    }
}
