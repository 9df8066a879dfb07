#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use ringway_wire::ids::{ClientMsgId, Conversation, MsgId, UserId};

fn message(body: &[u8]) -> Arc<Message> {
    let (msg_id, sender, to) = (MsgId(1), UserId(2), Conversation::User(UserId(3)));
    let push = PushFrame::encode(msg_id, sender, to, 4, body);
    Arc::new(Message { msg_id, sender, to, client_msg_id: ClientMsgId::default(), sent_at_ms: 4, push })
}

/// What a push must look like on the wire.
fn patched(message: &Message, seq: Seq) -> Vec<u8> {
    let mut bytes = message.push.bytes().to_vec();
    let at = message.push.seq_at();
    bytes[at..at + 8].copy_from_slice(&seq.0.to_le_bytes());
    bytes
}

/// A mixture of everything that crosses chunks in many places, and the bytes it must become.
fn mixture(pool: &mut OutboxPool) -> (Box<Outbox>, Vec<u8>) {
    let mut outbox = pool.open(0);
    let mut expected = Vec::new();
    for (at, len) in [10, 900, 2_000, 16_384, 1, 4_000, 1_025, 1_025, 50, 3_000].into_iter().enumerate() {
        let message = message(&vec![at as u8; len]);
        let seq = Seq(at as u64 + 1);
        if len > 1_024 {
            outbox.append_shared(&message, seq, pool);
        } else {
            outbox.append_push(&message.push, seq, pool);
        }
        expected.extend(patched(&message, seq));
        if at % 3 == 1 {
            let shared: Arc<[u8]> = vec![0x77; 5_000].into();
            outbox.append_shared_frame(&shared);
            expected.extend_from_slice(&shared);
        }
        let reply = vec![0x55; 700 * at];
        outbox.append(&reply, pool);
        expected.extend(reply);
    }
    (outbox, expected)
}

#[test]
fn a_write_that_stops_at_any_byte_loses_and_repeats_nothing() {
    let mut pool = OutboxPool::default();
    let (outbox, expected) = mixture(&mut pool);
    assert_eq!(outbox.len(), expected.len());
    assert_eq!(outbox.to_vec(), expected);
    for split in (0..=expected.len()).step_by(53).chain([4_095, 4_096, 4_097, expected.len() - 1]) {
        let (mut outbox, _) = mixture(&mut pool);
        assert_eq!(outbox.consume(split, &mut pool), split);
        assert_eq!(outbox.to_vec(), expected[split..], "split at {split}");
        assert_eq!(outbox.consume(usize::MAX, &mut pool), expected.len() - split);
        assert!(outbox.is_empty() && outbox.to_vec().is_empty());
        pool.close(outbox);
    }
}

#[test]
fn writes_and_appends_in_turn_keep_the_order() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut pool = OutboxPool::default();
    let mut outbox = pool.open(0);
    let (mut all_in, mut all_out) = (Vec::new(), Vec::new());
    for seq in 1..3_000 {
        let message = message(&vec![seq as u8; random.usize(0..3_000)]);
        if random.bool() {
            outbox.append_push(&message.push, Seq(seq), &mut pool);
        } else {
            outbox.append_shared(&message, Seq(seq), &mut pool);
        }
        all_in.extend(patched(&message, Seq(seq)));
        let written = random.usize(0..2 * message.push.bytes().len());
        let mut slices = [IoSlice::new(&[]); 4];
        let filled = outbox.slices(&mut slices);
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).take(written).collect();
        all_out.extend_from_slice(&bytes);
        outbox.consume(bytes.len(), &mut pool);
        assert_eq!(outbox.len(), all_in.len() - all_out.len());
    }
    all_out.extend(outbox.to_vec());
    assert!(all_in == all_out);
}

#[test]
fn an_outbox_taken_from_the_pool_again_is_empty() {
    let mut pool = OutboxPool::default();
    let (outbox, _) = mixture(&mut pool);
    pool.close(outbox);
    let again = pool.open(5);
    assert!(again.is_empty() && again.to_vec().is_empty());
    assert_eq!(again.progress_ms, 5);
}
