//! What was typed: the keys' values as text from file, environment and command line.
//!
//! On the main thread, at start and whenever the settings are read again. What always holds: every value in a [`Typed`]
//! belongs to a key of [`KEYS`], and the source with the highest precedence won. Whether a value makes sense is decided in `config`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::keys::{Form, KEYS, Key};

/// The environment's prefix.
const ENV_PREFIX: &str = "RINGWAY_";
/// Variables with the prefix that are no keys.
const ENV_OTHER: [&str; 2] = ["RINGWAY_CONFIG", "RINGWAY_TOKEN"];

/// What the tests are told by the environment, after [`ENV_PREFIX`].
const TEST_PREFIX: &str = "TEST_";

/// Where a value came from, in rising precedence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The TOML file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// The command line.
    Flag,
    /// The API, called with the key of this name.
    Api(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag => f.write_str("command line"),
            Origin::Api(key) => write!(f, "API, key {key}"),
        }
    }
}

/// Why what was typed could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TypedError {
    /// The file is not there or not readable.
    #[error("the configuration file {path} cannot be read")]
    Read {
        /// The file that is concerned.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("the configuration file {path} is not valid TOML")]
    Syntax {
        /// The file that is concerned.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Nobody knows this key.
    #[error("unknown key `{name}` ({origin}){}", suggestion(.nearest))]
    UnknownKey {
        /// As typed.
        name: String,
        /// By whom.
        origin: Origin,
        /// The known key it looks like.
        nearest: Option<&'static str>,
    },
    /// An array or a date where a text or a number belongs.
    #[error("`{name}` ({origin}) must be a text or a number, not {found}")]
    Shape {
        /// The key.
        name: String,
        /// By whom.
        origin: Origin,
        /// What TOML calls it.
        found: &'static str,
    },
    /// `--set` without `=`.
    #[error("`--set {0}` is not of the form KEY=VALUE")]
    NotAPair(String),
}

fn suggestion(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None => "; `ringway serve --print-config` shows every key".to_owned(),
    }
}

/// Every key's value as typed, with where it came from.
#[derive(Clone, Debug)]
pub struct Typed {
    values: BTreeMap<&'static str, (String, Origin)>,
}

impl Typed {
    /// The defaults alone.
    pub(crate) fn defaults() -> Self {
        Typed { values: KEYS.iter().map(|k| (k.name, (k.default.to_owned(), Origin::Default))).collect() }
    }

    /// Puts a file's values over what is there.
    pub(crate) fn read_file(&mut self, path: &Path) -> Result<(), TypedError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| TypedError::Read { path: path.to_owned(), source })?;
        self.read_toml(&text, path)
    }

    /// As [`Self::read_file`], of text already read.
    pub(crate) fn read_toml(&mut self, text: &str, path: &Path) -> Result<(), TypedError> {
        let table: toml::Table =
            text.parse().map_err(|source| TypedError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        self.read_table("", &table, &Origin::File(path.to_owned()))
    }

    fn read_table(&mut self, prefix: &str, table: &toml::Table, origin: &Origin) -> Result<(), TypedError> {
        for (name, value) in table {
            let name = format!("{prefix}{name}");
            match value {
                // A table of an unknown name has only unknown keys: name the first rather than nothing.
                toml::Value::Table(inner) if prefix.is_empty() => {
                    self.read_table(&format!("{name}."), inner, origin)?;
                }
                toml::Value::String(text) => self.set(&name, text.clone(), origin.clone())?,
                toml::Value::Integer(number) => self.set(&name, number.to_string(), origin.clone())?,
                other => {
                    known(&name, origin)?;
                    return Err(TypedError::Shape { name, origin: origin.clone(), found: other.type_str() });
                }
            }
        }
        Ok(())
    }

    /// Puts the environment's values over what is there: `RINGWAY_SESSION_HEARTBEAT_S` is `session.heartbeat_s`.
    pub(crate) fn read_environment(&mut self, vars: impl Iterator<Item = (String, String)>) -> Result<(), TypedError> {
        for (name, value) in vars {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            if ENV_OTHER.contains(&name.as_str()) || rest.starts_with(TEST_PREFIX) || made_by_kubernetes(rest) {
                continue;
            }
            let origin = Origin::Environment(name.clone());
            match KEYS.iter().find(|k| environment_name(k.name) == name) {
                Some(key) => self.set(key.name, value, origin)?,
                None => return Err(unknown(rest.to_ascii_lowercase(), origin)),
            }
        }
        Ok(())
    }

    /// Puts one value over what is there.
    pub(crate) fn set(&mut self, name: &str, value: String, origin: Origin) -> Result<(), TypedError> {
        let key = known(name, &origin)?;
        self.values.insert(key.name, (value, origin));
        Ok(())
    }

    /// Puts `KEY=VALUE` from the command line over what is there.
    pub(crate) fn set_pair(&mut self, pair: &str) -> Result<(), TypedError> {
        let (name, value) = pair.split_once('=').ok_or_else(|| TypedError::NotAPair(pair.to_owned()))?;
        self.set(name.trim(), value.trim().to_owned(), Origin::Flag)
    }

    /// Takes a value as another one has it.
    pub(crate) fn keep(&mut self, name: &'static str, from: &Typed) {
        if let Some(value) = from.values.get(name) {
            self.values.insert(name, value.clone());
        }
    }

    /// A key's value; empty: nobody has set it, and it has no default.
    pub(crate) fn text(&self, name: &str) -> &str {
        assert!(KEYS.iter().any(|key| key.name == name), "`{name}` is no key of the configuration");
        self.values.get(name).map_or("", |(value, _)| value.as_str())
    }

    /// A key's value as it may be printed.
    pub(crate) fn shown(&self, name: &str) -> String {
        let text = self.text(name);
        match KEYS.iter().find(|key| key.name == name).map(|key| key.form) {
            Some(Form::Secret) if !text.is_empty() => "(hidden)".to_owned(),
            Some(Form::Url) => without_password(text),
            _ => text.to_owned(),
        }
    }

    /// Where it came from.
    pub(crate) fn origin(&self, name: &str) -> Origin {
        self.values.get(name).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// What is in force, as TOML; secrets hidden.
    pub fn print(&self) -> String {
        let mut out = String::new();
        let mut table = "";
        for key in KEYS {
            let (inside, name) = key.name.split_once('.').unwrap_or(("", key.name));
            if inside != table {
                out.push_str(&format!("\n[{inside}]\n"));
                table = inside;
            }
            let text = self.shown(key.name);
            let shown = match key.form {
                Form::Number if text.parse::<i64>().is_ok() => text,
                _ => toml::Value::String(text).to_string(),
            };
            out.push_str(&format!("# {}\n{name} = {shown}  # {}\n", key.about, self.origin(key.name)));
        }
        out
    }
}

fn known(name: &str, origin: &Origin) -> Result<&'static Key, TypedError> {
    KEYS.iter().find(|k| k.name == name).ok_or_else(|| unknown(name.to_owned(), origin.clone()))
}

fn unknown(name: String, origin: Origin) -> TypedError {
    let likeness = |key: &Key| {
        let last = key.name.rsplit('.').next().unwrap_or(key.name);
        let typed_last = name.rsplit('.').next().unwrap_or(&name);
        // `heartbeat_seconds` is `heartbeat_s` written out, whatever else is as near by letters.
        let begun = if typed_last.len() > 3 && typed_last.starts_with(last) { 0.9 } else { 0.0 };
        strsim::normalized_damerau_levenshtein(key.name, &name)
            .max(begun)
            .max(strsim::normalized_damerau_levenshtein(last, typed_last) * 0.95)
            .max(strsim::normalized_damerau_levenshtein(&key.name.replace('.', "_"), &name))
    };
    let nearest = KEYS
        .iter()
        .map(|key| (likeness(key), key.name))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name);
    TypedError::UnknownKey { name, origin, nearest }
}

/// A URL as it may be printed: `mysql://user:(hidden)@host/db`.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.find('/').unwrap_or(rest.len());
    // A password may have an `@` that should have been written %40: hide too much rather than too little.
    match rest[..authority].rfind('@').or_else(|| rest.rfind('@')) {
        Some(at) => match rest[..at].split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:(hidden){}", &rest[at..]),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    }
}

fn environment_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Kubernetes puts such variables into every container when a service is named `ringway`.
fn made_by_kubernetes(rest: &str) -> bool {
    rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_")
}
