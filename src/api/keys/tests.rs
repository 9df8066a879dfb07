#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;

use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn headers(authorization: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::AUTHORIZATION, authorization.parse().unwrap())])
}

#[test]
fn a_key_allows_its_scopes_and_is_known_by_its_name() {
    let (_change, keys) = watch::channel(parse(&format!("# comment\n\n shop  send,read  {KEY}\n")).unwrap());
    let keys = Keys::Of(keys);
    let allowed = |scope| keys.allow(&headers(&format!("bearer {KEY}")), scope).map(|name| name.to_string());
    assert_eq!(allowed(Scope::Send), Ok("shop".to_owned()));
    assert_eq!(allowed(Scope::Read), Ok("shop".to_owned()));
    assert_eq!(allowed(Scope::Groups).unwrap_err().detail, "the key shop has not the scope groups");
    for wrong in ["", "Bearer", "Bearer ", "Basic eDp5", &format!("Bearer {KEY}0"), &format!("Bearer{KEY}")] {
        assert_eq!(keys.allow(&headers(wrong), Scope::Send), Err(Problem::unauthorized()), "{wrong}");
    }
    assert_eq!(keys.allow(&HeaderMap::new(), Scope::Send), Err(Problem::unauthorized()));
}

#[test]
fn a_line_that_is_no_key_is_named() {
    for wrong in ["shop", "shop send", &format!("shop all {KEY}"), "shop send 123", &format!("shop send {KEY} more")] {
        let text = format!("good send {KEY}\n{wrong}\n");
        assert_eq!(
            parse(&text).unwrap_err().to_string().split(" is not").next(),
            Some("api.keys_file: line 2"),
            "{wrong}"
        );
    }
}

#[test]
fn nobody_calls_from_elsewhere_without_keys() {
    assert!(matches!(Keys::load(None, Ipv4Addr::LOCALHOST.into()), Ok((Keys::ThisMachine, None))));
    let (nobody, _) = Keys::load(None, Ipv4Addr::UNSPECIFIED.into()).unwrap();
    assert!(nobody.allow(&headers(&format!("Bearer {KEY}")), Scope::Read).is_err());
}
