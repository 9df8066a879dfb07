//! What a chat shows, as text. Pure.
//!
//! What always holds: what a peer wrote comes out as one line of characters that can be seen, so that it can neither
//! move the cursor, nor clear the screen, nor pass for another line.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use ringway_client::Row;
use ringway_wire::ids::{Conversation, UserId};

/// Where a line of the input goes.
pub(super) fn destination(to: Option<Conversation>) -> String {
    match to {
        Some(Conversation::User(user)) => format!("lines go to user {user}"),
        Some(Conversation::Group(group)) => format!("lines go to group {group}"),
        None => "lines go nowhere yet: /to user N, /to group N or /create USER...".to_owned(),
    }
}

/// A message as a line of the output: when (UTC), its row, where, who, what.
pub(super) fn line(row: &Row, me: UserId) -> String {
    let sent_at = UNIX_EPOCH + Duration::from_millis(row.sent_at_ms.min(MS_MAX));
    let time = humantime::format_rfc3339_seconds(sent_at);
    let text = printable(&row.body);
    let who = if row.sender == me { "you".to_owned() } else { format!("user {}", row.sender) };
    match row.to {
        Conversation::Group(group) => format!("{time} [{}] group {group}, {who}: {text}", row.seq),
        Conversation::User(to) if to == me => format!("{time} [{}] {who}: {text}", row.seq),
        Conversation::User(to) => format!("{time} [{}] {who} to user {to}: {text}", row.seq),
    }
}

/// The last moment of the year 9999: what is later cannot be written.
const MS_MAX: u64 = 253_402_300_799_999;

/// Text with all that a terminal would obey written out: control characters, and those that turn its direction.
pub(super) fn printable(body: &[u8]) -> String {
    let mut text = String::with_capacity(body.len());
    for c in String::from_utf8_lossy(body).chars() {
        match c {
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                write_escaped(&mut text, c)
            }
            c if c.is_control() => write_escaped(&mut text, c),
            c => text.push(c),
        }
    }
    text
}

fn write_escaped(text: &mut String, c: char) {
    // Writing to a string does not fail.
    write!(text, "{}", c.escape_default()).ok();
}

#[cfg(test)]
mod tests {
    use ringway_wire::ids::{GroupId, MsgId, Seq};

    use super::*;

    fn row(sender: u64, to: Conversation, body: &[u8]) -> Row {
        let sent_at_ms = 1_700_000_000_000;
        Row { seq: Seq(7), msg_id: MsgId(1), sender: UserId(sender), to, sent_at_ms, body: body.to_vec() }
    }

    #[test]
    fn what_others_write_cannot_command_the_terminal() {
        assert_eq!(printable("grüße \u{1f600}".as_bytes()), "grüße \u{1f600}");
        assert_eq!(
            printable(b"\x1b[2Jgone\r\n[8] user 1: forged\x07\t"),
            r"\u{1b}[2Jgone\r\n[8] user 1: forged\u{7}\t"
        );
        assert_eq!(printable("\u{9b}2J \u{202e}txt\u{2066}".as_bytes()), r"\u{9b}2J \u{202e}txt\u{2066}");
        assert_eq!(printable("a\u{61c}b".as_bytes()), r"a\u{61c}b", "the Arabic letter mark turns what follows");
        assert_eq!(printable(&[0xff, b'x']), "\u{fffd}x");
    }

    #[test]
    fn a_line_says_when_where_and_who() {
        let me = UserId(1);
        let to_me = row(2, Conversation::User(me), b"hi");
        assert_eq!(line(&to_me, me), "2023-11-14T22:13:20Z [7] user 2: hi");
        let in_group = row(2, Conversation::Group(GroupId(9)), b"hi");
        assert_eq!(line(&in_group, me), "2023-11-14T22:13:20Z [7] group 9, user 2: hi");
        let mine = row(1, Conversation::User(UserId(3)), b"hi");
        assert_eq!(line(&mine, me), "2023-11-14T22:13:20Z [7] you to user 3: hi");
        let late = Row { sent_at_ms: u64::MAX, ..to_me };
        assert!(line(&late, me).starts_with("9999-12-31T23:59:59Z"));
    }

    #[test]
    fn it_is_said_where_a_line_goes() {
        assert_eq!(destination(Some(Conversation::User(UserId(2)))), "lines go to user 2");
        assert_eq!(destination(Some(Conversation::Group(GroupId(9)))), "lines go to group 9");
        assert!(destination(None).contains("/to user"));
    }
}
