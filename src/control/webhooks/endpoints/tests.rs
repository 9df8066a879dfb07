#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;

const GOOD: &str = r#"
[[endpoint]]
name = "push"
url = "https://example.com/hook"
events = ["message.offline", "group.changed"]
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
"#;

#[test]
fn an_endpoint_is_as_the_file_says_and_careful_where_it_says_nothing() {
    let endpoints = parse(GOOD).unwrap();
    let [endpoint] = &endpoints[..] else { panic!("{endpoints:?}") };
    assert_eq!((endpoint.name.as_str(), endpoint.grace_ms), ("push", 5_000));
    assert!(!endpoint.bodies && !endpoint.private_addresses && endpoint.events.len() == 2);
    assert!(!format!("{endpoint:?}").contains("MfKQ"), "a secret is printed");
}

#[test]
fn a_signature_is_that_of_the_standards_own_example() {
    // The example of the reference implementations.
    let endpoint = &parse(GOOD).unwrap()[0];
    let signature = endpoint.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, br#"{"test": 2432232314}"#);
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn each_secret_signs() {
    let two = GOOD.replace("ILPZIo2LaLaSw\"]", "ILPZIo2LaLaSw\", \"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"]");
    let signature = parse(&two).unwrap()[0].signature("id", 1, b"{}");
    let [first, second] = signature.split(' ').collect::<Vec<_>>()[..] else { panic!("{signature}") };
    assert!(first.starts_with("v1,") && second.starts_with("v1,") && first != second);
}

#[test]
fn what_makes_no_sense_is_refused_and_no_secret_is_in_the_error() {
    for (from, to) in [
        ("name = \"push\"", "name = \"../push\""),
        ("name = \"push\"", "name = \"\""),
        ("https://example.com/hook", "ftp://example.com/hook"),
        ("https://example.com/hook", "/hook"),
        ("https://example.com/hook", "https://me:secret@example.com/hook"),
        ("[\"message.offline\", \"group.changed\"]", "[]"),
        ("group.changed", "group.unheard_of"),
        ("group.changed", "message.sent"),
        ("whsec_MfKQ", "MfKQ"),
        ("9r8GKYqrTwjUPD8ILPZIo2LaLaSw", ""),
        ("[\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]", "[]"),
        ("name =", "grace_s = 3601\nname ="),
        ("name =", "unknown = 1\nname ="),
    ] {
        let error = parse(&GOOD.replace(from, to)).map(|_| ()).unwrap_err().to_string();
        assert!(!error.contains("MfKQ"), "{error}");
    }
    parse(&GOOD.repeat(2)).map(|_| ()).unwrap_err();
}
