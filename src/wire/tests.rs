//! The specification keeps its word: every dump in README.md is what the encoder makes and decodes to what the
//! page says. `RINGWAY_BLESS=1 cargo test -p ringway-wire` writes the dumps anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fmt::Write as _;

use super::frame::{Encoder, PushFrame, read_client, read_server};
use super::generated::ringway::wire as fb;
use super::request::{GroupEntry, Login, PushView, Reply, Request, Users};
use crate::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};
use crate::limits;
use crate::request::{Adding, Durability, PageEnd, Taken};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
/// User 1001, device 7, until 2033, signed with `0123456789abcdef0123456789abcdef`.
const TOKEN: &str = concat!(
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.",
    "eyJzdWIiOiIxMDAxIiwiZGV2IjoiNyIsImV4cCI6MjAwMDAwMDAwMH0.",
    "v4QiGs35ZiC6mU1cM9FcnM5uz903y4TYCVxScr1j4X0",
);
/// 2026-01-01T00:00:00Z.
const TIME_MS: u64 = 1_767_225_600_000;
const GROUP: GroupId = GroupId(265_170_190_041_743_361);
const MSG: MsgId = MsgId(265_170_190_041_747_458);

fn client_msg_id() -> ClientMsgId {
    ClientMsgId::from_parts(TIME_MS, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)
}

/// The examples in the page's order: what a client sends, then what the gateway sends.
fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let mut e = Encoder::new();
    let users = [UserId(1002), UserId(1003)];
    let group = Conversation::Group(GROUP);
    vec![
        ("Login", e.login_as(1, &login()).to_vec()),
        ("Ping", e.ping(2).to_vec()),
        ("Send", e.send(3, group, client_msg_id(), b"Hello, group!", Durability::Durable).to_vec()),
        ("Ack", e.ack(Seq(42)).to_vec()),
        ("Sync", e.sync(4, Seq(40), 50).to_vec()),
        ("GroupCreate", e.group_create(5, &users).to_vec()),
        ("GroupAdd", e.group_add(6, GROUP, &[UserId(1004)]).to_vec()),
        ("GroupRemove", e.group_remove(7, GROUP, &[UserId(1003)]).to_vec()),
        ("GroupLeave", e.group_leave(8, GROUP).to_vec()),
        ("GroupInfo", e.group_info_request(9, GROUP).to_vec()),
        ("GroupList", e.group_list_request(10).to_vec()),
        ("Presence", e.presence_request(11, &users).to_vec()),
        ("Logout", e.logout(12).to_vec()),
        ("Refresh", e.refresh(13, TOKEN).to_vec()),
        ("LoginOk", e.login_ok(1, 77, UserId(1001), TIME_MS, 120_000, Seq(42), Seq(41)).to_vec()),
        ("Pong", e.pong(2, TIME_MS).to_vec()),
        ("SendOk", e.send_ok(3, MSG, Seq(43), TIME_MS, Taken::Now).to_vec()),
        ("Push", pushed(Seq(42))),
        ("SyncPage", e.sync_page(4, page().into_iter(), None, Seq(42), PageEnd::Newest).to_vec()),
        ("Gap", e.gap(Seq(1), Seq(40)).to_vec()),
        ("GroupOk", e.group_ok(5, GROUP, RosterVersion(1)).to_vec()),
        ("GroupInfoReply", e.group_info(9, GROUP, RosterVersion(1), members().into_iter()).to_vec()),
        ("GroupListReply", e.group_list(10, &[list_entry()]).to_vec()),
        (
            "GroupChanged",
            e.group_changed(
                GROUP,
                RosterVersion(2),
                fb::GroupChangeKind::Added,
                UserId(1001),
                &[UserId(1004)],
                Some(UserId(1001)),
            )
            .to_vec(),
        ),
        ("PresenceInfo", e.presence(11, &[UserId(1003)]).to_vec()),
        ("Error", e.error(3, fb::ErrorCode::RetryLater, "a queue is full", 250, TIME_MS).to_vec()),
        ("Closing", e.closing(0, fb::CloseReason::Draining, "the gateway stops", Some(1500), TIME_MS).to_vec()),
        ("RefreshOk", e.refresh_ok(13, 253_402_300_799_000).to_vec()),
    ]
}

fn login() -> Login<'static> {
    Login { token: TOKEN, device: DeviceId(7), cursor: Some(Seq(41)), heartbeat_ms: 120_000 }
}

fn pushed(seq: Seq) -> Vec<u8> {
    let mut bytes = Vec::new();
    let push = PushFrame::encode(MSG, UserId(1001), Conversation::Group(GROUP), TIME_MS, b"Hello, group!");
    push.append_to(seq, &mut bytes);
    bytes
}

fn page() -> [PushView<'static>; 2] {
    let (msg_id, sender, to) = (MsgId(MSG.0 - 4096), UserId(1002), Conversation::User(UserId(1001)));
    let direct = PushView { seq: Seq(41), msg_id, sender, to, sent_at_ms: TIME_MS, body: b"Hi" };
    let (sender, to) = (UserId(1001), Conversation::Group(GROUP));
    let group = PushView { seq: Seq(42), msg_id: MSG, sender, to, sent_at_ms: TIME_MS, body: b"Hello, group!" };
    [direct, group]
}

fn members() -> [(UserId, fb::Role); 3] {
    [(UserId(1001), fb::Role::Owner), (UserId(1002), fb::Role::Member), (UserId(1003), fb::Role::Member)]
}

fn list_entry() -> GroupEntry {
    GroupEntry { group: GROUP, version: RosterVersion(1), role: fb::Role::Owner, members_count: 3 }
}

/// What a frame says, by the schema's names, a field a line.
fn describe(name: &str, frame: &[u8]) -> String {
    if (1..=fb::Request::ENUM_MAX).any(|kind| fb::Request(kind).variant_name() == Some(name)) {
        let (request_id, request) = read_client(frame).unwrap();
        format!("ClientFrame\n  request_id: {request_id}\n{}", describe_request(&request))
    } else {
        let (request_id, reply) = read_server(frame).unwrap();
        format!("ServerFrame\n  request_id: {request_id}\n{}", describe_reply(&reply))
    }
}

fn conversation(to: Conversation) -> String {
    match to {
        Conversation::User(user) => format!("User {user}"),
        Conversation::Group(group) => format!("Group {group}"),
    }
}

fn users(users: &Users<'_>) -> String {
    format!("{:?}", users.iter().map(|user| user.0).collect::<Vec<_>>())
}

fn describe_request(request: &Request<'_>) -> String {
    match request {
        Request::Login(Login { token, device, cursor, heartbeat_ms }) => format!(
            "Login\n  token: {token}\n  device: {device}\n  cursor: {}\n  heartbeat_ms: {heartbeat_ms}\n",
            cursor.unwrap()
        ),
        Request::Ping => "Ping\n".into(),
        Request::Send { to, client_msg_id, body, ephemeral } => {
            let ((high, low), to) = (client_msg_id.halves(), conversation(*to));
            let body = std::str::from_utf8(body).unwrap();
            format!(
                "Send\n  to: {to}\n  client_msg_id: high 0x{high:016x}, low 0x{low:016x}\n  body: {body}\n  \
                 ephemeral: {ephemeral}\n"
            )
        }
        Request::SendToUnknownKind { kind } => format!("Send\n  to: {kind}\n"),
        Request::Ack { seq } => format!("Ack\n  seq: {seq}\n"),
        Request::Sync { after, rows_max } => format!("Sync\n  after_seq: {after}\n  rows_max: {rows_max}\n"),
        Request::GroupCreate { members, adding } => {
            format!("GroupCreate\n  members: {}\n{}", users(&members.unwrap()), best_effort(*adding))
        }
        Request::GroupAdd { group, members, adding } => {
            format!("GroupAdd\n  group: {group}\n  members: {}\n{}", users(members), best_effort(*adding))
        }
        Request::GroupRemove { group, members } => {
            format!("GroupRemove\n  group: {group}\n  members: {}\n", users(members))
        }
        Request::GroupLeave { group } => format!("GroupLeave\n  group: {group}\n"),
        Request::GroupInfo { group } => format!("GroupInfo\n  group: {group}\n"),
        Request::GroupList => "GroupList\n".into(),
        Request::Presence { users: asked } => format!("Presence\n  users: {}\n", users(asked)),
        Request::Logout => "Logout\n".into(),
        Request::Refresh { token } => format!("Refresh\n  token: {token}\n"),
    }
}

fn push(view: &PushView<'_>, indent: &str) -> String {
    format!(
        "{indent}seq: {}\n{indent}msg_id: {}\n{indent}sender: {}\n{indent}to: {}\n{indent}sent_at_ms: {}\n\
         {indent}body: {}\n",
        view.seq,
        view.msg_id,
        view.sender,
        conversation(view.to),
        view.sent_at_ms,
        std::str::from_utf8(view.body).unwrap()
    )
}

fn describe_reply(reply: &Reply<'_>) -> String {
    match reply {
        Reply::LoginOk { session, user, server_time_ms, heartbeat_ms, last_seq, from_seq } => format!(
            "LoginOk\n  session: {session}\n  user: {user}\n  server_time_ms: {server_time_ms}\n  \
             heartbeat_ms: {heartbeat_ms}\n  last_seq: {last_seq}\n  from_seq: {from_seq}\n"
        ),
        Reply::Pong { server_time_ms } => format!("Pong\n  server_time_ms: {server_time_ms}\n"),
        Reply::SendOk { msg_id, seq, sent_at_ms, repeat } => {
            format!("SendOk\n  msg_id: {msg_id}\n  seq: {seq}\n  sent_at_ms: {sent_at_ms}\n  repeated: {repeat}\n")
        }
        Reply::Push(view) => format!("Push\n{}", push(view, "  ")),
        Reply::SyncPage { rows, through, end, gap_to } => {
            let gap_to = gap_to.unwrap_or_default();
            let mut text = format!("SyncPage\n  through_seq: {through}\n  at_end: {end}\n  gap_to: {gap_to}\n");
            for (i, row) in rows.iter().enumerate() {
                write!(text, "  rows[{i}]\n{}", push(row, "    ")).unwrap();
            }
            text
        }
        Reply::Gap { from, to } => format!("Gap\n  from_seq: {from}\n  to_seq: {to}\n"),
        Reply::GroupOk { group, version, left_out } => {
            let left_out = named("left_out", left_out);
            format!("GroupOk\n  group: {group}\n  version: {version}\n{left_out}")
        }
        Reply::GroupInfo { group, version, members } => {
            let members: Vec<_> = members.iter().map(|(user, role)| format!("{user} {role:?}")).collect();
            let members = members.join(", ");
            format!("GroupInfoReply\n  group: {group}\n  version: {version}\n  members: {members}\n")
        }
        Reply::GroupList { groups } => {
            let mut text = String::from("GroupListReply\n");
            for (i, (group, version, role, members_count)) in groups.iter().enumerate() {
                write!(text, "  groups[{i}]\n    group: {group}\n    version: {version}\n").unwrap();
                write!(text, "    role: {role:?}\n    members_count: {members_count}\n").unwrap();
            }
            text
        }
        Reply::GroupChanged { group, version, kind, actor, members, owner } => {
            let members: Vec<u64> = members.iter().map(|user| user.0).collect();
            format!(
                "GroupChanged\n  group: {group}\n  version: {version}\n  kind: {kind:?}\n  actor: {actor}\n  \
                 members: {members:?}\n  owner: {owner}\n"
            )
        }
        Reply::RefreshOk { expires_at_ms } => format!("RefreshOk\n  expires_at_ms: {expires_at_ms}\n"),
        Reply::Presence { online } => {
            format!("PresenceInfo\n  online: {:?}\n", online.iter().map(|user| user.0).collect::<Vec<_>>())
        }
        Reply::Error { code, message, retry_after_ms, server_time_ms, users } => format!(
            "Error\n  code: {code:?}\n  message: {message}\n  retry_after_ms: {retry_after_ms}\n  \
             server_time_ms: {server_time_ms}\n{}",
            named("users", users)
        ),
        Reply::Closing { reason, message, reconnect, reconnect_after_ms, server_time_ms } => format!(
            "Closing\n  reason: {reason:?}\n  message: {message}\n  reconnect: {reconnect}\n  \
             reconnect_after_ms: {reconnect_after_ms}\n  server_time_ms: {server_time_ms}\n"
        ),
    }
}

/// Sixteen bytes a line: offset, hexadecimal, characters.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (i, line) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown: String = line.iter().map(|&b| if (0x20..0x7f).contains(&b) { char::from(b) } else { '.' }).collect();
        writeln!(text, "{:04x}  {:<47}  {shown}", i * 16, hex.join(" ")).unwrap();
    }
    text
}

/// The bytes of a dump.
fn undump(text: &str) -> Vec<u8> {
    let digits = text.lines().flat_map(|line| line.get(6..53.min(line.len())).unwrap_or("").split_whitespace());
    digits.map(|digits| u8::from_str_radix(digits, 16).expect("two hexadecimal digits")).collect()
}

/// Where the fenced text behind an example's marker stands in the page; empty if there is none yet.
fn block(page: &str, name: &str) -> std::ops::Range<usize> {
    let marker = format!("<!-- example {name} -->\n");
    let at = page.find(&marker).unwrap_or_else(|| panic!("README.md has no example of {name}"));
    let start = at + marker.len();
    match page[start..].strip_prefix("\n```text\n") {
        Some(rest) => start..start + "\n```text\n".len() + rest.find("```\n").expect("the end of the fence") + 4,
        None => start..start,
    }
}

#[test]
fn the_specification_s_examples_are_what_is_really_sent() {
    let mut page = std::fs::read_to_string(README).unwrap();
    if std::env::var_os("RINGWAY_BLESS").is_some() {
        for (name, frame) in examples() {
            let fresh = format!("\n```text\n{}\n{}```\n", describe(name, &frame), dump(&frame));
            page.replace_range(block(&page, name), &fresh);
        }
        std::fs::write(README, &page).unwrap();
    }
    for (name, frame) in examples() {
        let text = &page[block(&page, name)];
        let text = text.strip_prefix("\n```text\n").and_then(|text| text.strip_suffix("```\n"));
        let (said, dumped) = text.and_then(|text| text.split_once("\n\n")).unwrap_or_else(|| panic!("{name}: no dump"));
        let bytes = undump(dumped);
        assert_eq!(bytes, frame, "{name}: the dump is not what the encoder makes");
        assert_eq!(format!("{said}\n"), describe(name, &bytes), "{name}: the dump does not say what the page says");
    }
}

#[test]
fn every_frame_has_an_example() {
    let requests = (1..=fb::Request::ENUM_MAX).map(|kind| fb::Request(kind).variant_name().unwrap());
    let replies = (1..=fb::Reply::ENUM_MAX).map(|kind| fb::Reply(kind).variant_name().unwrap());
    let examples = examples();
    assert!(requests.chain(replies).eq(examples.iter().map(|(name, _)| *name)));
}

#[test]
fn the_specification_lists_every_code_by_its_number() {
    let page = std::fs::read_to_string(README).unwrap();
    let codes = (1..=fb::ErrorCode::ENUM_MAX).map(|code| (code, fb::ErrorCode(code).variant_name().unwrap()));
    let reasons = (1..=fb::CloseReason::ENUM_MAX).map(|code| (code, fb::CloseReason(code).variant_name().unwrap()));
    for (number, name) in codes.chain(reasons) {
        assert!(page.contains(&format!("\n| {number} | `{name}` |")), "{number} {name}");
    }
}

#[test]
fn the_specification_states_the_limits_in_force() {
    let page = std::fs::read_to_string(README).unwrap();
    let thousands = |n: usize| if n < 1000 { n.to_string() } else { format!("{},{:03}", n / 1000, n % 1000) };
    for (what, limit) in [
        ("frame from a client", limits::CLIENT_FRAME_BYTES_MAX),
        ("frame from the gateway", limits::SERVER_FRAME_BYTES_MAX),
        ("body", limits::BODY_BYTES_MAX),
        ("token", limits::TOKEN_BYTES_MAX),
        ("members of a group", limits::GROUP_MEMBERS_MAX),
        ("groups of a user", limits::USER_GROUPS_MAX),
        ("users in one `Presence`", limits::PRESENCE_USERS_MAX),
        ("rows of one page", limits::PAGE_ROWS_MAX),
        ("open requests of a session", usize::from(limits::SESSION_IN_FLIGHT_MAX)),
        ("head of a WebSocket upgrade", limits::HTTP_HEAD_BYTES_MAX),
    ] {
        assert!(page.contains(&format!("\n| {what} | {}", thousands(limit))), "{what}: {limit}");
    }
    assert_eq!((limits::ACK_ROWS_MAX, limits::CLIENT_MSG_ID_AHEAD_MS), (256, 5_000), "as the text says");
}

#[test]
fn the_schema_compiles_for_every_language_and_the_generated_code_is_its() {
    for what in ["--check", "--languages"] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/schema.sh");
        let ran = std::process::Command::new(script).arg(what).output().unwrap();
        assert!(
            ran.status.success(),
            "{}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
    }
}

/// Shown only where it is set.
fn best_effort(adding: Adding) -> &'static str {
    if adding == Adding::BestEffort { "  best_effort: true\n" } else { "" }
}

/// Users that are shown only where there are any.
fn named(field: &str, users: &[UserId]) -> String {
    let users: Vec<u64> = users.iter().map(|user| user.0).collect();
    if users.is_empty() { String::new() } else { format!("  {field}: {users:?}\n") }
}

#[test]
fn whom_a_request_is_refused_for_and_who_is_left_out_are_read_back() {
    let mut e = Encoder::new();
    let all = [UserId(1), UserId(u64::MAX)];
    let (7, Reply::GroupOk { left_out, .. }) =
        read_server(e.group_ok_without(7, GROUP, RosterVersion(1), &all)).unwrap()
    else {
        panic!("not a GroupOk")
    };
    assert_eq!(left_out, all);
    let refused = e.error_naming(8, fb::ErrorCode::TooManyGroups, "full", &all, TIME_MS);
    let (8, Reply::Error { users, retry_after_ms: 0, .. }) = read_server(refused).unwrap() else {
        panic!("not an Error")
    };
    assert_eq!(users, all);
    for (frame, expected) in [
        (e.group_create(1, &all).to_vec(), Adding::All),
        (e.group_create_best_effort(1, &all).to_vec(), Adding::BestEffort),
        (e.group_add(1, GROUP, &all).to_vec(), Adding::All),
        (e.group_add_best_effort(1, GROUP, &all).to_vec(), Adding::BestEffort),
    ] {
        let (1, Request::GroupCreate { adding, .. } | Request::GroupAdd { adding, .. }) = read_client(&frame).unwrap()
        else {
            panic!("another request")
        };
        assert_eq!(adding, expected);
    }
}
