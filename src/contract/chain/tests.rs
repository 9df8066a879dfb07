#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Told(&'static str, #[source] Option<Box<Told>>);

fn check(texts: &[&'static str], expected: &str) {
    let told = texts.iter().rev().fold(None, |source, text| Some(Box::new(Told(text, source))));
    assert_eq!(told.map(|told| Chain(&*told).to_string()).as_deref(), Some(expected));
}

#[test]
fn an_error_is_said_with_all_that_it_comes_from_and_nothing_twice() {
    check(&["alone"], "alone");
    check(&["not written", "no answer", "cable cut"], "not written: no answer: cable cut");
    check(&["not written", "server said `full`", "full"], "not written: server said `full`");
}
