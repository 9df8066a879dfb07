//! What the API asks the other threads, and which answer belongs to which request.
//!
//! One task on control's thread. To the others it is one more shard, with a mailbox like theirs, under the number of
//! [`ShardId::of_api`]. What always holds: it never waits for another thread, and none waits for it; a request is answered
//! once, when all its questions are or when [`ANSWER_PATIENCE`] is over; at most [`API_QUESTIONS_OPEN_MAX`] questions are open;
//! when the gateway stops it takes no more, and lets go of its ends so that the others can end.

mod open_requests;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::request::{Adding, Durability, GroupEntry, Taken};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use self::open_requests::OpenRequests;
use super::problem::Problem;
use crate::contract::delivery::Delivery;
use crate::contract::ids::{Origin, SessionRef, ShardId};
use crate::contract::internal::{OrCount, Place, count};
use crate::contract::lane::{LaneAnswer, LaneEnvelope};
use crate::contract::look::{ConnectionsSeen, Look, LookAsked, SessionsSeen, UserEvent};
use crate::contract::message::{Incoming, Roster};
use crate::contract::store::{CursorRow, Page, PagePurpose, StoreAnswer, StoreAsk, TraceAsk, Traced};
use crate::contract::submission::{ChangeSubmission, GroupChange, MessageSubmission, Submission};
use crate::limits::{API_ANSWER_MS, API_LOOK_MS, API_QUESTIONS_OPEN_MAX, API_REQUESTS_MAX};
use crate::topology::mailbox::{Crossing, Mail, Mailbox, Slot};
use crate::topology::store::StoreSender;
use crate::topology::submissions::SubmissionSender;

/// How long a request waits for its answers.
const ANSWER_PATIENCE: Duration = Duration::from_millis(API_ANSWER_MS);
/// How often it is looked whose patience is over.
const LOOK_EVERY: Duration = Duration::from_millis(API_LOOK_MS);

/// Something that another thread is asked.
#[derive(Debug)]
pub(crate) enum Question {
    /// A message in a user's name.
    Message {
        /// In whose.
        sender: UserId,
        /// A user, or a group.
        to: Conversation,
        /// Its name.
        client_msg_id: ClientMsgId,
        /// 1 to `BODY_BYTES_MAX` bytes.
        body: Vec<u8>,
        /// Whether it is numbered and stored, or goes to whoever is online and is forgotten.
        durability: Durability,
    },
    /// A change of a group in a user's name.
    Change {
        /// In whose.
        actor: UserId,
        /// As a client would ask for it.
        change: GroupChange,
        /// And if some of those whom it adds cannot be added.
        adding: Adding,
    },
    /// Who is in a group.
    Roster(GroupId),
    /// Which groups a user is in.
    Groups(UserId),
    /// Which groups count against a user.
    Made(UserId),
    /// Rows of an inbox after one.
    Page {
        /// The user whose inbox is read.
        user: UserId,
        /// The rows above this one.
        after: Seq,
        /// At most so many.
        rows_max: u16,
    },
    /// Who of these, who all live on one shard, is online.
    Online(ShardId, Vec<UserId>),
    /// The newest row of a user's inbox.
    Newest(UserId),
    /// What a device has acknowledged, as the store has it. The only question of its request.
    Cursor(UserId, DeviceId),
    /// Cursors for the store to keep.
    KeepCursors(Vec<CursorRow>),
    /// What the store knows of a message, or of devices.
    Trace(TraceAsk),
    /// What a shard shows of its connections.
    Look(ShardId, Look),
}

/// What came of a question.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The message is durable, or, if it is ephemeral, has gone out.
    Numbered {
        /// The number that the ledger gave it, unique in the cluster and for ever.
        msg_id: MsgId,
        /// Its time, Unix milliseconds.
        sent_at_ms: u64,
        /// Whether it was there before.
        taken: Taken,
    },
    /// The group is so now, without those who cannot be added.
    Changed(GroupId, RosterVersion, Vec<UserId>),
    /// The group's members.
    Roster(Arc<Roster>),
    /// The user's groups.
    Groups(Vec<GroupEntry>),
    /// The rows.
    Page(Page),
    /// Those who are online.
    Online(Vec<UserId>),
    /// The newest row.
    Newest(Seq),
    /// What was acknowledged last.
    Cursor(Option<Seq>),
    /// What is known of a message, or of devices.
    Traced(Traced),
    /// It is in the store's hands.
    HandedOn,
    /// A user's sessions.
    Sessions(SessionsSeen),
    /// What happened to a user, oldest first.
    Events(Vec<UserEvent>),
    /// Some of a shard's connections.
    Connections(ConnectionsSeen),
    /// It was not done.
    Failed(Problem),
}

/// The dispatcher's ends of the channels to the other threads.
pub(crate) struct DispatcherEnds {
    /// What the others send.
    pub(crate) mailbox: Mailbox,
    /// To the ledger.
    pub(crate) submissions: SubmissionSender,
    /// To each shard, by its id.
    pub(crate) lanes: Vec<Slot<Crossing>>,
    /// To the store.
    pub(crate) store: StoreSender,
}

/// Where requests are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Dispatcher {
    requests: mpsc::Sender<Request>,
    shards: u16,
}

#[derive(Debug)]
struct Request {
    questions: Vec<Question>,
    answers: oneshot::Sender<Vec<Answer>>,
}

impl Dispatcher {
    /// Starts the task. It begins when `ends` come, and ends when `serving` is over.
    pub(crate) fn start(
        shards: u16,
        ends: oneshot::Receiver<DispatcherEnds>,
        serving: watch::Receiver<Serving>,
    ) -> Dispatcher {
        let (requests, receive_requests) = mpsc::channel(API_REQUESTS_MAX);
        tokio::spawn(run(shards, ends, serving, receive_requests));
        Dispatcher { requests, shards }
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> u16 {
        self.shards
    }

    /// Asks, and waits for all answers, in the order of the questions.
    pub(crate) async fn ask(&self, questions: Vec<Question>) -> Result<Vec<Answer>, Problem> {
        let (answers, answered) = oneshot::channel();
        self.requests.try_send(Request { questions, answers }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Problem::too_many(),
            mpsc::error::TrySendError::Closed(_) => Problem::not_serving(),
        })?;
        answered.await.map_err(|_| Problem::not_serving())
    }

    /// Asks one thing.
    pub(crate) async fn ask_one(&self, question: Question) -> Result<Answer, Problem> {
        match self.ask(vec![question]).await?.pop() {
            Some(Answer::Failed(problem)) => Err(problem),
            Some(answer) => Ok(answer),
            None => Err(Problem::no_answer()),
        }
    }
}

/// Whether the gateway takes requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Serving {
    /// It starts, or it serves.
    Yes,
    /// It stops.
    Over,
}

async fn run(
    shards: u16,
    ends: oneshot::Receiver<DispatcherEnds>,
    mut serving: watch::Receiver<Serving>,
    mut requests: mpsc::Receiver<Request>,
) {
    let Some(ends) = begun(ends, &mut requests).await else { return };
    let mut dispatch = Dispatch { shards, ends, open: OpenRequests::default(), turn: 0 };
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // What was asked before is answered before more is asked.
            biased;
            () = mail(&dispatch.ends.mailbox) => dispatch.take_mail(),
            request = requests.recv() => match request {
                Some(request) => dispatch.take(request),
                None => return,
            },
            _ = look.tick() => dispatch.open.give_up(Instant::now()),
            changed = serving.changed() => if changed.is_err() || *serving.borrow() == Serving::Over {
                break;
            },
        }
    }
    // What waits to be asked is told that the gateway stops; what was asked is answered.
    drop(requests);
    let deadline = Instant::now() + ANSWER_PATIENCE;
    while dispatch.open.questions() > 0 && timeout_at(deadline, mail(&dispatch.ends.mailbox)).await.is_ok() {
        dispatch.take_mail();
    }
}

/// Waits for the ends, and tells whoever asks meanwhile that it is too early.
async fn begun(
    mut ends: oneshot::Receiver<DispatcherEnds>,
    requests: &mut mpsc::Receiver<Request>,
) -> Option<DispatcherEnds> {
    loop {
        tokio::select! {
            ends = &mut ends => return ends.ok(),
            // Dropped: its sender is told that nothing is served yet.
            request = requests.recv() => drop(request?),
        }
    }
}

/// Waits until something is in the mailbox.
async fn mail(mailbox: &Mailbox) {
    poll_fn(|context| {
        mailbox.register(context.waker());
        if mailbox.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

/// The task's own.
struct Dispatch {
    shards: u16,
    ends: DispatcherEnds,
    open: OpenRequests,
    turn: usize,
}

impl Dispatch {
    /// Asks what a request wants to know.
    fn take(&mut self, Request { questions, answers }: Request) {
        let now = Instant::now();
        let count = questions.len();
        if count == 0 || self.open.questions() + count > API_QUESTIONS_OPEN_MAX {
            // Dropping would say that the gateway stops.
            let refused = (0..count).map(|_| Answer::Failed(Problem::too_many())).collect();
            answers.send(refused).ok();
            return;
        }
        let conn = self.open.insert(now + ANSWER_PATIENCE, count, answers);
        let session = SessionRef { shard: ShardId::of_api(self.shards), conn };
        for (number, question) in questions.into_iter().enumerate() {
            let origin = Origin::new(session, number as u32);
            let is_answered = matches!(question, Question::KeepCursors(_));
            match self.put(origin, question) {
                Ok(()) if is_answered => self.open.answer(origin, Answer::HandedOn),
                Ok(()) => {}
                Err(problem) => self.open.answer(origin, Answer::Failed(problem)),
            }
        }
        self.ends.submissions.wake();
        self.ends.store.wake();
        self.ends.lanes.iter().for_each(Slot::wake);
    }

    /// Into the mailbox of whoever knows.
    fn put(&self, origin: Origin, question: Question) -> Result<(), Problem> {
        let DispatcherEnds { submissions, lanes, store, .. } = &self.ends;
        let put = |to: ShardId, crossing| {
            let lane = lanes.get(usize::from(to.0)).or_count(Place::Route);
            lane.and_then(|lane| lane.put(crossing).ok()).ok_or_else(Problem::too_many)
        };
        let cross = |to, envelope| put(to, Crossing::Envelope(envelope));
        let ask = |ask| store.ask(ask).map_err(|_| Problem::too_many());
        let submit = |submission| submissions.submit(submission).map_err(|_| Problem::too_many());
        match question {
            Question::Message { sender, to, client_msg_id, body, durability } => {
                let incoming = Incoming::new(origin, sender, to, client_msg_id, &body);
                match (durability, to) {
                    (Durability::Durable, _) => submit(Submission::Message(MessageSubmission { incoming })),
                    (Durability::Ephemeral, Conversation::User(user)) => {
                        cross(ShardId::of_user(user, self.shards), LaneEnvelope::EphemeralSend(incoming))
                    }
                    (Durability::Ephemeral, Conversation::Group(group)) => {
                        let home = ShardId::of_group(group, self.shards);
                        cross(home, LaneEnvelope::GroupEphemeral { group, incoming })
                    }
                }
            }
            Question::Change { actor, change, adding } => {
                submit(Submission::Change(ChangeSubmission { origin, actor, change, adding }))
            }
            Question::Groups(user) => submit(Submission::Groups { origin, user }),
            Question::Made(user) => submit(Submission::Made { origin, user }),
            Question::Roster(group) => {
                let home = ShardId::of_group(group, self.shards);
                cross(home, LaneEnvelope::GroupInfo { origin, user: UserId(0), group })
            }
            Question::Online(shard, users) => cross(shard, LaneEnvelope::Presence { origin, users }),
            Question::Page { user, after, rows_max } => {
                let purpose = PagePurpose::Sync(origin.request_id);
                ask(StoreAsk::Page { session: origin.session, purpose, user, after, rows_max })
            }
            Question::Newest(user) => submit(Submission::Position { origin, user }),
            Question::Cursor(user, device) => ask(StoreAsk::Cursor { origin, user, device }),
            Question::Trace(wanted) => ask(StoreAsk::Trace { origin, ask: wanted }),
            Question::KeepCursors(rows) => ask(StoreAsk::SaveCursors(rows)),
            Question::Look(shard, look) => put(shard, Crossing::Look(Box::new(LookAsked { origin, look }))),
        }
    }

    /// Everything that has come.
    fn take_mail(&mut self) {
        while let Some(mail) = self.ends.mailbox.next(&mut self.turn) {
            match mail {
                Mail::Deliveries(deliveries) => {
                    deliveries
                        .into_iter()
                        .filter_map(delivered)
                        .for_each(|(origin, answer)| self.open.answer(origin, answer));
                }
                Mail::Crossing(Crossing::Envelope(LaneEnvelope::Answer { origin, answer })) => {
                    self.open.answer(origin, said_by_shard(answer));
                }
                Mail::Answer(answer) => {
                    if let Some((origin, answer)) = said_by_store(answer) {
                        self.open.answer(origin, answer);
                    }
                }
                Mail::Crossing(_) | Mail::Order(_) | Mail::Nodes(_) => count(Place::Mailbox),
            }
        }
    }
}

/// What the ledger says of a question, and of which.
fn delivered(delivery: Delivery) -> Option<(Origin, Answer)> {
    match delivery {
        Delivery::Numbered { origin, msg_id, sent_at_ms, .. } => {
            Some((origin, Answer::Numbered { msg_id, sent_at_ms, taken: Taken::Now }))
        }
        Delivery::Repeat { origin, msg_id, sent_at_ms, .. } => {
            Some((origin, Answer::Numbered { msg_id, sent_at_ms, taken: Taken::Before }))
        }
        Delivery::Refused { origin, code, retry_after_ms } => {
            Some((origin, Answer::Failed(Problem::refused(code, retry_after_ms))))
        }
        Delivery::Groups { origin, groups } => Some((origin, Answer::Groups(groups))),
        Delivery::Position { origin, newest, .. } => Some((origin, Answer::Newest(newest))),
        Delivery::Changed { origin, roster, announcement } => {
            Some((origin, Answer::Changed(roster.group, roster.version, announcement.left_out.clone())))
        }
        Delivery::Unchanged { origin, group, version } => Some((origin, Answer::Changed(group, version, Vec::new()))),
        Delivery::NotAdded { origin, code, users } => {
            Some((origin, Answer::Failed(Problem::refused(code, 0).naming(&users))))
        }
        _ => {
            count(Place::Mailbox);
            None
        }
    }
}

fn said_by_shard(answer: LaneAnswer) -> Answer {
    match answer {
        LaneAnswer::Members(roster) => Answer::Roster(roster),
        LaneAnswer::Online(users) => Answer::Online(users),
        LaneAnswer::Sessions(seen) => Answer::Sessions(*seen),
        LaneAnswer::Events(events) => Answer::Events(events),
        LaneAnswer::Connections(seen) => Answer::Connections(seen),
        LaneAnswer::Refused { code, retry_after_ms } => Answer::Failed(Problem::refused(code, retry_after_ms)),
        LaneAnswer::EphemeralSent { msg_id, sent_at_ms } => Answer::Numbered { msg_id, sent_at_ms, taken: Taken::Now },
    }
}

fn said_by_store(answer: StoreAnswer) -> Option<(Origin, Answer)> {
    match answer {
        StoreAnswer::Page { session, purpose: PagePurpose::Sync(request_id), page, .. } => {
            Some((Origin::new(session, request_id), Answer::Page(page)))
        }
        StoreAnswer::Unavailable { session, purpose: Some(PagePurpose::Sync(request_id)) } => {
            Some((Origin::new(session, request_id), Answer::Failed(Problem::store_unavailable())))
        }
        StoreAnswer::Cursor { origin, seq } => Some((origin, Answer::Cursor(seq))),
        StoreAnswer::Traced { origin, traced: Traced::Unavailable } => {
            Some((origin, Answer::Failed(Problem::store_unavailable())))
        }
        StoreAnswer::Traced { origin, traced } => Some((origin, Answer::Traced(traced))),
        // Of a cursor, which is the only question of its request.
        StoreAnswer::Unavailable { session, purpose: None } => {
            Some((Origin::new(session, 0), Answer::Failed(Problem::store_unavailable())))
        }
        _ => {
            count(Place::Mailbox);
            None
        }
    }
}
