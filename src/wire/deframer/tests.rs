#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

const LIMIT: usize = 48 * 1024;

/// A frame as the deframer sees it: a prefix, and so many bytes.
fn frame(len: usize, fill: u8) -> Vec<u8> {
    let mut frame = (len as u32).to_le_bytes().to_vec();
    frame.resize(PREFIX_BYTES + len, fill);
    frame
}

/// Feeds `stream` in pieces that end at `cuts`, and returns the frames that came out.
fn feed(deframer: &mut Deframer, stream: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([stream.len()]) {
        let mut input = &stream[start..end];
        while let Some(frame) = deframer.next(&mut input, LIMIT).unwrap() {
            frames.push(frame.to_vec());
        }
        assert!(input.is_empty(), "what is given is used up");
        start = end;
    }
    frames
}

fn three() -> (Vec<Vec<u8>>, Vec<u8>) {
    let frames = vec![frame(5, 1), frame(0, 0), frame(37, 2)];
    let stream = frames.concat();
    (frames, stream)
}

#[test]
fn frames_come_out_whole_wherever_the_stream_is_cut() {
    let (frames, stream) = three();
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let mut deframer = Deframer::default();
            assert_eq!(feed(&mut deframer, &stream, &[first, second]), frames, "cut at {first} and {second}");
            assert_eq!(deframer.held_bytes(), 0);
        }
    }
}

#[test]
fn frames_come_out_whole_byte_by_byte() {
    let (frames, stream) = three();
    let mut deframer = Deframer::default();
    let cuts: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(feed(&mut deframer, &stream, &cuts), frames);
}

#[test]
fn frames_of_random_length_survive_random_cuts() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..500 {
        let frames: Vec<_> =
            (0..random.usize(1..20)).map(|i| frame(random.choice([0, 1, 90, 3000]).unwrap(), i as u8)).collect();
        let stream = frames.concat();
        let mut cuts: Vec<usize> = (0..random.usize(0..40)).map(|_| random.usize(..=stream.len())).collect();
        cuts.sort_unstable();
        let mut deframer = Deframer::default();
        assert_eq!(feed(&mut deframer, &stream, &cuts), frames);
        assert_eq!(deframer.held_bytes(), 0);
    }
}

#[test]
fn a_whole_frame_is_lent_from_the_input_without_a_copy() {
    let (_, stream) = three();
    let mut deframer = Deframer::default();
    let mut input = stream.as_slice();
    let mut at = stream.as_ptr();
    while let Some(frame) = deframer.next(&mut input, LIMIT).unwrap() {
        assert_eq!(frame.as_ptr(), at);
        at = at.wrapping_add(frame.len());
    }
    assert_eq!(deframer.held_bytes(), 0);
}

#[test]
fn a_frame_over_the_limit_is_refused_from_its_prefix_alone() {
    for announced in [LIMIT as u32 + 1, u32::MAX] {
        for cut in 0..=4 {
            let prefix = announced.to_le_bytes();
            let mut deframer = Deframer::default();
            let mut outcome = Ok(());
            for mut piece in [&prefix[..cut], &prefix[cut..]] {
                outcome = deframer.next(&mut piece, LIMIT).map(|frame| assert_eq!(frame, None));
                if outcome.is_err() {
                    break;
                }
            }
            assert_eq!(outcome, Err(DeframeError::TooLarge { announced, limit: LIMIT as u32 }));
            assert!(deframer.held_bytes() < 64);
        }
    }
    let largest = frame(LIMIT, 3);
    assert_eq!(feed(&mut Deframer::default(), &largest, &[100]), [largest]);
}

#[test]
fn memory_follows_what_has_arrived_and_not_what_was_announced() {
    let whole = frame(LIMIT, 9);
    let mut deframer = Deframer::default();
    for (i, byte) in whole.iter().enumerate().take(whole.len() - 1) {
        assert_eq!(deframer.next(&mut std::slice::from_ref(byte), LIMIT), Ok(None));
        let arrived = i + 1;
        assert!(deframer.held_bytes() <= 2 * arrived + 64, "{} held for {arrived}", deframer.held_bytes());
    }
    assert!(deframer.held_bytes() <= whole.len() + 64, "never more than the frame itself");
    assert_eq!(deframer.next(&mut &whole[whole.len() - 1..], LIMIT), Ok(Some(whole.as_slice())));
    assert_eq!(deframer.next(&mut &[][..], LIMIT), Ok(None));
    assert_eq!(deframer.held_bytes(), 0, "memory goes with the frame");
}
