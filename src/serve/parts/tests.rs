#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::contract::ids::Origin;
use crate::contract::message::Incoming;
use crate::contract::submission::MessageSubmission;
use ringway_wire::ids::{ClientMsgId, Conversation, UserId};

#[test]
fn the_store_is_not_woken_for_a_journal_that_has_not_grown() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Directory::open(directory.path()).unwrap();
    let now = Clock::start().now();
    let start = Start::new(Settings::new(1, 7), StorePosition::default());
    let (engine, _) = start.finish(disk, Arc::new(Progress::default()), now).unwrap();
    // As the ledger's loop has it. What a start finds is new to the store.
    let mut engine = LedgerEngine::Journal(Box::new(engine));
    assert!(engine.grew());
    let mut out = [Vec::new()];
    let mut grew_with = |submission: Submission| {
        engine.submit(now, submission);
        engine.commit(now, &mut out).unwrap();
        engine.grew()
    };
    let (origin, sender) = (Origin::default(), UserId(1));
    assert!(!grew_with(Submission::Position { origin, user: sender }));
    let client_msg_id = ClientMsgId::from_parts(now.unix_ms, 1);
    let incoming = Incoming::new(origin, sender, Conversation::User(UserId(2)), client_msg_id, b"one");
    let submission = MessageSubmission { incoming };
    assert!(grew_with(Submission::Message(submission)));
    assert!(!grew_with(Submission::Position { origin, user: sender }));
}
