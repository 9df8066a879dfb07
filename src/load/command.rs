//! What a line of a chat's input means. Pure; it knows no session.

use ringway_wire::ids::{Conversation, GroupId, UserId};

/// The commands, for people.
pub(crate) const HELP: &str = "\
a line is a message; commands:
  /to user N | /to group N    where messages go from now on
  /create [USER...]           a new group with these members; messages go there
  /add GROUP USER...          add members        /remove GROUP USER...  remove members
  /leave GROUP                leave it           /info GROUP            its members
  /groups                     the groups you are in
  /online USER...             who of these is online
  /quit                       end; //text sends /text";

/// A line, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command<'a> {
    Nothing,
    Say(&'a str),
    To(Conversation),
    Create(Vec<UserId>),
    Add(GroupId, Vec<UserId>),
    Remove(GroupId, Vec<UserId>),
    Leave(GroupId),
    Info(GroupId),
    Groups,
    Online(Vec<UserId>),
    Help,
    Quit,
}

impl<'a> Command<'a> {
    /// Reads a line; what is wrong with it, if it is none.
    pub(crate) fn parse(line: &'a str) -> Result<Command<'a>, &'static str> {
        let Some(command) = line.strip_prefix('/') else {
            return Ok(if line.is_empty() { Command::Nothing } else { Command::Say(line) });
        };
        if command.starts_with('/') {
            return Ok(Command::Say(command));
        }
        let mut words = command.split_whitespace();
        match words.next() {
            Some("to") => match (words.next(), number(words.next())) {
                (Some("user"), Ok(user)) => Ok(Command::To(Conversation::User(UserId(user)))),
                (Some("group"), Ok(group)) => Ok(Command::To(Conversation::Group(GroupId(group)))),
                _ => Err("expected /to user N or /to group N"),
            },
            Some("create") => Ok(Command::Create(users(words)?)),
            Some("add") => Ok(Command::Add(GroupId(number(words.next())?), some_users(words)?)),
            Some("remove") => Ok(Command::Remove(GroupId(number(words.next())?), some_users(words)?)),
            Some("leave") => Ok(Command::Leave(GroupId(number(words.next())?))),
            Some("info") => Ok(Command::Info(GroupId(number(words.next())?))),
            Some("groups") => Ok(Command::Groups),
            Some("online") => Ok(Command::Online(some_users(words)?)),
            Some("help") => Ok(Command::Help),
            Some("quit") => Ok(Command::Quit),
            _ => Err("no such command"),
        }
    }
}

fn number(word: Option<&str>) -> Result<u64, &'static str> {
    word.and_then(|word| word.parse().ok()).ok_or("a number is missing")
}

fn users<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<UserId>, &'static str> {
    words.map(|word| number(Some(word)).map(UserId)).collect()
}

fn some_users<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<UserId>, &'static str> {
    users(words).and_then(|users| if users.is_empty() { Err("users are missing") } else { Ok(users) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn lines_are_messages_and_commands_are_read() {
        assert_eq!(Command::parse("hello /to"), Ok(Command::Say("hello /to")));
        assert_eq!(Command::parse("//etc"), Ok(Command::Say("/etc")));
        assert_eq!(Command::parse(""), Ok(Command::Nothing));
        assert_eq!(Command::parse("/to group 7"), Ok(Command::To(Conversation::Group(GroupId(7)))));
        assert_eq!(Command::parse("/create"), Ok(Command::Create(vec![])));
        assert_eq!(Command::parse("/add 7 1 2"), Ok(Command::Add(GroupId(7), vec![UserId(1), UserId(2)])));
    }

    #[test]
    fn a_command_that_lacks_something_is_refused() {
        for line in ["/to 7", "/to group x", "/add 7", "/add", "/leave", "/remove 7 x", "/nonsense", "/", "/online"] {
            assert!(Command::parse(line).is_err(), "{line}");
        }
    }
}
