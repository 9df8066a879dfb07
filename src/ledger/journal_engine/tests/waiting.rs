//! What waits for the store, and what waits behind that.

use super::*;

#[test]
fn what_a_sender_sends_behind_an_old_name_is_not_stored_before_it() {
    let mut ledger = Ledger::new();
    let old = ClientMsgId::from_parts(TIME - 30 * 60_000, 1);
    let older = ClientMsgId::from_parts(TIME - 60 * 60_000, 1);
    let (new, newest) = (ledger.name(), ledger.name());
    for (request, name) in [(1, old), (2, new), (3, older), (4, newest)] {
        ledger.direct(request, 1, 2, name, b"body");
    }
    // Nobody else waits for them.
    let others = ledger.name();
    ledger.direct(9, 5, 2, others, b"body");
    assert!(matches!(ledger.answers()[..], [(9, Answer::Sent { .. })]));
    let mut lookups = Vec::new();
    ledger.engine.take_lookups(&mut lookups);
    let [first, second] = lookups[..] else { panic!("{lookups:?}") };
    // The second is answered first: it has its turn when the first has had it.
    ledger.engine.found(ledger.now, LookupAnswer { lookup: second, found: LookupFound::Nothing });
    assert_eq!(ledger.answers(), []);
    ledger.engine.found(ledger.now, LookupAnswer { lookup: first, found: LookupFound::Nothing });
    let seqs: Vec<(u32, u64)> = ledger
        .answers()
        .into_iter()
        .map(|(request, answer)| match answer {
            Answer::Sent { seq, .. } => (request, seq),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seqs, [(1, 1), (2, 2), (3, 3), (4, 4)]);
    assert!(!ledger.engine.has_more());
}

#[test]
fn what_waits_behind_a_name_that_the_store_could_not_look_up_is_not_stored_before_it() {
    let mut ledger = Ledger::new();
    let new = ledger.name();
    ledger.direct(1, 1, 2, ClientMsgId::from_parts(TIME - 30 * 60_000, 1), b"body");
    ledger.direct(2, 1, 2, new, b"body");
    let mut lookups = Vec::new();
    ledger.engine.take_lookups(&mut lookups);
    ledger.engine.found(ledger.now, LookupAnswer { lookup: lookups[0], found: LookupFound::Unavailable });
    let refused = Answer::Refused(ErrorCode::RetryLater);
    assert_eq!(ledger.answers(), [(1, refused.clone()), (2, refused)]);
}

#[test]
fn one_sender_takes_nobody_elses_room_to_wait() {
    let mut ledger = Ledger::new();
    for index in 0..LOOKUPS_PENDING_SENDER_MAX as u32 + 1 {
        ledger.direct(index, 1, 2, ClientMsgId::from_parts(TIME - 30 * 60_000, u128::from(index) << 16), b"body");
    }
    ledger.direct(9_999, 3, 2, ClientMsgId::from_parts(TIME - 30 * 60_000, 1), b"body");
    let last = LOOKUPS_PENDING_SENDER_MAX as u32;
    assert_eq!(ledger.answers(), [(last, Answer::Refused(ErrorCode::RetryLater))]);
}

#[test]
fn an_old_name_is_looked_up_before_its_sender_is_refused_and_no_more_often_than_the_limit() {
    let mut ledger = Ledger::new();
    let roster = ledger.create(1, [3]);
    ledger.pass(WINDOW_MS + 10_000);
    ledger.commit();
    let lookup = |at: u32| {
        let client_msg_id = ClientMsgId::from_parts(TIME, u128::from(at) << 16);
        Lookup { sender: UserId(2), client_msg_id, generation: 0 }
    };
    let digest = digest(Conversation::Group(roster.group), b"to all");
    let stored = StoredMessage { msg_id: MsgId(77), seq: Seq(5), sent_at_ms: TIME, digest };
    let nobody = Arc::new(of_nobody(GroupId(4711)));
    ledger.group_named(1, 2, &roster, lookup(1).client_msg_id);
    ledger.group_named(2, 2, &roster, lookup(2).client_msg_id);
    ledger.group_named(3, 2, &nobody, lookup(3).client_msg_id);
    assert_eq!(ledger.answers(), [], "the store is asked first");
    let mut lookups = Vec::new();
    ledger.engine.take_lookups(&mut lookups);
    assert_eq!(lookups, [lookup(1), lookup(2), lookup(3)]);
    let found = [LookupFound::Stored(stored), LookupFound::Nothing, LookupFound::Nothing];
    for (lookup, found) in lookups.drain(..).zip(found) {
        ledger.engine.found(ledger.now, LookupAnswer { lookup, found });
    }
    let expected = [
        (1, Answer::Repeat { msg_id: 77, seq: 5 }),
        (2, Answer::Refused(ErrorCode::NotAMember)),
        (3, Answer::Refused(ErrorCode::UnknownGroup)),
    ];
    assert_eq!(ledger.answers(), expected);

    for at in 0..LOOKUPS_PENDING_SENDER_MAX as u32 + 1 {
        ledger.group_named(at, 2, &roster, lookup(at + 10).client_msg_id);
    }
    assert_eq!(ledger.answers(), [(LOOKUPS_PENDING_SENDER_MAX as u32, Answer::Refused(ErrorCode::RetryLater))]);
}

#[test]
fn no_more_than_the_limit_wait_for_the_store() {
    let mut ledger = Ledger::new();
    ledger.pass(WINDOW_MS + 10_000);
    ledger.commit();
    for at in 0..LOOKUPS_PENDING_MAX as u32 + 1 {
        let sender = u64::from(at) / LOOKUPS_PENDING_SENDER_MAX as u64 + 10;
        ledger.direct(at, sender, 2, ClientMsgId::from_parts(TIME, u128::from(at) << 16), b"x");
    }
    assert_eq!(ledger.answers(), [(LOOKUPS_PENDING_MAX as u32, Answer::Refused(ErrorCode::RetryLater))]);
}

#[test]
fn a_name_numbered_after_the_store_had_answered_and_forgotten_by_the_window_is_looked_up_again() {
    let mut ledger = Ledger::with(Settings { window_entries_max: 1, ..Settings::new(SHARDS, 7) });
    let [first, twice] = [1, 2].map(|random| ClientMsgId::from_parts(TIME - 30 * 60_000, random << 16));
    let other = ledger.name();
    let ask = |ledger: &mut Ledger| {
        let mut lookups = Vec::new();
        ledger.engine.take_lookups(&mut lookups);
        lookups
    };
    let nothing = |ledger: &mut Ledger, lookup| {
        ledger.engine.found(ledger.now, LookupAnswer { lookup, found: LookupFound::Nothing });
    };
    ledger.direct(1, 1, 2, first, b"body");
    ledger.direct(2, 1, 2, twice, b"body");
    let [of_first, of_twice] = ask(&mut ledger)[..] else { panic!("both are looked up") };
    nothing(&mut ledger, of_twice);
    ledger.direct(3, 1, 2, other, b"body");
    ledger.direct(4, 1, 2, twice, b"body");
    // Before the first asking of it has had its turn.
    let [again] = ask(&mut ledger)[..] else { panic!("it is looked up") };
    nothing(&mut ledger, again);
    assert_eq!(ledger.answers(), []);
    nothing(&mut ledger, of_first);
    let answers = ledger.answers();
    // The window has let the first go by now, whose name is older than the third's.
    let [(1, Answer::Sent { .. }), (2, Answer::Sent { msg_id, seq }), (3, Answer::Sent { .. })] = answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(ask(&mut ledger), [of_twice]);
    let digest = digest(Conversation::User(UserId(2)), b"body");
    let stored = StoredMessage { msg_id: MsgId(msg_id), seq: Seq(seq), sent_at_ms: TIME, digest };
    ledger.engine.found(ledger.now, LookupAnswer { lookup: of_twice, found: LookupFound::Stored(stored) });
    assert_eq!(ledger.answers(), [(4, Answer::Repeat { msg_id, seq })]);
}

#[test]
fn an_answer_that_was_asked_for_by_one_who_was_refused_does_not_pass_for_a_later_one() {
    let mut ledger = Ledger::with(Settings { window_entries_max: 1, ..Settings::new(SHARDS, 7) });
    let [first, twice] = [1, 2].map(|random| ClientMsgId::from_parts(TIME - 30 * 60_000, random << 16));
    ledger.direct(1, 1, 2, first, b"body");
    ledger.direct(2, 1, 2, twice, b"body");
    let mut lookups = Vec::new();
    ledger.engine.take_lookups(&mut lookups);
    let [of_first, of_twice] = lookups[..] else { panic!("both are looked up") };
    ledger.engine.found(ledger.now, LookupAnswer { lookup: of_first, found: LookupFound::Unavailable });
    assert_eq!(ledger.answers().len(), 2, "both are refused");
    // The store still looks it up: it is not asked twice at once.
    ledger.direct(3, 1, 2, twice, b"body");
    lookups.clear();
    ledger.engine.take_lookups(&mut lookups);
    assert_eq!(lookups, []);
    let [other, more] = [ledger.name(), ledger.name()];
    ledger.direct(4, 5, 2, other, b"body");
    ledger.direct(5, 5, 2, more, b"body");
    assert_eq!(ledger.answers().len(), 2);
    // Since it was asked the window has let something go: this is asked for again.
    ledger.engine.found(ledger.now, LookupAnswer { lookup: of_twice, found: LookupFound::Nothing });
    assert_eq!(ledger.answers(), []);
    ledger.engine.take_lookups(&mut lookups);
    assert_eq!(lookups, [of_twice]);
    ledger.engine.found(ledger.now, LookupAnswer { lookup: of_twice, found: LookupFound::Nothing });
    assert!(matches!(ledger.answers()[..], [(3, Answer::Sent { .. })]));
}
