//! A client's session as one who measures a gateway reads it: what is out of order is counted, and it goes on.
//!
//! The protocol is [`ringway_client`]'s. What always holds: a row is out of order once, and the next one is due behind it;
//! whatever else does not fit the session is an error, as for everybody.

use ringway_client::{Incoming, Now, RowPlace, Session, SessionError};
use ringway_wire::ids::Seq;

/// Reads a frame; rows that should have come before it are counted in `out_of_order`, and passed over.
pub(crate) fn receive<'a>(
    session: &mut Session,
    now: Now,
    frame: &'a [u8],
    out_of_order: &mut u64,
) -> Result<Incoming<'a>, SessionError> {
    match session.receive(now, frame) {
        Err(SessionError::OutOfOrder { got, .. }) => {
            *out_of_order += 1;
            session.pass_over(before(got));
            session.receive(now, frame)
        }
        read => read,
    }
}

/// The same for a copy of a push that was read already.
pub(crate) fn receive_copy(session: &mut Session, now: Now, seq: Seq) -> Result<RowPlace, SessionError> {
    match session.receive_copy(now, seq) {
        Err(SessionError::OutOfOrder { got, .. }) => {
            session.pass_over(before(got));
            session.receive_copy(now, seq)
        }
        taken => taken,
    }
}

fn before(seq: Seq) -> Seq {
    Seq(seq.0.saturating_sub(1))
}
