//! Frames on the way in: verified, then read.
//!
//! A frame here is size-prefixed: `u32` little-endian length, then the root table (README.md). Pure functions for
//! every thread. What always holds: nothing of a frame is looked at before the FlatBuffers verifier has accepted
//! all of it with the limits in `limits.rs`, and nothing that can come in makes them panic. On the way out frames
//! are made by [`Encoder`], and pushes, which go to many recipients, by [`PushFrame`].

use flatbuffers::VerifierOptions;
use thiserror::Error;

use super::generated::ringway::wire as fb;
use super::request::{Adding, Login, PushView, Reply, Request, Users};
use crate::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, Seq, UserId};
use crate::limits::{
    CLIENT_FRAME_BYTES_MAX, FRAME_DEPTH_MAX, FRAME_TABLES_MAX, GROUP_MEMBERS_MAX, PAGE_ROWS_MAX,
    SERVER_FRAME_BYTES_MAX, USER_GROUPS_MAX,
};

pub use super::encode::Encoder;
pub use super::push::PushFrame;
pub use crate::limits::PREFIX_BYTES;

/// The verifier counts what it reads of a table beside its bytes (a vtable's entries, shared vtables once per
/// table): so much per table at most, so that a frame at the limit is not refused for it.
const COUNTED_TWICE_BYTES: usize = 64;

/// Why a frame was not understood; each is a reason to close.
#[derive(Clone, Copy, PartialEq, Eq, Error, Debug)]
pub enum FrameError {
    /// The verifier refused it, or a field is missing.
    #[error("the frame is not a valid FlatBuffers frame of this protocol")]
    Malformed,
    /// The union's type is one this gateway does not know.
    #[error("request type {0} is not known")]
    UnknownRequest(u8),
}

/// What a client's frame may be: two tables, neither deep nor larger than the frame limit.
const CLIENT_OPTIONS: VerifierOptions = VerifierOptions {
    max_depth: FRAME_DEPTH_MAX,
    max_tables: FRAME_TABLES_MAX,
    max_apparent_size: CLIENT_FRAME_BYTES_MAX + FRAME_TABLES_MAX * COUNTED_TWICE_BYTES,
    ignore_missing_null_terminator: false,
};

/// What a gateway's frame may be: the same, with a table for each row of a page or each group of a list.
const SERVER_OPTIONS: VerifierOptions = VerifierOptions {
    max_depth: FRAME_DEPTH_MAX,
    max_tables: SERVER_TABLES_MAX,
    max_apparent_size: SERVER_FRAME_BYTES_MAX + SERVER_TABLES_MAX * COUNTED_TWICE_BYTES,
    ignore_missing_null_terminator: false,
};

/// Tables in a gateway's frame.
const SERVER_TABLES_MAX: usize = FRAME_TABLES_MAX + USER_GROUPS_MAX;

const _: () = assert!(USER_GROUPS_MAX >= PAGE_ROWS_MAX, "a page has fewer tables than the longest group list");

/// Verifies and reads one frame from a client, prefix included: its request id and what it asks.
pub fn read_client(frame: &[u8]) -> Result<(u32, Request<'_>), FrameError> {
    check_size(frame, CLIENT_FRAME_BYTES_MAX)?;
    let root = flatbuffers::size_prefixed_root_with_opts::<fb::ClientFrame>(&CLIENT_OPTIONS, frame)
        .map_err(|_| FrameError::Malformed)?;
    Ok((root.request_id(), request(&root, frame)?))
}

/// Verifies and reads one frame from the gateway, prefix included: the request id it answers (0: none), and what
/// it says. Used by clients.
pub fn read_server(frame: &[u8]) -> Result<(u32, Reply<'_>), FrameError> {
    check_size(frame, SERVER_FRAME_BYTES_MAX)?;
    let root = flatbuffers::size_prefixed_root_with_opts::<fb::ServerFrame>(&SERVER_OPTIONS, frame)
        .map_err(|_| FrameError::Malformed)?;
    Ok((root.request_id(), reply(&root)?))
}

/// The prefix says how long the frame is, and the frame is so long.
fn check_size(frame: &[u8], limit: usize) -> Result<(), FrameError> {
    match frame.split_first_chunk::<PREFIX_BYTES>() {
        Some((prefix, rest)) if rest.len() <= limit && u32::from_le_bytes(*prefix) as usize == rest.len() => Ok(()),
        _ => Err(FrameError::Malformed),
    }
}

/// The verified root's request. A member that is missing though its type is set was refused by the verifier;
/// asking for it is an `Option` all the same.
fn request<'a>(root: &fb::ClientFrame<'a>, frame: &[u8]) -> Result<Request<'a>, FrameError> {
    use FrameError::Malformed;
    let aligned = |is_aligned: bool| if is_aligned { Ok(()) } else { Err(Malformed) };
    Ok(match root.request_type() {
        fb::Request::Login => {
            let t = root.request_as_login().ok_or(Malformed)?;
            aligned(t.cursor().is_none_or(|cursor| is_aligned(frame, cursor)))?;
            let cursor = t.cursor().map(|cursor| Seq(cursor.seq()));
            let device = DeviceId(t.device());
            Request::Login(Login { token: t.token(), device, cursor, heartbeat_ms: t.heartbeat_ms() })
        }
        fb::Request::Ping => Request::Ping,
        fb::Request::Send => {
            let t = root.request_as_send().ok_or(Malformed)?;
            aligned(is_aligned(frame, t.to()) && is_aligned(frame, t.client_msg_id()))?;
            let Ok(to) = conversation(t.to()) else {
                return Ok(Request::SendToUnknownKind { kind: t.to().kind().0 });
            };
            Request::Send {
                to,
                client_msg_id: ClientMsgId::from_halves(t.client_msg_id().high(), t.client_msg_id().low()),
                body: t.body().bytes(),
                ephemeral: t.ephemeral(),
            }
        }
        fb::Request::Ack => Request::Ack { seq: Seq(root.request_as_ack().ok_or(Malformed)?.seq()) },
        fb::Request::Sync => {
            let t = root.request_as_sync().ok_or(Malformed)?;
            Request::Sync { after: Seq(t.after_seq()), rows_max: t.rows_max() }
        }
        fb::Request::GroupCreate => {
            let t = root.request_as_group_create().ok_or(Malformed)?;
            Request::GroupCreate { members: t.members().map(Users), adding: adding(t.best_effort()) }
        }
        fb::Request::GroupAdd => {
            let t = root.request_as_group_add().ok_or(Malformed)?;
            Request::GroupAdd {
                group: GroupId(t.group()),
                members: Users(t.members()),
                adding: adding(t.best_effort()),
            }
        }
        fb::Request::GroupRemove => {
            let t = root.request_as_group_remove().ok_or(Malformed)?;
            Request::GroupRemove { group: GroupId(t.group()), members: Users(t.members()) }
        }
        fb::Request::GroupLeave => {
            Request::GroupLeave { group: GroupId(root.request_as_group_leave().ok_or(Malformed)?.group()) }
        }
        fb::Request::GroupInfo => {
            Request::GroupInfo { group: GroupId(root.request_as_group_info().ok_or(Malformed)?.group()) }
        }
        fb::Request::GroupList => Request::GroupList,
        fb::Request::Presence => {
            Request::Presence { users: Users(root.request_as_presence().ok_or(Malformed)?.users()) }
        }
        fb::Request::Logout => Request::Logout,
        fb::Request::Refresh => Request::Refresh { token: root.request_as_refresh().ok_or(Malformed)?.token() },
        unknown => return Err(FrameError::UnknownRequest(unknown.0)),
    })
}

fn adding(best_effort: bool) -> Adding {
    if best_effort { Adding::BestEffort } else { Adding::All }
}

/// The verified root's reply.
fn reply<'a>(root: &fb::ServerFrame<'a>) -> Result<Reply<'a>, FrameError> {
    use FrameError::Malformed;
    Ok(match root.reply_type() {
        fb::Reply::LoginOk => {
            let t = root.reply_as_login_ok().ok_or(Malformed)?;
            Reply::LoginOk {
                session: t.session(),
                user: UserId(t.user()),
                server_time_ms: t.server_time_ms(),
                heartbeat_ms: t.heartbeat_ms(),
                last_seq: Seq(t.last_seq()),
                from_seq: Seq(t.from_seq()),
            }
        }
        fb::Reply::RefreshOk => {
            Reply::RefreshOk { expires_at_ms: root.reply_as_refresh_ok().ok_or(Malformed)?.expires_at_ms() }
        }
        fb::Reply::Pong => Reply::Pong { server_time_ms: root.reply_as_pong().ok_or(Malformed)?.server_time_ms() },
        fb::Reply::SendOk => {
            let t = root.reply_as_send_ok().ok_or(Malformed)?;
            Reply::SendOk {
                msg_id: MsgId(t.msg_id()),
                seq: Seq(t.seq()),
                sent_at_ms: t.sent_at_ms(),
                repeat: t.repeated(),
            }
        }
        fb::Reply::Push => Reply::Push(push(&root.reply_as_push().ok_or(Malformed)?)?),
        fb::Reply::SyncPage => sync_page(&root.reply_as_sync_page().ok_or(Malformed)?)?,
        fb::Reply::Gap => {
            let t = root.reply_as_gap().ok_or(Malformed)?;
            Reply::Gap { from: Seq(t.from_seq()), to: Seq(t.to_seq()) }
        }
        fb::Reply::GroupOk => {
            let t = root.reply_as_group_ok().ok_or(Malformed)?;
            let left_out = t.left_out().iter().flatten().map(UserId).collect();
            Reply::GroupOk { group: GroupId(t.group()), version: t.version(), left_out }
        }
        fb::Reply::GroupInfoReply => group_info(&root.reply_as_group_info_reply().ok_or(Malformed)?)?,
        fb::Reply::GroupListReply => group_list(&root.reply_as_group_list_reply().ok_or(Malformed)?)?,
        fb::Reply::GroupChanged => group_changed(&root.reply_as_group_changed().ok_or(Malformed)?),
        fb::Reply::PresenceInfo => {
            let online = root.reply_as_presence_info().ok_or(Malformed)?.online();
            Reply::Presence { online: online.iter().map(UserId).collect() }
        }
        fb::Reply::Error => {
            let t = root.reply_as_error().ok_or(Malformed)?;
            Reply::Error {
                code: t.code(),
                message: t.message().unwrap_or(""),
                retry_after_ms: t.retry_after_ms(),
                server_time_ms: t.server_time_ms(),
                users: t.users().iter().flatten().map(UserId).collect(),
            }
        }
        fb::Reply::Closing => {
            let t = root.reply_as_closing().ok_or(Malformed)?;
            Reply::Closing {
                reason: t.reason(),
                message: t.message().unwrap_or(""),
                reconnect: t.reconnect(),
                reconnect_after_ms: t.reconnect_after_ms(),
                server_time_ms: t.server_time_ms(),
            }
        }
        unknown => return Err(FrameError::UnknownRequest(unknown.0)),
    })
}

/// Whether a struct lies where its eight-byte fields are aligned, counted from the prefix. The verifier looks at the
/// generated type, which is an array of bytes.
fn is_aligned<T>(frame: &[u8], field: &T) -> bool {
    let at = std::ptr::from_ref(field).addr().wrapping_sub(frame.as_ptr().addr());
    at.is_multiple_of(size_of::<u64>())
}

fn conversation(to: &fb::Conversation) -> Result<Conversation, FrameError> {
    match to.kind() {
        fb::ConversationKind::User => Ok(Conversation::User(UserId(to.id()))),
        fb::ConversationKind::Group => Ok(Conversation::Group(GroupId(to.id()))),
        _ => Err(FrameError::Malformed),
    }
}

fn push<'a>(t: &fb::Push<'a>) -> Result<PushView<'a>, FrameError> {
    Ok(PushView {
        seq: Seq(t.seq()),
        msg_id: MsgId(t.msg_id()),
        sender: UserId(t.sender()),
        to: conversation(t.to())?,
        sent_at_ms: t.sent_at_ms(),
        body: t.body().bytes(),
    })
}

fn sync_page<'a>(t: &fb::SyncPage<'a>) -> Result<Reply<'a>, FrameError> {
    if t.rows().len() > PAGE_ROWS_MAX {
        return Err(FrameError::Malformed);
    }
    Ok(Reply::SyncPage {
        rows: t.rows().iter().map(|row| push(&row)).collect::<Result<_, _>>()?,
        through: Seq(t.through_seq()),
        end: t.at_end(),
        gap_to: Some(Seq(t.gap_to())).filter(|to| *to != Seq(0)),
    })
}

fn group_info<'a>(t: &fb::GroupInfoReply<'a>) -> Result<Reply<'a>, FrameError> {
    if t.members().len() > GROUP_MEMBERS_MAX {
        return Err(FrameError::Malformed);
    }
    let members = t.members().iter().map(|m| (UserId(m.user()), m.role())).collect();
    Ok(Reply::GroupInfo { group: GroupId(t.group()), version: t.version(), members })
}

fn group_list<'a>(t: &fb::GroupListReply<'a>) -> Result<Reply<'a>, FrameError> {
    if t.groups().len() > USER_GROUPS_MAX {
        return Err(FrameError::Malformed);
    }
    let entry = |e: fb::GroupEntry<'a>| (GroupId(e.group()), e.version(), e.role(), e.members_count());
    Ok(Reply::GroupList { groups: t.groups().iter().map(entry).collect() })
}

fn group_changed<'a>(t: &fb::GroupChanged<'a>) -> Reply<'a> {
    Reply::GroupChanged {
        group: GroupId(t.group()),
        version: t.version(),
        kind: t.kind(),
        actor: UserId(t.actor()),
        members: t.members().iter().map(UserId).collect(),
        owner: UserId(t.owner()),
    }
}

#[cfg(test)]
mod tests;
