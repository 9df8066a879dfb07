//! Which server answers at a Redis's address, by what `INFO` says that the others do not say.

use crate::cluster::look::Look;

/// Those that speak Redis's protocol and are known here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Server {
    /// Redis itself.
    Redis,
    /// The fork of Redis 7.2.
    Valkey,
    /// The fork of Redis 6 with several threads.
    KeyDb,
    /// A server of its own.
    Dragonfly,
}

impl Server {
    /// The server and its own version; absent if it does not tell.
    pub(super) fn of(look: &Look) -> Option<(Server, &str)> {
        let line = |name: &str| look.info.get(name).map(String::as_str);
        // All but Redis say as well which version of Redis they are like.
        if let Some(version) = line("dragonfly_version") {
            return Some((Server::Dragonfly, version.trim_start_matches("df-").trim_start_matches('v')));
        }
        if let Some(version) = line("valkey_version") {
            return Some((Server::Valkey, version));
        }
        let is_keydb =
            line("executable").is_some_and(|path| path.ends_with("keydb-server")) || line("mvcc_depth").is_some();
        let server = if is_keydb { Server::KeyDb } else { Server::Redis };
        Some((server, line("redis_version")?))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Server::Redis => "Redis",
            Server::Valkey => "Valkey",
            Server::KeyDb => "KeyDB",
            Server::Dragonfly => "Dragonfly",
        }
    }

    /// The oldest version that has what the ledger needs: `XTRIM ... MINID`, and scripts whose effects are what is kept.
    /// None has.
    pub(super) fn version_min(self) -> Option<(u32, u32)> {
        match self {
            Server::Redis => Some((6, 2)),
            Server::Valkey => Some((7, 2)),
            Server::KeyDb => Some((6, 3)),
            Server::Dragonfly => None,
        }
    }
}
