//! The way to the database is cut, and nobody is told: nothing is answered, and nothing ends.

use ringway_client::Event;
use ringway_wire::ids::{Conversation, Seq, UserId};
use ringway_wire::schema::CloseReason;

use crate::cluster::send;
use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE};
use crate::outage::{is_there, metric};
use crate::proxy::Proxy;
use crate::redis::{Ledger, Redis};
use crate::services::Database;

#[test]
fn a_session_whose_rows_no_database_gives_is_told_so_on_one_machine() {
    whose_rows_cannot_be_read_is_told_so(&[]);
}

#[test]
fn a_session_whose_rows_no_database_gives_is_told_so_in_a_cluster() {
    let redis = Redis::start();
    let mut settings = redis.settings();
    settings.push("cluster.node_id=1".to_owned());
    whose_rows_cannot_be_read_is_told_so(&settings);
}

fn whose_rows_cannot_be_read_is_told_so(settings: &[String]) {
    let database = Database::create();
    let (way, url) = Proxy::to_url(&database.url());
    let dir = tempfile::tempdir().unwrap();
    let url = format!("store.url={url}");
    let mut arguments = vec!["--shards", "1", "--set", &url];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    let mut gateway = Gateway::start(dir.path(), &arguments);
    let to = Conversation::User(UserId(2));
    let mut sender = gateway.client(1, 1, None);
    let mut live = gateway.client(2, 1, Some(Seq(0)));
    for index in 1..=5 {
        send(&mut sender, to, &format!("before {index}"));
    }
    // What it has not heard to be stored it gives without the database.
    gateway
        .wait_until("they are stored, and it knows", |gateway| metric(gateway, "ringway_store_rows_total") == Some(10));
    assert_eq!(database.count("inbox"), 10);
    (1..=5).for_each(|seq| hears(&mut live, seq));

    way.cut();
    // The rows from the first on are in the database alone.
    let mut behind = gateway.client(2, 2, Some(Seq(0)));
    match behind.next(PATIENCE).unwrap() {
        Some(Event::Closing { reason: CloseReason::StoreUnavailable, reconnect_after_ms: Some(_), .. }) => {}
        other => panic!("expected Closing(StoreUnavailable), heard {other:?}\n{}", gateway.log()),
    }
    // Whoever has them goes on as before, and so does who comes with the newest.
    let sixth = send(&mut sender, to, "meanwhile");
    hears(&mut live, sixth);
    let mut up_to_date = gateway.client(2, 3, Some(Seq(sixth)));
    let seventh = send(&mut sender, to, "meanwhile as well");
    [&mut live, &mut up_to_date].into_iter().for_each(|client| hears(client, seventh));
    [&mut live, &mut up_to_date, &mut sender].into_iter().for_each(is_there);

    way.mend();
    let mut all = None;
    gateway.wait_until("the rows can be read again", |gateway| {
        let mut client = gateway.returning_client(2, 2, Some(Seq(0)));
        let first = client.next(PATIENCE).unwrap();
        let has_begun = matches!(&first, Some(Event::Row(row)) if row.seq == Seq(1));
        assert!(has_begun || matches!(first, Some(Event::Closing { reason: CloseReason::StoreUnavailable, .. })));
        all = has_begun.then_some(client);
        has_begun
    });
    let mut all = all.unwrap();
    (2..=seventh).for_each(|seq| hears(&mut all, seq));
}

/// The next thing that a client hears is this row.
fn hears(client: &mut Connection, seq: u64) {
    match client.next(PATIENCE).unwrap() {
        Some(Event::Row(row)) => assert_eq!(row.seq, Seq(seq)),
        other => panic!("expected row {seq}, heard {other:?}"),
    }
}
