//! What a MySQL server says about itself: for the doctor.
//!
//! What always holds: nothing is changed, and everything is asked once.

use mysql_async::Opts;

use super::connection::{Connection, Patience, options};
use crate::store::StoreError;

/// What one server says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Look {
    /// `VERSION()`.
    pub(crate) version: String,
    /// `@@version_comment`.
    pub(crate) comment: String,
    /// `@@innodb_flush_log_at_trx_commit`.
    pub(crate) flush_at_commit: u8,
    /// `@@global.read_only`.
    pub(crate) is_read_only: bool,
}

/// Connects, looks, and hangs up.
pub(crate) async fn look(url: &Opts) -> Result<Look, StoreError> {
    const ASK: &str = "SELECT VERSION(), @@version_comment, @@innodb_flush_log_at_trx_commit, @@global.read_only";
    let looking = async {
        let mut connection = Connection::open(&options(url)).await?;
        connection.first::<(String, String, u8, u8)>(ASK, Patience::Read).await
    };
    let said = looking.await.map_err(|fault| fault.into_store("looking at the database"))?;
    let (version, comment, flush_at_commit, read_only) = said.unwrap_or_default();
    Ok(Look { version, comment, flush_at_commit, is_read_only: read_only != 0 })
}
