//! The limits of this process, as far as it may raise them itself.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises what connections and rings take, open files and locked memory, to the hard limits. What cannot be raised
/// stays as it is: the doctor looks at what holds afterwards.
pub(super) fn raise() {
    for resource in [Resource::RLIMIT_NOFILE, Resource::RLIMIT_MEMLOCK] {
        if let Ok((soft, hard)) = getrlimit(resource)
            && soft < hard
            && let Err(error) = setrlimit(resource, hard, hard)
        {
            tracing::warn!(?resource, soft, hard, %error, "a limit of this process could not be raised");
        }
    }
}
