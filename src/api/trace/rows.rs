//! Which row of each inbox a message is.
//!
//! By bisection: in an inbox the messages' numbers rise with the rows', for both follow the ledger's order. In a cluster several
//! nodes number messages, and neighbours may stand the other way round; so where the bisection ends, the rows around are looked
//! at. What always holds: all inboxes of a page are looked into together, `TRACE_ROUNDS_MAX` times at the most; a row that is told
//! was read.

use ringway_wire::ids::{MsgId, Seq, UserId};

use crate::api::dispatch::{Answer, Dispatcher, Question};
use crate::api::problem::Problem;
use crate::contract::store::Page;
use crate::limits::{TRACE_ROUNDS_MAX, TRACE_ROWS_AROUND};

/// The search in one inbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Search {
    /// Rows up to `low` are older, and the first one behind `high` is newer, or there is none.
    Between { low: Seq, high: Seq },
    /// It is among the rows behind this one, if it is there.
    Around(Seq),
    /// It is this row; `None`: it was not found.
    Over(Option<Seq>),
}

impl Search {
    fn new(newest: Seq) -> Search {
        Search::between(Seq(0), newest)
    }

    fn between(low: Seq, high: Seq) -> Search {
        if low < high {
            Search::Between { low, high }
        } else {
            Search::Around(Seq(low.0.saturating_sub(u64::from(TRACE_ROWS_AROUND) / 2)))
        }
    }

    /// Behind which row it goes on, and with how many.
    fn wanted(self) -> Option<(Seq, u16)> {
        match self {
            Search::Between { low, high } => Some((Seq(low.0 + (high.0 - low.0) / 2), 1)),
            Search::Around(after) => Some((after, TRACE_ROWS_AROUND)),
            Search::Over(_) => None,
        }
    }

    /// The page that was wanted.
    fn next(self, message: MsgId, page: &Page) -> Search {
        if let Some((seq, _)) = page.rows.iter().find(|(_, it)| it.msg_id == message) {
            return Search::Over(Some(*seq));
        }
        match (self, page.rows.first()) {
            (Search::Between { low, high }, Some((seq, it))) if it.msg_id < message => {
                // A row that is behind `high` came in meanwhile.
                Search::between((*seq).max(low).min(high), high)
            }
            (Search::Between { low, high }, _) => Search::between(low, Seq(low.0 + (high.0 - low.0) / 2)),
            _ => Search::Over(None),
        }
    }
}

/// The rows, parallel to `users`; `known`: one that need not be looked for.
pub(super) async fn find(
    dispatcher: &Dispatcher,
    message: MsgId,
    users: &[UserId],
    known: Option<(UserId, Seq)>,
) -> Result<Vec<Option<Seq>>, Problem> {
    let newest = dispatcher.ask(users.iter().map(|user| Question::Newest(*user)).collect());
    let newest = if users.is_empty() { Vec::new() } else { newest.await? };
    let begin = |(user, answer): (&UserId, Answer)| match (known, answer) {
        (Some((of, seq)), _) if of == *user => Search::Over(Some(seq)),
        (_, Answer::Newest(newest)) => Search::new(newest),
        _ => Search::Over(None),
    };
    let mut searches: Vec<Search> = users.iter().zip(newest).map(begin).collect();
    for _ in 0..TRACE_ROUNDS_MAX {
        let open: Vec<(usize, Question)> = searches
            .iter()
            .zip(users)
            .enumerate()
            .filter_map(|(at, (search, user))| {
                let (after, rows_max) = search.wanted()?;
                Some((at, Question::Page { user: *user, after, rows_max }))
            })
            .collect();
        if open.is_empty() {
            break;
        }
        let (places, questions): (Vec<usize>, Vec<Question>) = open.into_iter().unzip();
        for (at, answer) in places.into_iter().zip(dispatcher.ask(questions).await?) {
            let Some(search) = searches.get_mut(at) else { continue };
            *search = match answer {
                Answer::Page(page) => search.next(message, &page),
                // It cannot be read now.
                _ => Search::Over(None),
            };
        }
    }
    let found = |search: Search| match search {
        Search::Over(found) => found,
        _ => None,
    };
    Ok(searches.into_iter().map(found).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ringway_wire::ids::{ClientMsgId, Conversation};

    use super::*;
    use crate::contract::ids::Origin;
    use crate::contract::message::{Incoming, Message};

    fn message(number: u64) -> Arc<Message> {
        let to = Conversation::User(UserId(2));
        Arc::new(Incoming::new(Origin::NOBODY, UserId(1), to, ClientMsgId([0; 16]), b"x").numbered(MsgId(number)))
    }

    /// Looks for a message in an inbox; the row, and how often it looked.
    fn search(inbox: &[(u64, u64)], newest: u64, wanted: u64) -> (Option<Seq>, u32) {
        let mut search = Search::new(Seq(newest));
        let mut rounds = 0;
        while let Some((after, rows_max)) = search.wanted() {
            let rows = inbox.iter().filter(|(seq, _)| *seq > after.0).take(usize::from(rows_max));
            let rows = rows.map(|(seq, number)| (Seq(*seq), message(*number))).collect();
            search = search.next(MsgId(wanted), &Page { rows, gap_to: None });
            rounds += 1;
            assert!(rounds <= u32::from(TRACE_ROUNDS_MAX), "{search:?}");
        }
        let Search::Over(found) = search else { return (None, rounds) };
        (found, rounds)
    }

    #[test]
    fn each_row_is_found_and_what_is_not_there_is_not() {
        for newest in 0..40 {
            let inbox: Vec<(u64, u64)> = (1..=newest).map(|seq| (seq, seq * 10)).collect();
            for seq in 1..=newest {
                assert_eq!(search(&inbox, newest, seq * 10).0, Some(Seq(seq)), "{newest}");
            }
            for absent in [5, 15, newest * 10 + 5] {
                assert_eq!(search(&inbox, newest, absent).0, None);
            }
        }
    }

    #[test]
    fn rows_that_are_no_longer_kept_or_stand_the_other_way_round_do_not_lead_astray() {
        let inbox: Vec<(u64, u64)> = (500_000..=1_000_000).step_by(1_000).map(|seq| (seq, seq * 10)).collect();
        for (seq, number) in &inbox {
            let (found, rounds) = search(&inbox, 1_000_000, *number);
            assert_eq!(found, Some(Seq(*seq)));
            assert!(rounds < 25, "{rounds}");
        }
        let crossed = [(1, 10), (2, 30), (3, 20), (4, 50), (5, 40), (6, 60)];
        for (seq, number) in crossed {
            assert_eq!(search(&crossed, 6, number).0, Some(Seq(seq)));
        }
    }
}
