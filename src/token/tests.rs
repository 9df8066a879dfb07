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
    assert_eq!(seconds("1y"), Ok(31_557_600));
    for bad in ["", "h", "-1s", "0s", "10ms", "0", "11y", "1 fortnight", "99999999999999999999s", "999999w"] {
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

#[test]
fn what_a_configuration_mints_it_accepts_and_says_of_others_exactly_what_is_wrong() {
    let config = |secret: &str| {
        let mut typed = crate::config::typed::Typed::defaults();
        typed.set_pair(&format!("auth.hs256_secret={secret}")).unwrap();
        Config::new(&typed).unwrap()
    };
    let ours = config("0123456789abcdef0123456789abcdef");
    let token = mint(&ours, UserId(42), None, Duration::from_secs(60)).unwrap();
    assert_eq!(check(&ours, &token, 0).unwrap().user, UserId(42));
    let late = check(&ours, &token, u64::MAX).unwrap_err();
    assert!(matches!(late, CheckError::Expired), "{late}");
    let theirs = check(&config("another secret of 32 bytes at least"), &token, 0).unwrap_err();
    assert!(matches!(theirs, CheckError::Invalid(TokenFault::Signature)), "{theirs}");
}
