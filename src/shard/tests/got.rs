//! What a client received, as tests compare it.

use ringway_wire::frame::read_server;
use ringway_wire::ids::UserId;
use ringway_wire::request::{PushView, Reply};
use ringway_wire::schema::{CloseReason, ErrorCode, GroupChangeKind};

/// What a client received, owned.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Got {
    LoginOk { last: u64, from: u64 },
    Pong(u32),
    SendOk { request: u32, seq: u64, repeat: bool },
    Push { seq: u64, sender: u64, body: Vec<u8> },
    Page { request: u32, seqs: Vec<u64>, through: u64, end: bool, gap_to: u64 },
    Gap(u64, u64),
    GroupOk { request: u32, group: u64, version: u32 },
    GroupOkWithout { request: u32, left_out: Vec<UserId> },
    RefusedFor { request: u32, code: ErrorCode, users: Vec<UserId> },
    Members(Vec<u64>),
    Groups(Vec<u64>),
    Changed { group: u64, kind: GroupChangeKind, users: Vec<u64> },
    Online(Vec<u64>),
    Refreshed { request: u32, expires_at_ms: u64 },
    Error(u32, ErrorCode),
    Closing { reason: CloseReason, reconnect: Option<u32> },
}

/// A frame of the gateway.
pub(super) fn owned(frame: &[u8]) -> Got {
    let (request, reply) = read_server(frame).expect("the gateway sends valid frames");
    let push = |row: &PushView<'_>| Got::Push { seq: row.seq.0, sender: row.sender.0, body: row.body.to_vec() };
    let ids = |users: Vec<UserId>| users.into_iter().map(|user| user.0).collect();
    match reply {
        Reply::LoginOk { last_seq, from_seq, .. } => Got::LoginOk { last: last_seq.0, from: from_seq.0 },
        Reply::Pong { .. } => Got::Pong(request),
        Reply::SendOk { seq, repeat, .. } => Got::SendOk { request, seq: seq.0, repeat },
        Reply::Push(row) => push(&row),
        Reply::SyncPage { rows, through, end, gap_to } => Got::Page {
            request,
            seqs: rows.iter().map(|row| row.seq.0).collect(),
            through: through.0,
            end,
            gap_to: gap_to.unwrap_or_default().0,
        },
        Reply::Gap { from, to } => Got::Gap(from.0, to.0),
        Reply::GroupOk { left_out, .. } if !left_out.is_empty() => Got::GroupOkWithout { request, left_out },
        Reply::GroupOk { group, version, .. } => Got::GroupOk { request, group: group.0, version },
        Reply::Error { code, users, .. } if !users.is_empty() => Got::RefusedFor { request, code, users },
        Reply::GroupInfo { members, .. } => {
            let mut users: Vec<u64> = members.iter().map(|member| member.0.0).collect();
            users.sort_unstable();
            Got::Members(users)
        }
        Reply::GroupList { groups } => Got::Groups(groups.iter().map(|group| group.0.0).collect()),
        Reply::GroupChanged { group, kind, members, .. } => Got::Changed { group: group.0, kind, users: ids(members) },
        Reply::Presence { online } => Got::Online(ids(online)),
        Reply::RefreshOk { expires_at_ms } => Got::Refreshed { request, expires_at_ms },
        Reply::Error { code, .. } => Got::Error(request, code),
        Reply::Closing { reason, reconnect, reconnect_after_ms, .. } => {
            Got::Closing { reason, reconnect: reconnect.then_some(reconnect_after_ms) }
        }
    }
}
