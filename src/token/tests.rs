#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

#[test]
fn durations_are_read_as_people_write_them() {
    let seconds = |text: &str| parse_duration(text).map(|d| d.as_secs());
    assert_eq!(seconds("90"), Ok(90));
    assert_eq!(seconds("90s"), Ok(90));
    assert_eq!(seconds("15m"), Ok(900));
    assert_eq!(seconds("1h30m"), Ok(5_400));
    assert_eq!(seconds("7d"), Ok(604_800));
    for bad in ["", "h", "1y", "-1s", "0s", "1.5h", "99999999999999999999s", "999999w"] {
        assert!(seconds(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_secret_file_is_trimmed_and_must_be_long_enough() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
    assert_eq!(read_secret(&path).unwrap(), b"0123456789abcdef0123456789abcdef");
    std::fs::write(&path, "short\n").unwrap();
    assert!(matches!(read_secret(&path), Err(KeyError::SecretTooShort { bytes: 5, .. })));
}
