//! However long names are kept, nodes rely on them for less.

use super::*;

#[test]
fn nodes_rely_on_no_name_that_redis_may_have_forgotten() {
    let default = NamesKept::default();
    assert_eq!((default.seconds(), default.slack_s(), default.window_ms()), (CLAIMS_S, CLAIMS_SLACK_S, WINDOW_MS));
    for seconds in NAMES_S_MIN..=CLAIMS_S {
        let names = NamesKept::new(seconds);
        assert!(names.slack_s() >= 1, "{seconds}");
        assert!((names.seconds() - names.slack_s()) * 1_000 > names.window_ms(), "{seconds}");
        assert!(!names.is_forgotten(10_000, 10_000 + names.window_ms() / 1_000), "{seconds}");
        assert!(names.is_forgotten(10_000, 10_000 + seconds - names.slack_s()), "{seconds}");
        // It is a moment later when Redis hears of them.
        assert!(names.is_forgotten(10_000, 10_000 + seconds - names.slack_s() - HEARD_AGO_S), "{seconds}");
    }
    assert_eq!((NamesKept::new(0).seconds(), NamesKept::new(u64::MAX).seconds()), (NAMES_S_MIN, CLAIMS_S));
}
