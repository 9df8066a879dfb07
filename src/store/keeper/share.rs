//! How many rows a transaction may have: fewer while somebody reads.
//!
//! On the store's thread. What always holds: whoever reads waits for one transaction at most, and while there are readers
//! that one is short, however much is owed; a transaction has a message at least.

use super::Keeper;
use crate::journal::disk::Disk;
use crate::store::Store;
use crate::store::priority::Readers;

/// Rows of one transaction, at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransactionRows {
    alone: usize,
    beside_readers: usize,
    readers: Readers,
}

impl TransactionRows {
    /// As the store has it.
    pub(super) fn of<S: Store>(store: &S) -> Self {
        let (alone, beside_readers) = (store.transaction_rows_max(), store.transaction_rows_beside_readers());
        TransactionRows { alone, beside_readers, readers: Readers::None }
    }

    /// So many, whoever reads.
    #[cfg(test)]
    pub(super) fn set(&mut self, rows: usize) {
        (self.alone, self.beside_readers) = (rows, rows);
    }

    /// Of the next transaction.
    pub(super) fn max(self) -> usize {
        match self.readers {
            Readers::None => self.alone,
            Readers::Waited => self.beside_readers,
        }
    }
}

impl<S: Store, D: Disk> Keeper<S, D> {
    /// Whether somebody has read lately, and will go on: the next transactions are as short as that wants.
    pub(crate) fn follow_readers(&mut self, readers: Readers) {
        self.rows.readers = readers;
    }
}
