#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;

#[test]
fn the_way_of_a_send_has_at_most_fifteen_steps_and_names_no_file_that_is_not_there() {
    let page = include_str!("../send.md");
    let steps =
        page.lines().filter(|line| line.split_once(". **").is_some_and(|(number, _)| number.parse::<u32>().is_ok()));
    assert!((5..=15).contains(&steps.count()));
    let named: Vec<&str> = page.split('`').filter(|text| text.starts_with("src/")).collect();
    assert!(named.len() > 10, "{named:?}");
    for path in named {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "{path}");
    }
}
