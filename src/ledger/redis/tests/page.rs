//! The page about clusters has every state and every stage that there is, and no other.

use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../cluster/README.md");

/// The variants of an enum, as its source has them.
fn variants(source: &str, name: &str) -> BTreeSet<String> {
    let body = source.split_once(&format!("enum {name} {{")).unwrap().1.split_once("\n}").unwrap().0;
    let lines =
        body.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.starts_with(char::is_uppercase));
    lines.map(|line| line.chars().take_while(|c| c.is_alphanumeric()).collect()).collect()
}

/// The first column of the table whose head begins so, without its marks.
fn first_column(head: &str) -> BTreeSet<String> {
    let table = PAGE.split_once(&format!("\n| {head} |")).unwrap().1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').nth(1).unwrap().trim().trim_matches('`').to_owned()).collect()
}

#[test]
fn the_table_of_states_has_those_that_a_session_has() {
    let states = variants(include_str!("../session.rs"), "Session");
    assert!(states.len() > 5, "{states:?}");
    assert_eq!(first_column("state"), states);
}

#[test]
fn the_table_of_stages_has_those_that_a_submission_has() {
    let stages = variants(include_str!("../submitter/in_flight.rs"), "Stage");
    let mut told = first_column("stage");
    // What waits for the store before it is taken has no number, and is not in the table.
    assert!(told.remove("pending"));
    assert_eq!(told, stages.iter().map(|stage| stage.to_lowercase()).collect());
}
