#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

fn roster(members: usize) -> RosterRecord {
    let members = (0..members as u64)
        .map(|at| RosterRecordMember {
            user: UserId(at.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            role: if at == 3 { Role::Owner } else { Role::Member },
            base: Seq(at * 1000),
        })
        .collect();
    RosterRecord { group: GroupId(77), version: RosterVersion(9), members }
}

fn differences(values: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let mut out = Vec::new();
    values.into_iter().for_each(|value| varint::put(&mut out, value));
    out
}

fn group<'a>(differences: &'a [u8], body: &'a [u8]) -> GroupRecord<'a> {
    GroupRecord {
        msg_id: MsgId(u64::MAX - 1),
        sender: UserId(5),
        group: GroupId(77),
        client_msg_id: ClientMsgId([7; 16]),
        roster_at: JournalPosition(1 << 40),
        differences,
        body,
    }
}

fn check(record: Record<'_>) {
    let mut out = vec![0xAA];
    record.encode(&mut out);
    let prefix = out[1..5].try_into().unwrap();
    assert_eq!(Record::length(prefix), Some(out.len() - 5));
    assert_eq!(Record::decode(&out[5..]).unwrap(), record);
}

fn samples() -> Vec<Vec<u8>> {
    let mixed = differences([1, 127, 128, 1 << 40, u64::MAX]);
    let records = [
        Record::Roster(roster(5)),
        Record::Group(group(&mixed, b"hello")),
        Record::Direct(DirectRecord {
            msg_id: MsgId(1),
            sender: UserId(u64::MAX),
            to: UserId(2),
            client_msg_id: ClientMsgId([9; 16]),
            sender_seq: Seq(300),
            recipient_seq: Seq(1),
            body: b"hi",
        }),
        Record::Change(ChangeRecord {
            msg_id: MsgId(2),
            group: GroupId(3),
            version: RosterVersion(4),
            kind: GroupChangeKind::Left,
            actor: UserId(1),
            users: vec![UserId(1), UserId(u64::MAX)],
            new_owner: Some(UserId(8)),
        }),
    ];
    records
        .iter()
        .map(|record| {
            check(record.clone());
            let mut out = Vec::new();
            record.encode(&mut out);
            out.split_off(RECORD_PREFIX_BYTES)
        })
        .collect()
}

#[test]
fn every_kind_of_record_comes_back_as_it_was() {
    assert_eq!(samples().len(), 4);
}

#[test]
fn no_bytes_make_decoding_panic() {
    let mut rng = fastrand::Rng::with_seed(1);
    let roster = roster(5);
    let touch = |bytes: &[u8]| {
        if let Ok(Record::Group(record)) = Record::decode(bytes) {
            if let Ok(rows) = record.rows(&roster) {
                assert_eq!(rows.count(), 5);
            }
            for index in 0..7 {
                record.seq_at(&roster, index);
            }
        }
    };
    for sample in samples() {
        for cut in 0..sample.len() {
            touch(&sample[..cut]);
        }
        for _ in 0..20_000 {
            let mut bytes = sample.clone();
            for _ in 0..rng.usize(1..6) {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
            bytes.truncate(rng.usize(..=bytes.len()));
            touch(&bytes);
        }
    }
    for _ in 0..20_000 {
        let length = rng.usize(..64);
        let bytes: Vec<u8> = iter::repeat_with(|| rng.u8(..)).take(length).collect();
        touch(&bytes);
    }
}

#[test]
fn a_count_that_the_bytes_cannot_hold_is_refused_before_memory_is_taken() {
    let mut bytes = vec![TAG_ROSTER];
    bytes.extend_from_slice(&[0; 8]);
    varint::put(&mut bytes, 1);
    varint::put(&mut bytes, u64::MAX);
    assert_eq!(Record::decode(&bytes), Err(RecordError::Short));
}

#[test]
fn rows_are_base_plus_difference_whether_short_or_long() {
    let roster = roster(5);
    for values in [[1, 2, 3, 4, 5], [1, 200, 3, 70_000, 5]] {
        let bytes = differences(values);
        let record = group(&bytes, b"x");
        let expected: Vec<_> =
            iter::zip(&roster.members, values).map(|(m, value)| (m.user, Seq(m.base.0 + value))).collect();
        assert_eq!(record.rows(&roster).unwrap().collect::<Vec<_>>(), expected);
        for (index, (_, seq)) in expected.iter().enumerate() {
            assert_eq!(record.seq_at(&roster, index), Some(*seq));
        }
        assert_eq!(record.seq_at(&roster, 5), None);
    }
}

#[test]
fn differences_for_another_roster_are_refused() {
    let bytes = differences([1, 2, 3]);
    let error = group(&bytes, b"x").rows(&roster(5)).err();
    assert_eq!(error, Some(RecordError::Differences { differences: 3, members: 5 }));
}

#[test]
fn a_batch_magic_and_zeroes_are_no_record_length() {
    assert_eq!(Record::length([0; 4]), None);
    assert_eq!(Record::length(*b"RWB1"), None);
}
