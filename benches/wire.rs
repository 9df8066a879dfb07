//! What one frame costs: cut, verified and read on the way in; encoded once, then patched per recipient, on the way
//! out. `cargo bench --bench wire`.

#![allow(missing_docs, reason = "the benchmark macros make public items")]

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use ringway_wire::deframer::Deframer;
use ringway_wire::frame::{Encoder, PushFrame, read_client, read_server};
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, MsgId, Seq, UserId};
use ringway_wire::limits::CLIENT_FRAME_BYTES_MAX;
use ringway_wire::request::{Durability, Request, Taken};
use ringway_wire::websocket::{Messages, WsEvent};

const BODIES: [usize; 3] = [100, 1024, 16 * 1024];
/// Frames in one read.
const FRAMES: usize = 32;

fn main() {
    divan::main();
}

fn send_frame(body: usize) -> Vec<u8> {
    let to = Conversation::Group(GroupId(1 << 50));
    let id = ClientMsgId::from_parts(1_767_225_600_000, 7);
    Encoder::new().send(9, to, id, &vec![b'x'; body], Durability::Durable).to_vec()
}

fn push_frame(body: &[u8]) -> PushFrame {
    PushFrame::encode(MsgId(1 << 58), UserId(1001), Conversation::Group(GroupId(1 << 50)), 1_767_225_600_000, body)
}

/// Bodies of the Sends that a read of several frames holds.
fn body_bytes(frame: &[u8]) -> usize {
    match read_client(frame) {
        Ok((_, Request::Send { body, .. })) => body.len(),
        _ => 0,
    }
}

#[divan::bench(args = BODIES)]
fn deframe_verify_and_read_32_sends(bencher: Bencher<'_, '_>, body: usize) {
    let stream = send_frame(body).repeat(FRAMES);
    bencher.counter(ItemsCount::new(FRAMES)).bench_local(|| {
        let mut deframer = Deframer::default();
        let mut input = black_box(stream.as_slice());
        let mut bytes = 0;
        while let Ok(Some(frame)) = deframer.next(&mut input, CLIENT_FRAME_BYTES_MAX) {
            bytes += body_bytes(frame);
        }
        bytes
    });
}

#[divan::bench(args = BODIES)]
fn verify_and_read_a_send(bencher: Bencher<'_, '_>, body: usize) {
    let frame = send_frame(body);
    bencher.bench_local(|| body_bytes(black_box(&frame)));
}

#[divan::bench(args = BODIES)]
fn unmask_verify_and_read_a_send_over_websocket(bencher: Bencher<'_, '_>, body: usize) {
    let frame = send_frame(body);
    let mut message = vec![0x82, 0xfe];
    message.extend_from_slice(&(frame.len() as u16).to_be_bytes());
    message.extend_from_slice(&[0x11, 0x22, 0x33, 0x44]);
    message.extend(frame.iter().zip([0x11, 0x22, 0x33, 0x44].into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bencher.with_inputs(|| message.clone()).bench_local_values(|mut message| {
        let mut messages = Messages::default();
        let mut input = message.as_mut_slice();
        match messages.next(&mut input) {
            Ok(Some(WsEvent::Frame(frame))) => body_bytes(frame),
            _ => 0,
        }
    });
}

#[divan::bench(args = BODIES)]
fn encode_a_push(bencher: Bencher<'_, '_>, body: usize) {
    let body = vec![b'x'; body];
    bencher.bench_local(|| push_frame(black_box(&body)));
}

#[divan::bench(args = [100, 1024])]
fn copy_and_patch_a_push_for_300_recipients(bencher: Bencher<'_, '_>, body: usize) {
    const RECIPIENTS: u64 = 300;
    let push = push_frame(&vec![b'x'; body]);
    let mut out = Vec::with_capacity(RECIPIENTS as usize * push.bytes().len());
    bencher.counter(ItemsCount::new(RECIPIENTS)).counter(BytesCount::new(out.capacity())).bench_local(|| {
        out.clear();
        for seq in 1..=RECIPIENTS {
            black_box(&push).append_to(Seq(seq), &mut out);
        }
        out.len()
    });
}

#[divan::bench]
fn encode_a_send_ok(bencher: Bencher<'_, '_>) {
    let mut encoder = Encoder::new();
    bencher.bench_local(|| encoder.send_ok(9, MsgId(1 << 58), Seq(black_box(77)), 1_767_225_600_000, Taken::Now).len());
}

#[divan::bench]
fn verify_and_read_a_push(bencher: Bencher<'_, '_>) {
    let push = push_frame(&[b'x'; 100]);
    bencher.bench_local(|| read_server(black_box(push.bytes())).is_ok());
}
