//! Who may write to whom, where the operator says that it takes a group that both are in.

use super::*;
use crate::contract::policies::{Permission, Policies, Rules, SessionRules};

fn ledger() -> Ledger {
    let policies = Policies {
        direct_messages: Permission::SharedGroup,
        adding_members: Permission::SharedGroup,
        ..Policies::default()
    };
    Ledger::with(Settings { policies, ..Settings::new(SHARDS, 7) })
}

#[test]
fn who_shares_no_group_may_not_write_but_a_repeat_is_answered_and_the_api_may() {
    let mut ledger = ledger();
    // The first group is made over the API: nobody shares one yet.
    let api = Origin::new(SessionRef { shard: ShardId::of_api(SHARDS), conn: ConnId::default() }, 9);
    let change = GroupChange::Create(vec![UserId(2)]);
    let submission = ChangeSubmission { origin: api, actor: UserId(1), change, adding: Adding::All };
    ledger.engine.submit(ledger.now, Submission::Change(submission));
    let mut out: Vec<Vec<Delivery>> = (0..=SHARDS).map(|_| Vec::new()).collect();
    ledger.engine.commit(ledger.now, &mut out).unwrap();
    let Some(Delivery::Changed { roster, .. }) = out.pop().and_then(|mut of_api| of_api.pop()) else {
        panic!("the API makes the group")
    };

    let (name, other) = (ledger.name(), ledger.name());
    ledger.direct(1, 1, 2, name, b"hello");
    ledger.direct(2, 1, 3, other, b"hello");
    ledger.direct(3, 1, 1, other, b"to oneself");
    ledger.change(4, 1, GroupChange::Create(vec![UserId(2), UserId(3)]));
    let answers = ledger.answers();
    assert!(matches!(answers[0], (1, Answer::Sent { .. })), "{answers:?}");
    assert_eq!(answers[1], (2, Answer::Refused(ErrorCode::NotAllowed)));
    assert!(matches!(answers[2], (3, Answer::Sent { .. })), "what was refused took no name: {answers:?}");
    assert_eq!(answers[3], (4, Answer::Refused(ErrorCode::NotAllowed)));

    ledger.change(5, 2, GroupChange::Leave(roster.group));
    ledger.direct(6, 1, 2, name, b"hello");
    let again = ledger.name();
    ledger.direct(7, 1, 2, again, b"hello again");
    let answers = ledger.answers();
    assert!(matches!(answers[1], (6, Answer::Repeat { .. })), "{answers:?}");
    assert_eq!(answers[2], (7, Answer::Refused(ErrorCode::NotAllowed)), "they share none any more");

    let rules =
        Rules { traffic: TrafficLimits::UNLIMITED, policies: Policies::default(), sessions: SessionRules::UNCHANGED };
    ledger.engine.set_rules(rules);
    ledger.direct(8, 1, 2, again, b"hello again");
    assert!(matches!(ledger.answers()[..], [(8, Answer::Sent { .. })]));
}
