//! What an operator changes of a gateway that runs: settings, what the log says, endpoints that were off; and a message that is
//! followed.
//!
//! On the main thread. What always holds: the gateway decides what can be changed, and says why not.

use std::error::Error;

use clap::Args;
use serde_json::{Map, Value, json};

use super::show::{RECIPIENTS, SETTINGS, WEBHOOKS, fields};
use super::{AdminError, Shown, api, rows};
use crate::config::args::ConfigArgs;

/// Settings to be changed.
#[derive(Args, Debug)]
pub(super) struct Changed {
    #[command(flatten)]
    config: ConfigArgs,
    /// From now on; with nothing behind the =, as the files say.
    #[arg(value_name = "KEY=VALUE")]
    changes: Vec<String>,
}

/// What the log says.
#[derive(Args, Debug)]
pub(super) struct Level {
    #[command(flatten)]
    config: ConfigArgs,
    /// off, error, warn, info, debug, trace, or parts with a level each: warn,ringway=debug.
    level: String,
}

/// An endpoint that goes on.
#[derive(Args, Debug)]
pub(super) struct Resumed {
    #[command(flatten)]
    config: ConfigArgs,
    /// Try this one now, and switch it on if it was off.
    #[arg(long, value_name = "NAME")]
    resume: Option<String>,
}

/// A message to be followed.
#[derive(Args, Debug)]
pub(super) struct Message {
    #[command(flatten)]
    config: ConfigArgs,
    /// Its number, as the answer to whoever sent it says.
    message: u64,
}

impl Shown<Message> {
    /// Page by page.
    pub(super) fn trace(&self) -> Result<String, Box<dyn Error>> {
        let Message { config, message } = &self.asked;
        let mut all: Vec<Value> = Vec::new();
        let mut answer = api(config, "GET", &format!("/messages/{message}"), None)?;
        loop {
            all.extend(answer["recipients"].as_array().into_iter().flatten().cloned());
            let Some(next) = answer["next"].as_str() else { break };
            answer = api(config, "GET", &format!("/messages/{message}?after={next}"), None)?;
        }
        answer["recipients"] = Value::Array(all.clone());
        Ok(self.printed(&answer, |answer| {
            let mut head = answer.clone();
            if let Some(head) = head.as_object_mut() {
                head.remove("recipients");
            }
            let mut text = String::new();
            fields(&head, "", &mut text);
            text + &rows(RECIPIENTS, &Value::Array(all.clone()))
        }))
    }
}

impl Shown<Changed> {
    /// Shows them after the change.
    pub(super) fn config(&self) -> Result<String, Box<dyn Error>> {
        let Changed { config, changes } = &self.asked;
        let mut values = Map::new();
        for change in changes {
            let (name, value) =
                change.split_once('=').ok_or_else(|| AdminError::Refused(format!("{change} is not KEY=VALUE")))?;
            values.insert(name.to_owned(), Some(value).filter(|value| !value.is_empty()).into());
        }
        let answer = match values.is_empty() {
            true => api(config, "GET", "/config", None)?,
            false => api(config, "PATCH", "/config", Some(&Value::Object(values)))?,
        };
        Ok(self.printed(&answer, |answer| rows(SETTINGS, &answer["settings"])))
    }
}

impl Shown<Level> {
    /// Says from which change of the settings on it holds.
    pub(super) fn log(&self) -> Result<String, Box<dyn Error>> {
        let Level { config, level } = &self.asked;
        let answer = api(config, "PATCH", "/config", Some(&json!({"log.level": level})))?;
        Ok(self.printed(&answer, |answer| format!("the log's level is {level}, generation {}\n", answer["generation"])))
    }
}

impl Shown<Resumed> {
    /// Shows them.
    pub(super) fn webhooks(&self) -> Result<String, Box<dyn Error>> {
        let Resumed { config, resume } = &self.asked;
        if let Some(name) = resume {
            let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
            api(config, "POST", &format!("/webhooks/{plain}/resume"), Some(&json!({})))?;
        }
        let answer = api(config, "GET", "/webhooks", None)?;
        Ok(self.printed(&answer, |answer| rows(WEBHOOKS, &answer["webhooks"])))
    }
}
