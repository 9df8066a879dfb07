//! The gateway as a whole: starts every thread in order, waits, stops them in order.

use std::error::Error;

use crate::config::Config;
use crate::datadir::DataDir;
use crate::topology::cpus::CpuPlan;

/// Runs the gateway until it is told to stop.
pub fn run(config: &Config) -> Result<(), Box<dyn Error>> {
    let _data_dir = DataDir::lock(&config.data_dir)?;
    CpuPlan::new(config)?.confine()?;
    Err("the shards are not there yet".into())
}
