//! The program itself, on histories in files: its exit code is the verdict.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Command;

const GOOD: &str = r#"{"what":"sent","at_us":1,"who":{"user":1,"device":1},"connection":1,"to":{"user":1},"body":"a:b"}
{"what":"acked","at_us":2,"key":"a","connection":1,"msg_id":7,"seq":1,"own_row":true,"repeat":false}
{"what":"delivered","at_us":3,"who":{"user":1,"device":2},"row":{"seq":1,"msg_id":7,"sender":1,"to":{"user":1},"body":"a:b"}}
{"what":"inbox","user":1,"node":0,"row":{"seq":1,"msg_id":7,"sender":1,"to":{"user":1},"body":"a:b"}}
{"what":"inbox_read","user":1,"node":0,"last_seq":1}
{"what":"stored","user":1,"row":{"seq":1,"msg_id":7,"sender":1,"to":{"user":1},"body":"a:b"}}
{"what":"fault","at_us":1,"name":"a gateway killed","detail":"gateway 1","harm":"none"}
"#;

/// The exit code for a history, and what was printed.
fn checked(history: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("history.jsonl");
    std::fs::write(&file, history).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ringway-chaos")).arg("check").arg(&file).output().unwrap();
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), printed)
}

#[test]
fn the_exit_code_is_the_verdict() {
    let (code, printed) = checked(GOOD);
    assert_eq!(code, 0, "{printed}");
    // One line less: nothing was stored, delivered or disturbed, or something is lost.
    for (gone, words) in [("stored", "Lost: 1"), ("fault", "shows nothing"), ("\"inbox\"", "Lost: 1")] {
        let less: String = GOOD.lines().filter(|line| !line.contains(gone)).map(|line| format!("{line}\n")).collect();
        let (code, printed) = checked(&less);
        assert!(code == 1 && printed.contains(words), "without {gone}: {code}: {printed}");
    }
    let (code, printed) = checked("no history");
    assert!(code == 2 && printed.contains("line 1"), "{code}: {printed}");
}
