//! How a bench or a chat went.

/// How it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// As it should.
    Clean,
    /// Something was lost, doubled, out of order or not stored; the report says what.
    NotClean,
}
