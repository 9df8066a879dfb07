//! The data directory: one gateway at a time, its development secret, and the files that say where it listens.
//!
//! Used by the main thread at start. What always holds: while a [`DataDir`] lives, no other gateway has the same
//! directory (the kernel drops the lock with the process, so a crash leaves none behind). The journal and the
//! store in it belong to their own modules.

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FlockArg, flock};

const LOCK: &str = "lock";
const SECRET: &str = "secret";
const SECRET_RANDOM_BYTES: usize = 32;

/// A locked data directory.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Holds the lock until it is closed.
    _lock: File,
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has the lock.
    #[error("another gateway already runs on the data directory {0}: stop it, or give this one its own --data-dir")]
    InUse(PathBuf),
    /// It cannot be created, or nothing can be written in it.
    #[error("the data directory {path} cannot be written: create it for this user, or set --data-dir")]
    Unwritable {
        /// The file that is concerned.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A file in it could not be read or written.
    #[error("{path} cannot be {what}")]
    File {
        /// The file that is concerned.
        path: PathBuf,
        /// "read" or "written": what could not be done with it.
        what: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The socket for operators could not be made.
    #[error("{path} cannot be listened on; the path of a data directory may have some 90 bytes")]
    Socket {
        /// The file that is concerned.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// Whether the development secret was there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SecretOrigin {
    /// It was.
    Found,
    /// It was made just now.
    Made,
}

impl DataDir {
    /// Creates the directory if need be, and locks it.
    pub(crate) fn lock(path: &Path) -> Result<DataDir, DataDirError> {
        let unwritable = |source| DataDirError::Unwritable { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(unwritable)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK)).map_err(unwritable)?;
        flock(lock.as_raw_fd(), FlockArg::LockExclusiveNonblock).map_err(|error| match error {
            Errno::EWOULDBLOCK => DataDirError::InUse(path.to_owned()),
            error => unwritable(error.into()),
        })?;
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The development secret: what the file holds, or a new random one, readable by this user alone.
    pub(crate) fn development_secret(&self) -> Result<(Vec<u8>, SecretOrigin), DataDirError> {
        if let Some(secret) = read_development_secret(&self.path)? {
            return Ok((secret, SecretOrigin::Found));
        }
        let path = self.path.join(SECRET);
        let failed = |source| DataDirError::File { path: path.clone(), what: "written", source };
        let mut random = [0u8; SECRET_RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(|error| failed(error.into()))?;
        let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        self.replace(SECRET, &secret)?;
        Ok((secret.into_bytes(), SecretOrigin::Made))
    }

    /// Writes where something listens to a file of this name, so that whoever started the gateway on port 0
    /// finds it. It appears whole or not at all.
    pub(crate) fn publish_address(&self, name: &str, address: SocketAddr) -> Result<(), DataDirError> {
        self.replace(name, &format!("{address}\n"))
    }

    /// Removes such a file; that it is not there is fine.
    pub(crate) fn withdraw_address(&self, name: &str) {
        match fs::remove_file(self.path.join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, name, "an address file could not be removed"),
        }
    }

    /// Listens on a Unix socket of this name in the directory, in place of one that a crash has left.
    pub(crate) fn admin_socket(&self, name: &str) -> Result<UnixListener, DataDirError> {
        self.withdraw_address(name);
        let path = self.path.join(name);
        let listen = || -> io::Result<UnixListener> {
            let listener = UnixListener::bind(&path)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        listen().map_err(|source| DataDirError::Socket { path: path.clone(), source })
    }

    fn replace(&self, name: &str, content: &str) -> Result<(), DataDirError> {
        replace_file(&self.path, name, content).map_err(|source| DataDirError::File {
            path: self.path.join(name),
            what: "written",
            source,
        })
    }
}

/// Replaces a file of a data directory, which need not be locked, or makes it: readable by this user alone, and on disk
/// when this returns. After an error or a crash the file has its former content or the new one, whole.
pub(crate) fn replace_file(data_dir: &Path, name: &str, content: &str) -> io::Result<()> {
    let new = data_dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(content.as_bytes())?;
    file.sync_data()?;
    fs::rename(&new, data_dir.join(name))?;
    File::open(data_dir)?.sync_all()
}

/// The development secret of a data directory that need not be locked; `None`: it has none.
pub(crate) fn read_development_secret(data_dir: &Path) -> Result<Option<Vec<u8>>, DataDirError> {
    let path = data_dir.join(SECRET);
    match fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= SECRET_RANDOM_BYTES => Ok(Some(text.trim().as_bytes().to_vec())),
        // Cut short by a crash or a full disk: it never signed a token that anybody holds.
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirError::File { path, what: "read", source }),
    }
}
