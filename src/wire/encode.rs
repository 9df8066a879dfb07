//! Frames on the way out, all but pushes.
//!
//! A shard has one [`Encoder`], a client another. What always holds: each method returns a whole frame, prefix
//! included, that [`super::frame::read_client`] or [`super::frame::read_server`] reads back to the same values.
//! What callers pass is theirs to bound; nothing is checked here.

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use super::generated::ringway::wire as fb;
use super::push::wire_conversation;
use super::request::{Adding, GroupEntry, Login, PushView};
use crate::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};
use crate::request::{Durability, PageEnd, Taken};

type Builder = FlatBufferBuilder<'static>;
type Union = WIPOffset<UnionWIPOffset>;

/// Encodes frames, one after another, in one reused buffer. Each method returns the whole frame, prefix
/// included, valid until the next call. A shard has one.
pub struct Encoder {
    builder: Builder,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

/// What the gateway says.
impl Encoder {
    /// An encoder; its buffer grows to the largest frame it makes.
    pub fn new() -> Self {
        Encoder { builder: FlatBufferBuilder::with_capacity(512) }
    }

    /// The session has begun.
    #[expect(clippy::too_many_arguments, reason = "one for each field of the frame")]
    pub fn login_ok(
        &mut self,
        request_id: u32,
        session: u64,
        user: UserId,
        server_time_ms: u64,
        heartbeat_ms: u32,
        last_seq: Seq,
        from_seq: Seq,
    ) -> &[u8] {
        let args = fb::LoginOkArgs {
            session,
            user: user.0,
            server_time_ms,
            heartbeat_ms,
            last_seq: last_seq.0,
            from_seq: from_seq.0,
        };
        self.server(request_id, fb::Reply::LoginOk, |b| fb::LoginOk::create(b, &args).as_union_value())
    }

    /// The answer to a Ping.
    pub fn pong(&mut self, request_id: u32, server_time_ms: u64) -> &[u8] {
        let args = fb::PongArgs { server_time_ms };
        self.server(request_id, fb::Reply::Pong, |b| fb::Pong::create(b, &args).as_union_value())
    }

    /// The message is durable.
    pub fn send_ok(&mut self, request_id: u32, msg_id: MsgId, seq: Seq, sent_at_ms: u64, taken: Taken) -> &[u8] {
        let repeated = taken == Taken::Before;
        let args = fb::SendOkArgs { msg_id: msg_id.0, seq: seq.0, sent_at_ms, repeated };
        self.server(request_id, fb::Reply::SendOk, |b| fb::SendOk::create(b, &args).as_union_value())
    }

    /// A page that a Sync asked for: at most `PAGE_ROWS_MAX` rows in seq order, up to and including `through`.
    /// Rows up to `gap_to` are no longer kept.
    pub fn sync_page<'a>(
        &mut self,
        request_id: u32,
        rows: impl ExactSizeIterator<Item = PushView<'a>>,
        gap_to: Option<Seq>,
        through: Seq,
        end: PageEnd,
    ) -> &[u8] {
        self.server(request_id, fb::Reply::SyncPage, |b| {
            let mut pushes = Vec::with_capacity(rows.len());
            for row in rows {
                let body = b.create_vector(row.body);
                let args = fb::PushArgs {
                    seq: row.seq.0,
                    msg_id: row.msg_id.0,
                    sender: row.sender.0,
                    to: Some(&wire_conversation(row.to)),
                    sent_at_ms: row.sent_at_ms,
                    body: Some(body),
                };
                pushes.push(fb::Push::create(b, &args));
            }
            let rows = Some(b.create_vector(&pushes));
            let gap_to = gap_to.unwrap_or_default().0;
            let at_end = end == PageEnd::Newest;
            fb::SyncPage::create(b, &fb::SyncPageArgs { rows, through_seq: through.0, at_end, gap_to }).as_union_value()
        })
    }

    /// Rows `from..=to` are no longer kept.
    pub fn gap(&mut self, from: Seq, to: Seq) -> &[u8] {
        let args = fb::GapArgs { from_seq: from.0, to_seq: to.0 };
        self.server(0, fb::Reply::Gap, |b| fb::Gap::create(b, &args).as_union_value())
    }

    /// A group was changed, or is as asked already.
    pub fn group_ok(&mut self, request_id: u32, group: GroupId, version: RosterVersion) -> &[u8] {
        self.group_ok_without(request_id, group, version, &[])
    }

    /// The same, but for those who could not be added.
    pub fn group_ok_without(
        &mut self,
        request_id: u32,
        group: GroupId,
        version: RosterVersion,
        left_out: &[UserId],
    ) -> &[u8] {
        self.server(request_id, fb::Reply::GroupOk, |b| {
            let left_out = (!left_out.is_empty()).then(|| users(b, left_out));
            let args = fb::GroupOkArgs { group: group.0, version: version.0, left_out };
            fb::GroupOk::create(b, &args).as_union_value()
        })
    }

    /// A group's members, at most `GROUP_MEMBERS_MAX`, in any order.
    pub fn group_info(
        &mut self,
        request_id: u32,
        group: GroupId,
        version: RosterVersion,
        members: impl ExactSizeIterator<Item = (UserId, fb::Role)> + DoubleEndedIterator,
    ) -> &[u8] {
        self.server(request_id, fb::Reply::GroupInfoReply, |b| {
            let members = members.map(|(user, role)| fb::Member::new(user.0, role));
            let members = Some(b.create_vector_from_iter(members));
            let args = fb::GroupInfoReplyArgs { group: group.0, version: version.0, members };
            fb::GroupInfoReply::create(b, &args).as_union_value()
        })
    }

    /// The groups of a user.
    pub fn group_list(&mut self, request_id: u32, groups: &[GroupEntry]) -> &[u8] {
        self.server(request_id, fb::Reply::GroupListReply, |b| {
            let mut entries = Vec::with_capacity(groups.len());
            for entry in groups {
                let args = fb::GroupEntryArgs {
                    group: entry.group.0,
                    version: entry.version.0,
                    role: entry.role,
                    members_count: entry.members_count,
                };
                entries.push(fb::GroupEntry::create(b, &args));
            }
            let groups = Some(b.create_vector(&entries));
            fb::GroupListReply::create(b, &fb::GroupListReplyArgs { groups }).as_union_value()
        })
    }

    /// A group has changed: `actor` did `kind` to `members`; `owner` owns it since, `None`: nobody is left.
    pub fn group_changed(
        &mut self,
        group: GroupId,
        version: RosterVersion,
        kind: fb::GroupChangeKind,
        actor: UserId,
        members: &[UserId],
        owner: Option<UserId>,
    ) -> &[u8] {
        self.server(0, fb::Reply::GroupChanged, |b| {
            let args = fb::GroupChangedArgs {
                group: group.0,
                version: version.0,
                kind,
                actor: actor.0,
                members: Some(users(b, members)),
                owner: owner.unwrap_or_default().0,
            };
            fb::GroupChanged::create(b, &args).as_union_value()
        })
    }

    /// Who is online of those asked for.
    pub fn presence(&mut self, request_id: u32, online: &[UserId]) -> &[u8] {
        self.server(request_id, fb::Reply::PresenceInfo, |b| {
            let online = Some(users(b, online));
            fb::PresenceInfo::create(b, &fb::PresenceInfoArgs { online }).as_union_value()
        })
    }

    /// The session ends when its newer token expires, then.
    pub fn refresh_ok(&mut self, request_id: u32, expires_at_ms: u64) -> &[u8] {
        let args = fb::RefreshOkArgs { expires_at_ms };
        self.server(request_id, fb::Reply::RefreshOk, |b| fb::RefreshOk::create(b, &args).as_union_value())
    }

    /// A request was refused. `retry_after_ms` of 0: never send it again as it is.
    pub fn error(
        &mut self,
        request_id: u32,
        code: fb::ErrorCode,
        message: &str,
        retry_after_ms: u32,
        server_time_ms: u64,
    ) -> &[u8] {
        self.server(request_id, fb::Reply::Error, |b| {
            let message = Some(b.create_string(message));
            let args = fb::ErrorArgs { code, message, retry_after_ms, server_time_ms, users: None };
            fb::Error::create(b, &args).as_union_value()
        })
    }

    /// A request was refused because of some whom it names, and is not to be sent again as it is.
    pub fn error_naming(
        &mut self,
        request_id: u32,
        code: fb::ErrorCode,
        message: &str,
        named: &[UserId],
        server_time_ms: u64,
    ) -> &[u8] {
        self.server(request_id, fb::Reply::Error, |b| {
            let (message, users) = (Some(b.create_string(message)), Some(users(b, named)));
            fb::Error::create(b, &fb::ErrorArgs { code, message, retry_after_ms: 0, server_time_ms, users })
                .as_union_value()
        })
    }

    /// The connection's last frame. `request_id` is that of the Login or Logout that it answers; 0: nobody asked for it.
    /// `reconnect_after_ms` of `None`: do not reconnect.
    pub fn closing(
        &mut self,
        request_id: u32,
        reason: fb::CloseReason,
        message: &str,
        reconnect_after_ms: Option<u32>,
        server_time_ms: u64,
    ) -> &[u8] {
        self.server(request_id, fb::Reply::Closing, |b| {
            let args = fb::ClosingArgs {
                reason,
                message: Some(b.create_string(message)),
                reconnect: reconnect_after_ms.is_some(),
                reconnect_after_ms: reconnect_after_ms.unwrap_or(0),
                server_time_ms,
            };
            fb::Closing::create(b, &args).as_union_value()
        })
    }
}

/// What a client says.
impl Encoder {
    /// The first frame, with the gateway's own heartbeat. `cursor` of `None`: go on from the one that the gateway keeps
    /// for the device.
    pub fn login(&mut self, request_id: u32, token: &str, device: DeviceId, cursor: Option<Seq>) -> &[u8] {
        self.login_as(request_id, &Login { token, device, cursor, heartbeat_ms: 0 })
    }

    /// The first frame, with all that it may say.
    pub fn login_as(&mut self, request_id: u32, login: &Login<'_>) -> &[u8] {
        self.client(request_id, fb::Request::Login, |b| {
            let cursor = login.cursor.map(|seq| fb::Cursor::new(seq.0));
            let args = fb::LoginArgs {
                token: Some(b.create_string(login.token)),
                device: login.device.0,
                cursor: cursor.as_ref(),
                heartbeat_ms: login.heartbeat_ms,
            };
            fb::Login::create(b, &args).as_union_value()
        })
    }

    /// Are you there?
    pub fn ping(&mut self, request_id: u32) -> &[u8] {
        self.client(request_id, fb::Request::Ping, |b| fb::Ping::create(b, &fb::PingArgs {}).as_union_value())
    }

    /// One message.
    pub fn send(
        &mut self,
        request_id: u32,
        to: Conversation,
        client_msg_id: ClientMsgId,
        body: &[u8],
        durability: Durability,
    ) -> &[u8] {
        let (high, low) = client_msg_id.halves();
        self.client(request_id, fb::Request::Send, |b| {
            let args = fb::SendArgs {
                to: Some(&wire_conversation(to)),
                client_msg_id: Some(&fb::ClientMsgId::new(high, low)),
                body: Some(b.create_vector(body)),
                ephemeral: durability == Durability::Ephemeral,
            };
            fb::Send::create(b, &args).as_union_value()
        })
    }

    /// Everything up to `seq` has been received.
    pub fn ack(&mut self, seq: Seq) -> &[u8] {
        let args = fb::AckArgs { seq: seq.0 };
        self.client(0, fb::Request::Ack, |b| fb::Ack::create(b, &args).as_union_value())
    }

    /// A page of the inbox after a row.
    pub fn sync(&mut self, request_id: u32, after: Seq, rows_max: u32) -> &[u8] {
        let args = fb::SyncArgs { after_seq: after.0, rows_max };
        self.client(request_id, fb::Request::Sync, |b| fb::Sync::create(b, &args).as_union_value())
    }

    /// A new group; the caller need not be named.
    pub fn group_create(&mut self, request_id: u32, members: &[UserId]) -> &[u8] {
        self.group_create_as(request_id, members, Adding::All)
    }

    /// The same, of whoever can be added.
    pub fn group_create_best_effort(&mut self, request_id: u32, members: &[UserId]) -> &[u8] {
        self.group_create_as(request_id, members, Adding::BestEffort)
    }

    fn group_create_as(&mut self, request_id: u32, members: &[UserId], adding: Adding) -> &[u8] {
        let best_effort = adding == Adding::BestEffort;
        self.client(request_id, fb::Request::GroupCreate, |b| {
            let members = Some(users(b, members));
            fb::GroupCreate::create(b, &fb::GroupCreateArgs { members, best_effort }).as_union_value()
        })
    }

    /// Members to add.
    pub fn group_add(&mut self, request_id: u32, group: GroupId, members: &[UserId]) -> &[u8] {
        self.group_add_as(request_id, group, members, Adding::All)
    }

    /// The same, of whoever can be added.
    pub fn group_add_best_effort(&mut self, request_id: u32, group: GroupId, members: &[UserId]) -> &[u8] {
        self.group_add_as(request_id, group, members, Adding::BestEffort)
    }

    fn group_add_as(&mut self, request_id: u32, group: GroupId, members: &[UserId], adding: Adding) -> &[u8] {
        let best_effort = adding == Adding::BestEffort;
        self.client(request_id, fb::Request::GroupAdd, |b| {
            let members = Some(users(b, members));
            fb::GroupAdd::create(b, &fb::GroupAddArgs { group: group.0, members, best_effort }).as_union_value()
        })
    }

    /// Members to remove.
    pub fn group_remove(&mut self, request_id: u32, group: GroupId, members: &[UserId]) -> &[u8] {
        self.client(request_id, fb::Request::GroupRemove, |b| {
            let members = Some(users(b, members));
            fb::GroupRemove::create(b, &fb::GroupRemoveArgs { group: group.0, members }).as_union_value()
        })
    }

    /// Leave a group.
    pub fn group_leave(&mut self, request_id: u32, group: GroupId) -> &[u8] {
        let args = fb::GroupLeaveArgs { group: group.0 };
        self.client(request_id, fb::Request::GroupLeave, |b| fb::GroupLeave::create(b, &args).as_union_value())
    }

    /// Who is in this group?
    pub fn group_info_request(&mut self, request_id: u32, group: GroupId) -> &[u8] {
        let args = fb::GroupInfoArgs { group: group.0 };
        self.client(request_id, fb::Request::GroupInfo, |b| fb::GroupInfo::create(b, &args).as_union_value())
    }

    /// Which groups am I in?
    pub fn group_list_request(&mut self, request_id: u32) -> &[u8] {
        let args = fb::GroupListArgs {};
        self.client(request_id, fb::Request::GroupList, |b| fb::GroupList::create(b, &args).as_union_value())
    }

    /// Which of these are online?
    pub fn presence_request(&mut self, request_id: u32, asked: &[UserId]) -> &[u8] {
        self.client(request_id, fb::Request::Presence, |b| {
            let users = Some(users(b, asked));
            fb::Presence::create(b, &fb::PresenceArgs { users }).as_union_value()
        })
    }

    /// A newer token for this session.
    pub fn refresh(&mut self, request_id: u32, token: &str) -> &[u8] {
        self.client(request_id, fb::Request::Refresh, |b| {
            let token = Some(b.create_string(token));
            fb::Refresh::create(b, &fb::RefreshArgs { token }).as_union_value()
        })
    }

    /// This session ends.
    pub fn logout(&mut self, request_id: u32) -> &[u8] {
        self.client(request_id, fb::Request::Logout, |b| fb::Logout::create(b, &fb::LogoutArgs {}).as_union_value())
    }
}

impl Encoder {
    fn server(&mut self, request_id: u32, reply_type: fb::Reply, build: impl FnOnce(&mut Builder) -> Union) -> &[u8] {
        self.builder.reset();
        let reply = Some(build(&mut self.builder));
        let args = fb::ServerFrameArgs { request_id, reply_type, reply };
        let root = fb::ServerFrame::create(&mut self.builder, &args);
        self.builder.finish_size_prefixed(root, None);
        self.builder.finished_data()
    }

    fn client(
        &mut self,
        request_id: u32,
        request_type: fb::Request,
        build: impl FnOnce(&mut Builder) -> Union,
    ) -> &[u8] {
        self.builder.reset();
        let request = Some(build(&mut self.builder));
        let args = fb::ClientFrameArgs { request_id, request_type, request };
        let root = fb::ClientFrame::create(&mut self.builder, &args);
        self.builder.finish_size_prefixed(root, None);
        self.builder.finished_data()
    }
}

fn users(builder: &mut Builder, users: &[UserId]) -> WIPOffset<flatbuffers::Vector<'static, u64>> {
    builder.create_vector_from_iter(users.iter().map(|user| user.0))
}
