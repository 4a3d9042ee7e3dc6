//! What can be wrong with a configuration, with the key and the line or variable.
//!
//! No fault shows the value of a key that may hold a secret.

use std::fmt;
use std::path::PathBuf;

use super::schema::variable;
use super::sections::Config;

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// At least one, ordered by origin.
    pub faults: Vec<Fault>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, such as `delivery.timeout` or `egress.allow[1]`; empty for a whole file.
    pub key: String,
    /// What was expected and what came, to follow the key.
    pub problem: String,
    /// What set it; `None` when nothing did.
    pub origin: Option<Origin>,
}

/// What is allowed, but should be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key, such as `egress.allow`.
    pub key: &'static str,
    /// Why, to follow the key.
    pub problem: String,
}

/// What set a key; ordered by file, line and variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of a file, from 1.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// `None` for the file as a whole.
        line: Option<usize>,
    },
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.key, self.problem)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}` ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.faults.as_slice() {
            return write!(f, "the configuration is not valid: {only}");
        }
        let found = self.faults.len();
        write!(f, "the configuration is not valid, {found} faults:")?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

/// The fault of a key that does not exist, with the nearest one that does.
pub(super) fn unknown(path: &str, origin: Option<Origin>) -> Fault {
    let path: String = path.escape_debug().collect();
    let problem = match nearest(&path) {
        None => "is not known".to_owned(),
        Some((section, key)) => {
            let known = format!("{section}.{key}");
            match origin {
                Some(Origin::Variable(_)) => {
                    let variable = variable(section, key);
                    format!("is not known; did you mean `{known}` ({variable})?")
                }
                _ => format!("is not known; did you mean `{known}`?"),
            }
        }
    };
    Fault {
        key: path,
        problem,
        origin,
    }
}

fn nearest(path: &str) -> Option<(&'static str, &'static str)> {
    const NEAR: f64 = 0.8;
    let last = path.rsplit('.').next().unwrap_or(path);
    let likeness = |section: &str, key: &str| {
        // A right key in a wrong section is as good as a slip in the whole path.
        let moved = strsim::jaro(last, key) * 0.95;
        strsim::jaro(path, &format!("{section}.{key}")).max(moved)
    };
    let config = Config::default();
    let sections = config.sections();
    let keys = sections.iter().flat_map(|section| {
        let keys = section.settings();
        keys.into_iter()
            .map(|setting| (section.name(), setting.key))
    });
    keys.map(|(section, key)| (likeness(section, key), section, key))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, ..)| *likeness > NEAR)
        .map(|(_, section, key)| (section, key))
}
