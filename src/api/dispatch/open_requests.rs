//! The requests that wait for answers from other threads.
//!
//! Owned by the dispatcher. What always holds: an answer that comes too late, or twice, belongs to nobody: the slot's
//! generation tells; a request is answered once, with as many answers as it had questions.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Answer;
use crate::api::problem::Problem;
use crate::contract::ids::{ConnId, Origin};
use crate::contract::internal::{OrCount, Place};

/// The requests, by the slot that is in their questions' origin.
#[derive(Default)]
pub(super) struct OpenRequests {
    slots: Vec<Slot>,
    free: Vec<u32>,
    questions: usize,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    request: Option<OpenRequest>,
}

struct OpenRequest {
    given_up_at: Instant,
    missing: usize,
    answers: Vec<Option<Answer>>,
    answered: oneshot::Sender<Vec<Answer>>,
}

impl OpenRequests {
    /// Questions without an answer, of all requests.
    pub(super) fn questions(&self) -> usize {
        self.questions
    }

    /// A request of so many questions, at least one. What its questions' origins name.
    pub(super) fn insert(
        &mut self,
        given_up_at: Instant,
        questions: usize,
        answered: oneshot::Sender<Vec<Answer>>,
    ) -> ConnId {
        self.questions += questions;
        let answers = (0..questions).map(|_| None).collect();
        let request = Some(OpenRequest { given_up_at, missing: questions, answers, answered });
        let free = self.free.pop();
        let free = free.and_then(|slot| Some((slot, self.slots.get_mut(slot as usize).or_count(Place::Mailbox)?)));
        match free {
            Some((slot, place)) => {
                place.request = request;
                ConnId { slot, generation: place.generation }
            }
            None => {
                self.slots.push(Slot { generation: 0, request });
                ConnId { slot: self.slots.len() as u32 - 1, generation: 0 }
            }
        }
    }

    /// An answer has come; to a request that was given up it is nothing.
    pub(super) fn answer(&mut self, origin: Origin, answer: Answer) {
        let ConnId { slot, generation } = origin.session.conn;
        let Some(place) = self.slots.get_mut(slot as usize).filter(|place| place.generation == generation) else {
            return;
        };
        let Some(request) = &mut place.request else { return };
        let Some(empty) = request.answers.get_mut(origin.request_id as usize).filter(|it| it.is_none()) else { return };
        *empty = Some(answer);
        request.missing -= 1;
        self.questions -= 1;
        if request.missing == 0 {
            self.finish(slot);
        }
    }

    /// Answers what has waited too long: nobody knows what came of it.
    pub(super) fn give_up(&mut self, now: Instant) {
        let late = |place: &Slot| place.request.as_ref().is_some_and(|request| request.given_up_at <= now);
        let late: Vec<u32> = (0..).zip(&self.slots).filter(|(_, place)| late(place)).map(|(slot, _)| slot).collect();
        for slot in late {
            if let Some(request) = self.slots.get(slot as usize).and_then(|place| place.request.as_ref()) {
                self.questions -= request.missing;
            }
            self.finish(slot);
        }
    }

    fn finish(&mut self, slot: u32) {
        let Some(place) = self.slots.get_mut(slot as usize).or_count(Place::Mailbox) else { return };
        let Some(request) = place.request.take().or_count(Place::Mailbox) else { return };
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot);
        let answers = request.answers.into_iter();
        // A caller that is gone wants no answer.
        request
            .answered
            .send(answers.map(|it| it.unwrap_or_else(|| Answer::Failed(Problem::no_answer()))).collect())
            .ok();
    }
}

#[cfg(test)]
mod tests;
