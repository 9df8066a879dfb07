use super::*;
use crate::ErrorCode;

const ANN: u32 = 0;
const BOB: u32 = 1;

fn refuse(requests: &mut CrowdRequests<char>, client: u32, request: RequestId, after_ms: u32) -> Option<Fate> {
    let refusal = Refusal { request, code: ErrorCode::RetryLater, message: "", retry_after_ms: after_ms };
    requests.refused(client, 1_000, &refusal)
}

#[test]
fn a_request_keeps_its_number_until_it_is_answered_and_then_another_has_it() {
    let mut requests = CrowdRequests::default();
    let (first, second) = (requests.begin(ANN, 'a'), requests.begin(BOB, 'b'));
    assert_eq!((first, second, requests.len()), (RequestId(1), RequestId(2), 2));
    assert_eq!(requests.get(first), Some((ANN, &'a')));
    assert_eq!(requests.answered(BOB, first), None, "it is not his");
    assert_eq!(requests.answered(ANN, first), Some('a'));
    assert_eq!(requests.answered(ANN, first), None, "once");
    assert_eq!(requests.answered(ANN, RequestId(0)), None);
    assert_eq!(requests.begin(BOB, 'c'), first);
    assert_eq!(requests.get(first), Some((BOB, &'c')));
}

#[test]
fn what_is_refused_goes_again_when_the_gateway_said_and_later_each_time() {
    let mut requests = CrowdRequests::default();
    let request = requests.begin(ANN, 'a');
    for wait_ms in [100, 200, 400] {
        assert_eq!(refuse(&mut requests, ANN, request, 100), Some(Fate::Kept));
        assert_eq!(requests.take_due(1_000 + wait_ms - 1), []);
        assert_eq!(requests.take_due(1_000 + wait_ms), [request]);
        assert_eq!(requests.take_due(u64::MAX), [], "once");
    }
    assert_eq!(refuse(&mut requests, BOB, request, 100), None, "it is not his");
    assert_eq!(refuse(&mut requests, ANN, request, 0), Some(Fate::GivenUp));
    assert!(requests.is_empty());
}

#[test]
fn whoever_is_back_asks_again_for_all_that_is_open_and_for_nothing_else() {
    let mut requests = CrowdRequests::default();
    let [answered, first, other, second] = [ANN, ANN, BOB, ANN].map(|client| requests.begin(client, 'x'));
    requests.answered(ANN, answered);
    refuse(&mut requests, ANN, second, 5_000);
    refuse(&mut requests, BOB, other, 5_000);
    requests.back(ANN, 2_000);
    assert_eq!(requests.take_due(2_000), [first, second]);
    assert_eq!(requests.take_due(6_000), [other]);
    // An answer that comes after all takes what was to go again along.
    requests.back(ANN, 7_000);
    requests.answered(ANN, first);
    assert_eq!(requests.take_due(7_000), [second]);
}
