//! What a host's clock does that is wrong for a moment, or for a while.

use super::*;
use crate::limits::{CLOCK_JUMP_LASTS_MS, LEDGER_AHEAD_MAX_MS};

const HOUR: u64 = 3_600_000;

impl Ledger {
    /// Sends one message under a name of now; its number, if it was stored without a look-up.
    fn sends(&mut self) -> Result<MsgId, Option<ErrorCode>> {
        let name = self.name();
        self.direct(1, 1, 2, name, b"body");
        match self.answers()[..] {
            [(1, Answer::Sent { msg_id, .. })] => Ok(MsgId(msg_id)),
            [(1, Answer::Refused(code))] => Err(Some(code)),
            [] => Err(None),
            ref answers => panic!("{answers:?}"),
        }
    }
}

#[test]
fn one_reading_of_a_clock_that_is_ahead_dates_nothing_and_sends_no_name_to_the_store() {
    for ahead in [HOUR, 365 * 24 * HOUR, 100 * 365 * 24 * HOUR, u64::MAX - TIME] {
        let mut ledger = Ledger::new();
        ledger.sends().unwrap();
        let right = ledger.now;
        ledger.now.unix_ms += ahead;
        // What is sent then, by somebody whose clock is right, is dated as it should be.
        let name = ClientMsgId::from_parts(TIME, 77);
        ledger.direct(9, 1, 2, name, b"body");
        let [(9, Answer::Sent { msg_id, .. })] = ledger.answers()[..] else { panic!("{ahead} ms") };
        assert!(MsgId(msg_id).sent_at_ms() <= TIME + 1_000, "{ahead} ms");
        ledger.now = right;
        for _ in 0..100 {
            ledger.pass(100);
            let sent_at_ms = ledger.sends().unwrap().sent_at_ms();
            assert!(sent_at_ms.abs_diff(ledger.now.unix_ms) < 1_000, "{ahead} ms: {sent_at_ms}");
        }
    }
}

#[test]
fn a_clock_that_was_an_hour_ahead_for_a_while_sends_no_name_to_the_store_when_it_is_right_again() {
    let mut ledger = Ledger::new();
    let mut last = ledger.sends().unwrap();
    ledger.now.unix_ms += HOUR;
    for _ in 0..100 {
        ledger.pass(1_000);
        ledger.sends().ok();
    }
    ledger.now.unix_ms -= HOUR;
    for second in 0..100 {
        ledger.pass(1_000);
        let sent = ledger.sends();
        let Ok(sent) = sent else { panic!("{second} s: {sent:?}") };
        assert!(sent > last, "ids rise");
        last = sent;
    }
    assert!(ledger.engine.ids.time_ms(ledger.now.unix_ms) <= ledger.now.unix_ms + LEDGER_AHEAD_MAX_MS);
}

#[test]
fn who_sends_after_a_host_was_suspended_is_told_to_come_again_until_its_clock_is_believed() {
    let mut ledger = Ledger::new();
    ledger.sends().unwrap();
    ledger.now.unix_ms += HOUR;
    assert_eq!(ledger.sends(), Err(Some(ErrorCode::RetryLater)));
    ledger.pass(CLOCK_JUMP_LASTS_MS - 1);
    assert_eq!(ledger.sends(), Err(Some(ErrorCode::RetryLater)));
    ledger.pass(1);
    assert_eq!(ledger.sends().unwrap().sent_at_ms(), ledger.now.unix_ms);
}
