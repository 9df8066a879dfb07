//! Requests of many clients that wait for their answers, without what they say.
//!
//! For load generators, whose clients are too many for [`crate::unanswered`] to keep each one's bodies: they make a request
//! anew from what is kept of it here. What always holds: a request keeps its number, and what it is made from, through
//! refusals and reconnects until it is answered, so that it is made again as it was first; nobody takes another client's
//! answer; it goes again when the gateway said, later each time, or as soon as its client is back.

use crate::incoming::{Refusal, RequestId};
use crate::unanswered::{Fate, retry_ms};

/// Unanswered requests of a crowd. A client is told by its place in the crowd.
#[derive(Debug)]
pub struct CrowdRequests<T> {
    /// A request's number is its place here and one.
    open: Vec<Option<Waiting<T>>>,
    free: Vec<RequestId>,
    /// To go again: when (monotonic milliseconds), and which.
    again: Vec<(u64, RequestId)>,
}

#[derive(Debug)]
struct Waiting<T> {
    client: u32,
    what: T,
    /// Refusals since its connection began.
    refusals: u8,
}

impl<T> Default for CrowdRequests<T> {
    fn default() -> Self {
        CrowdRequests { open: Vec::new(), free: Vec::new(), again: Vec::new() }
    }
}

impl<T> CrowdRequests<T> {
    /// Requests without an answer.
    pub fn len(&self) -> usize {
        self.open.len() - self.free.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A client makes a request now. The number is free again when it is answered or given up.
    pub fn begin(&mut self, client: u32, what: T) -> RequestId {
        let request = self.free.pop().unwrap_or_else(|| {
            self.open.push(None);
            RequestId::of_index(self.open.len() as u32 - 1)
        });
        if let Some(place) = self.place_mut(request) {
            *place = Some(Waiting { client, what, refusals: 0 });
        }
        request
    }

    /// Whose request it is, and what it is made from.
    pub fn get(&self, request: RequestId) -> Option<(u32, &T)> {
        let waiting = self.open.get(request.index()? as usize)?.as_ref()?;
        Some((waiting.client, &waiting.what))
    }

    /// A client's request was answered for good: what it was made from; `None`: it has no such one.
    pub fn answered(&mut self, client: u32, request: RequestId) -> Option<T> {
        let waiting = self.place_mut(request)?.take_if(|waiting| waiting.client == client)?;
        self.again.retain(|(_, other)| *other != request);
        self.free.push(request);
        Some(waiting.what)
    }

    /// A client's request was refused: it goes again later, or is given up; `None`: it has no such one.
    pub fn refused(&mut self, client: u32, now_ms: u64, refusal: &Refusal<'_>) -> Option<Fate> {
        let (request, after_ms) = (refusal.request, refusal.retry_after_ms);
        let waiting = self.place_mut(request)?.as_mut().filter(|waiting| waiting.client == client)?;
        if after_ms == 0 {
            self.answered(client, request);
            return Some(Fate::GivenUp);
        }
        let wait_ms = retry_ms(after_ms, waiting.refusals);
        waiting.refusals = waiting.refusals.saturating_add(1);
        self.again.retain(|(_, other)| *other != request);
        self.again.push((now_ms + wait_ms, request));
        Some(Fate::Kept)
    }

    /// A client is logged in again: all that it has open goes once more.
    pub fn back(&mut self, client: u32, now_ms: u64) {
        let of_client = |waiting: &&mut Waiting<T>| waiting.client == client;
        let each = (0..).zip(&mut self.open).filter_map(|(at, place)| Some((at, place.as_mut().filter(of_client)?)));
        let requests: Vec<RequestId> = each
            .map(|(at, waiting)| {
                waiting.refusals = 0;
                RequestId::of_index(at)
            })
            .collect();
        self.again.retain(|(_, request)| !requests.contains(request));
        self.again.extend(requests.into_iter().map(|request| (now_ms, request)));
    }

    /// Those that are to go again now. One whose client is not there is left out: it goes when that is back.
    pub fn take_due(&mut self, now_ms: u64) -> Vec<RequestId> {
        self.again.extract_if(.., |(due_ms, _)| *due_ms <= now_ms).map(|(_, request)| request).collect()
    }

    fn place_mut(&mut self, request: RequestId) -> Option<&mut Option<Waiting<T>>> {
        self.open.get_mut(request.index()? as usize)
    }
}

#[cfg(test)]
mod tests;
