//! `ringway admin`: tells a gateway that runs who may not log in.
//!
//! On the main thread of a process of its own, which must run as the gateway's user: it speaks to the socket in the gateway's
//! data directory. What always holds: a command that ends with 0 was carried out and is on that gateway's disk.

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::config::args::ConfigArgs;
use crate::control::access::SOCKET;

/// How long the gateway may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tell a gateway that runs here, and through it all nodes of its cluster, who may not log in.
#[derive(Args, Debug)]
pub struct AdminArgs {
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Subcommand, Debug)]
enum AdminCommand {
    /// End a user's sessions now. The user may log in again.
    Kick(User),
    /// End a user's sessions now, and refuse that user's logins until `unban`.
    Ban(User),
    /// Let a user who was banned log in again.
    Unban(User),
    /// End a user's sessions now, and refuse tokens of that user that were issued before.
    Revoke {
        #[command(flatten)]
        user: User,
        /// The Unix second from which on issued tokens count [default: the next one].
        #[arg(long, value_name = "SECONDS")]
        before: Option<u64>,
    },
    /// Print all that is stated, a line for each user.
    List(ConfigArgs),
}

#[derive(Args, Debug)]
struct User {
    #[command(flatten)]
    config: ConfigArgs,
    /// The user's number.
    user: u64,
}

/// Why it was not carried out.
#[derive(Debug, thiserror::Error)]
enum AdminError {
    /// No gateway listens there.
    #[error("no gateway can be spoken to at {0}: does it run, with this data directory, and as this user?")]
    Gateway(PathBuf, #[source] std::io::Error),
    /// It said so.
    #[error("the gateway refuses: {0}")]
    Refused(String),
    /// It ended in between, most likely.
    #[error("the gateway did not answer; look at `ringway admin list`")]
    Silent,
}

/// Carries a command out, and prints what the gateway says.
pub fn run(args: &AdminArgs) -> Result<(), Box<dyn Error>> {
    let (config, line) = match &args.command {
        AdminCommand::Kick(user) => (&user.config, format!("kick {}\n", user.user)),
        AdminCommand::Ban(user) => (&user.config, format!("ban {}\n", user.user)),
        AdminCommand::Unban(user) => (&user.config, format!("unban {}\n", user.user)),
        AdminCommand::Revoke { user, before } => {
            let before = before.map_or_else(String::new, |before| format!(" {before}"));
            (&user.config, format!("revoke {}{before}\n", user.user))
        }
        AdminCommand::List(config) => (config, "list\n".to_owned()),
    };
    let path = config.config()?.data_dir.join(SOCKET);
    let said = ask(&path, &line)?;
    // Whoever reads may have gone.
    write!(std::io::stdout(), "{said}").ok();
    Ok(())
}

fn ask(path: &std::path::Path, line: &str) -> Result<String, AdminError> {
    let failed = |error| AdminError::Gateway(path.to_owned(), error);
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(line.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|_| AdminError::Silent)?;
    match answer.split_once('\n') {
        Some(("ok", said)) => Ok(said.to_owned()),
        Some(("error", why)) => Err(AdminError::Refused(why.trim().to_owned())),
        _ => Err(AdminError::Silent),
    }
}
