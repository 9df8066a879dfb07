//! The options of the command line that say what the configuration is; every command that needs one has them.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;

use super::Config;
use super::typed::{Origin, Typed, TypedError};

/// Where settings are read from.
#[derive(Args, Clone, Default, Debug)]
pub struct ConfigArgs {
    /// TOML file with settings (also RINGWAY_CONFIG).
    #[arg(long, value_name = "FILE", env = "RINGWAY_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where the journal, the store and the development secret are.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,
    /// Any key of the configuration, as in --set session.heartbeat_s=20.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

impl ConfigArgs {
    /// Defaults, file, environment, `--set`, and over them the flags that have a key's name.
    pub fn typed(&self, flags: &[(&str, &Option<String>)]) -> Result<Typed, TypedError> {
        let mut typed = Typed::defaults();
        if let Some(file) = &self.config {
            typed.read_file(file)?;
        }
        typed.read_environment(
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
        )?;
        for pair in &self.set {
            typed.set_pair(pair)?;
        }
        for (name, value) in flags.iter().chain(&[("data_dir", &self.data_dir)]) {
            if let Some(value) = value {
                typed.set(name, value.clone(), Origin::Flag)?;
            }
        }
        Ok(typed)
    }

    /// What is in force.
    pub fn config(&self) -> Result<Config, Box<dyn Error>> {
        Ok(Config::new(&self.typed(&[])?)?)
    }
}
