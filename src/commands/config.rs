//! `ringway config check`: whether a gateway could start with a file of settings, and what it would read with it.
//!
//! On the main thread of a process of its own. What always holds: nothing is changed, and nobody is asked over the network.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use crate::api::keys::read_keys;
use crate::config::Config;
use crate::config::args::ConfigArgs;
use crate::control::webhooks::endpoints;

/// Look at settings.
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Say whether a file of settings can be used, with the environment over it; exits non-zero if it cannot.
    Check {
        /// The file.
        file: PathBuf,
    },
}

/// Runs it.
pub fn run(command: &ConfigCommand) -> Result<(), Box<dyn Error>> {
    let ConfigCommand::Check { file } = command;
    let typed = ConfigArgs { config: Some(file.clone()), ..ConfigArgs::default() }.typed(&[])?;
    Config::new(&typed)?;
    let named = |name| Some(typed.text(name)).filter(|path| !path.is_empty()).map(Path::new);
    let keys = named("api.keys_file").map(read_keys).transpose()?.unwrap_or_default();
    let endpoints = named("webhooks.endpoints_file").map(endpoints::load).transpose()?.unwrap_or_default();
    println!("{}: can be used; {} API keys, {} webhook endpoints", file.display(), keys.len(), endpoints.len());
    Ok(())
}
