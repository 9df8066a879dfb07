//! A node that stops while another one is there: its clients go to that one, one after another, and hardly notice.

use std::thread;
use std::time::{Duration, Instant};

use ringway_client::Event;
use ringway_wire::schema::CloseReason;

use crate::cluster::settings;
use crate::gateway::{Gateway, PATIENCE, log_in};
use crate::redis::Redis;
use crate::services::Database;

/// Clients of the node that stops.
const CLIENTS: u64 = 60;
/// Over how long they go.
const SPREAD: Duration = Duration::from_secs(4);

#[test]
fn the_clients_of_a_node_that_stops_are_served_until_their_turn_and_are_away_for_less_than_a_second() {
    let (redis, database) = (Redis::start(), Database::create());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let spread = format!("drain.spread_s={}", SPREAD.as_secs());
    let begin = |at: usize| {
        let settings = settings(&redis, &database, at as u16 + 1);
        let mut arguments = vec!["--shards", "2", "--set", &spread];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        Gateway::start(dirs[at].path(), &arguments)
    };
    let (mut leaves, mut stays) = (begin(0), begin(1));
    for node in [&mut leaves, &mut stays] {
        node.wait_until("it is ready", |node| node.admin_page("/readyz").starts_with("HTTP/1.1 200"));
        node.wait_until("it knows of the other", |node| {
            node.admin_page("/metrics").contains("ringway_cluster_nodes 2\n")
        });
    }
    let (from, to) = (leaves.addr(), stays.addr());
    let clients: Vec<_> = (1..=CLIENTS).map(|user| leaves.client(user, 1, None)).collect();
    leaves.wait_until("it reports them", |node| {
        let page = node.admin_page("/metrics");
        let sessions = page.lines().filter(|line| line.starts_with("ringway_connections{"));
        sessions.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>() == CLIENTS
    });
    leaves.terminate();
    let began = Instant::now();
    let away: Vec<_> = clients
        .into_iter()
        .zip(1..)
        .map(|(mut client, user)| {
            thread::spawn(move || {
                loop {
                    // Served until its turn.
                    let request = client.ping().unwrap();
                    match client.next(PATIENCE).unwrap().expect("an answer in time") {
                        Event::Pong { .. } => thread::sleep(Duration::from_millis(20)),
                        Event::Closing { reason, reconnect_after_ms, .. } => {
                            assert_eq!((reason, reconnect_after_ms), (CloseReason::Draining, Some(0)));
                            break;
                        }
                        other => panic!("{request:?}: {other:?}"),
                    }
                }
                let told = Instant::now();
                assert!(std::net::TcpStream::connect(from).is_err(), "the gateway still takes connections");
                let mut again = log_in(to, user, 1, None).unwrap();
                let away = told.elapsed();
                let request = again.ping().unwrap();
                assert!(matches!(again.answer(request, PATIENCE).unwrap(), Event::Pong { .. }));
                (told - began, away)
            })
        })
        .map(|client| client.join().unwrap())
        .collect();
    assert!(leaves.wait().success(), "{}", leaves.log());
    let first = away.iter().map(|(told, _)| *told).min().unwrap();
    let last = away.iter().map(|(told, _)| *told).max().unwrap();
    assert!(last - first > SPREAD / 2, "they go one after another: the first after {first:?}, the last after {last:?}");
    let mut away: Vec<Duration> = away.into_iter().map(|(_, away)| away).collect();
    away.sort_unstable();
    println!("away: half of them for less than {:?}, the longest for {:?}", away[away.len() / 2], away[away.len() - 1]);
    assert!(away[away.len() / 2] < Duration::from_secs(1), "most were away for long: {away:?}");
    drop(stays);
}
