//! What happened in a run: its end is printed when the run fails, and its digest tells two runs apart.
//!
//! Shared by all parts of one world. What always holds: it is written to by every run alike, so that a replay
//! shows what the failing run did.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// Events that are kept, unless `EVENTS` says otherwise.
const EVENTS_KEPT: usize = 80;

/// The events, oldest first.
#[derive(Clone)]
pub(crate) struct Events(Rc<RefCell<Inner>>);

struct Inner {
    last: VecDeque<String>,
    kept: usize,
    digest: u64,
}

impl Events {
    /// None yet.
    pub(crate) fn new() -> Self {
        let kept = std::env::var("EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(EVENTS_KEPT);
        Events(Rc::new(RefCell::new(Inner { last: VecDeque::new(), kept, digest: 0xcbf2_9ce4_8422_2325 })))
    }

    /// One more.
    pub(crate) fn note(&self, event: String) {
        tracing::warn!("{event}");
        let inner = &mut *self.0.borrow_mut();
        for byte in event.bytes() {
            inner.digest = (inner.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if inner.last.len() >= inner.kept {
            inner.last.pop_front();
        }
        inner.last.push_back(event);
    }

    /// The last ones.
    pub(crate) fn last(&self) -> Vec<String> {
        self.0.borrow().last.iter().cloned().collect()
    }

    /// Of all there were.
    pub(crate) fn digest(&self) -> u64 {
        self.0.borrow().digest
    }
}
