//! The only source of chance in a run: one seed decides everything.
//!
//! Owned by the world and lent to its parts. What always holds: the same seed gives the same run.

use std::cell::RefCell;
use std::rc::Rc;

/// Chance, shared by all parts of one world.
#[derive(Clone, Debug)]
pub(crate) struct Random(Rc<RefCell<fastrand::Rng>>);

impl Random {
    /// All that follows is decided by `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Random(Rc::new(RefCell::new(fastrand::Rng::with_seed(seed))))
    }

    /// A number in `0..end`; 0 if `end` is 0.
    pub(crate) fn below(&self, end: usize) -> usize {
        if end == 0 { 0 } else { self.0.borrow_mut().usize(0..end) }
    }

    /// A number in `from..=to`.
    pub(crate) fn between(&self, from: u64, to: u64) -> u64 {
        self.0.borrow_mut().u64(from..=to)
    }

    /// True in `parts` of `whole` cases.
    pub(crate) fn chance(&self, parts: u32, whole: u32) -> bool {
        self.0.borrow_mut().u32(0..whole) < parts
    }

    /// One of `items`; `None` if there are none.
    pub(crate) fn pick<'a, T>(&self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// 128 random bits.
    pub(crate) fn bits(&self) -> u128 {
        self.0.borrow_mut().u128(..)
    }
}
