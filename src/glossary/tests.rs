#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;

/// The words that names in the code are made of, in small letters: of `LaneEnvelope` and `lane_envelope` both.
fn words_of(text: &str, words: &mut BTreeSet<String>) {
    for line in text.lines().map(|line| line.split("//").next().unwrap_or_default()) {
        for name in line.split(|c: char| !c.is_ascii_alphanumeric()) {
            let mut word = String::new();
            for c in name.chars() {
                if c.is_ascii_uppercase() && !word.chars().last().is_some_and(|last| last.is_ascii_uppercase()) {
                    words.insert(std::mem::take(&mut word).to_lowercase());
                }
                word.push(c);
            }
            words.insert(word.to_lowercase());
        }
    }
}

fn read(dir: &Path, words: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, words);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("glossary/tests.rs") {
            words_of(&std::fs::read_to_string(path).unwrap(), words);
        }
    }
}

#[test]
fn the_glossary_has_no_word_that_the_code_does_not_use() {
    let mut words = BTreeSet::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut words);
    let rows = include_str!("../glossary.md").lines().skip_while(|line| *line != "|---|---|").skip(1);
    let mut explained = BTreeSet::new();
    for row in rows {
        let word = row.split('|').nth(1).unwrap().trim();
        let used = words.contains(word) || words.contains(&format!("{word}s"));
        assert!(used, "`{word}` is explained, and no name in the code has it");
        assert!(explained.insert(word), "`{word}` is explained twice");
    }
    assert!(explained.len() > 20, "the table is read: {explained:?}");
    assert!(!words.contains("seraphim"), "not every word is found");
}
