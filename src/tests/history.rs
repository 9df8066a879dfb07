//! What a dozen talking users sent and received, compared with what every inbox has in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ringway_client::{Event, Row};
use ringway_wire::ids::{Conversation, GroupId, MsgId, Seq, UserId};
use ringway_wire::schema::ErrorCode;

use crate::connection::ConnectionError;
use crate::gateway::{Gateway, PATIENCE, pause};
use crate::traffic::{Orders, User};

/// Users who talk.
pub(crate) const USERS: u64 = 12;

/// Who is in which group.
pub(crate) type Groups = BTreeMap<GroupId, BTreeSet<UserId>>;

/// Groups of some of the users.
pub(crate) fn make_groups(gateway: &Gateway) -> Groups {
    let mut groups = Groups::new();
    for members in [2..=USERS, 1..=USERS / 2, 4..=9] {
        let members: BTreeSet<UserId> = members.map(UserId).collect();
        let owner = *members.first().unwrap();
        let others: Vec<UserId> = members.iter().copied().filter(|user| *user != owner).collect();
        let mut client = gateway.client(owner.0, 99, None);
        let mut made = client.group_create(&others, PATIENCE);
        while let Err(ConnectionError::Refused { code: ErrorCode::RetryLater, retry_after_ms, .. }) = made {
            pause(Duration::from_millis(retry_after_ms.into()));
            made = client.group_create(&others, PATIENCE);
        }
        groups.insert(made.unwrap().0, members);
    }
    groups
}

/// A thread for each user; they connect to the gateways in these directories, in turn.
pub(crate) fn start_users(dirs: &[&Path], groups: &Groups, orders: &Arc<Orders>, seed: u64) -> Vec<JoinHandle<User>> {
    let everybody: Vec<UserId> = (1..=USERS).map(UserId).collect();
    everybody
        .iter()
        .map(|id| {
            let mine = groups.iter().filter(|(_, members)| members.contains(id)).map(|(group, _)| *group).collect();
            let dir = dirs[id.0 as usize % dirs.len()];
            let user = User::new(*id, dir, mine, everybody.clone(), Arc::clone(orders), seed);
            std::thread::spawn(move || user.run())
        })
        .collect()
}

/// Reads every inbox from its first row and compares it with what was sent, acked and received.
pub(crate) fn check(gateway: &Gateway, users: &[User], groups: &Groups) {
    let mut acked: BTreeMap<MsgId, (UserId, Conversation, Vec<u8>)> = BTreeMap::new();
    for user in users {
        for sent in &user.sent {
            let (msg_id, _) = sent.acked.expect("everything is acked in the end");
            let other = acked.insert(msg_id, (user.id, sent.to, sent.body.clone()));
            assert!(other.is_none(), "two messages share {msg_id:?}");
        }
    }
    for user in users {
        let inbox = read_inbox(gateway, user.id);
        for (at, row) in inbox.iter().enumerate() {
            assert_eq!(row.seq, Seq(at as u64 + 1), "user {}: the inbox has a hole", user.id);
            let (sender, to, body) = acked.get(&row.msg_id).expect("nothing is in an inbox that nobody sent");
            assert_eq!((&row.sender, &row.to, &row.body), (sender, to, body), "user {}", user.id);
        }
        let stored: BTreeSet<MsgId> = inbox.iter().map(|row| row.msg_id).collect();
        assert_eq!(stored.len(), inbox.len(), "user {}: a message is in the inbox twice", user.id);
        let due: BTreeSet<MsgId> = acked
            .iter()
            .filter(|(_, (sender, to, _))| match to {
                Conversation::User(recipient) => *sender == user.id || *recipient == user.id,
                Conversation::Group(group) => groups[group].contains(&user.id),
            })
            .map(|(msg_id, _)| *msg_id)
            .collect();
        assert_eq!(stored, due, "user {}: lost, or delivered to the wrong one", user.id);
        assert_eq!(user.rows.len(), inbox.len(), "user {}: came back and did not receive all of it", user.id);
        for (seq, row) in &user.rows {
            assert_eq!(row, &inbox[seq.0 as usize - 1], "user {}: a seq changed its message", user.id);
        }
        for sent in &user.sent {
            let (msg_id, seq) = sent.acked.unwrap();
            assert_eq!(inbox[seq.0 as usize - 1].msg_id, msg_id, "user {}: SendOk named another row", user.id);
        }
    }
    println!("{} messages, {} rows", acked.len(), users.iter().map(|u| u.rows.len()).sum::<usize>());
}

fn read_inbox(gateway: &Gateway, user: UserId) -> Vec<Row> {
    // Another device than the user's own, so that nothing of the session's own catching up is reused.
    let mut client = gateway.returning_client(user.0, 77, None);
    let mut inbox = Vec::new();
    let mut after = Seq(0);
    loop {
        let page = client.sync(after, 200, PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
        let Event::Page { rows, through, end, gap_to, .. } = page else {
            panic!("a page was asked for");
        };
        assert_eq!(gap_to, None);
        inbox.extend(rows);
        if end {
            return inbox;
        }
        assert!(through > after);
        after = through;
    }
}
