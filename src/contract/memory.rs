//! How short of memory the process is.

/// What is done about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Pressure {
    /// Nothing: there is room.
    #[default]
    None,
    /// Nobody more is let in.
    NoLogins,
    /// And those sessions end for which most is held.
    CloseGreediest,
}
