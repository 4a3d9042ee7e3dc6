//! Where settings come from: a TOML file and the environment.
//!
//! Both become [`Assignment`]s that know their line or variable; whether the key exists
//! and the value suits it is for the sections to say.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

use super::fault::{Fault, Origin, unknown};
use super::schema::Given;

const VARIABLE_PREFIX: &str = "CARILLON_";

/// A value for a key, and what gave it.
#[derive(Debug)]
pub(super) struct Assignment {
    pub section: String,
    pub key: String,
    pub given: Given,
    pub origin: Origin,
}

impl Assignment {
    /// The key as it is written everywhere: `section.key`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }
}

/// The variables of this process that may be ours, for [`super::Config::load`]. What is
/// not Unicode comes with replacement characters.
pub fn environment() -> Vec<(String, String)> {
    let lossy = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (lossy(name), lossy(value)))
        .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
        .collect()
}

/// The file that was named, which must exist, or the usual one if it does.
pub(super) fn read_file(
    directory: &Path,
    named: Option<&Path>,
    faults: &mut Vec<Fault>,
) -> Option<(PathBuf, String)> {
    let usual = directory.join(super::FILE);
    let path = named.unwrap_or(&usual).to_owned();
    match std::fs::read_to_string(&path) {
        Ok(text) => Some((path, text)),
        Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => None,
        Err(error) => {
            faults.push(Fault {
                key: String::new(),
                problem: format!("the file cannot be read: {error}"),
                origin: Some(Origin::File { path, line: None }),
            });
            None
        }
    }
}

/// Every setting of a file.
pub(super) fn from_file(path: &Path, text: &str, faults: &mut Vec<Fault>) -> Vec<Assignment> {
    let origin = |at: usize| Origin::File {
        path: path.to_owned(),
        line: Some(line_of(text, at)),
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // Not their `Display`: it repeats the line, which may hold a secret.
        faults.extend(errors.iter().map(|error| Fault {
            key: String::new(),
            problem: format!("not valid TOML: {}", error.message()),
            origin: Some(origin(error.span().map_or(0, |span| span.start))),
        }));
        return Vec::new();
    }
    let mut found = Vec::new();
    for (section, value) in root.into_inner() {
        let at = section.span().start;
        let section = section.into_inner();
        let DeValue::Table(keys) = value.into_inner() else {
            faults.push(unknown_section(&section, origin(at)));
            continue;
        };
        if keys.is_empty() && !is_section(&section) {
            faults.push(unknown_section(&section, origin(at)));
        }
        for (key, value) in keys {
            let origin = origin(key.span().start);
            let key = key.into_inner().into_owned();
            match plain(value) {
                Ok(value) => found.push(Assignment {
                    section: section.to_string(),
                    key,
                    given: Given::Toml(value),
                    origin,
                }),
                Err(problem) => faults.push(Fault {
                    key: format!("{section}.{key}"),
                    problem,
                    origin: Some(origin),
                }),
            }
        }
    }
    found
}

/// Every setting of an environment, by name, so that `…__RATE_LIMIT__BURST` follows
/// `…__RATE_LIMIT`.
pub(super) fn from_environment(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Vec<Assignment> {
    let ours = |(name, value): (String, String)| {
        let path = name.strip_prefix(VARIABLE_PREFIX)?.to_ascii_lowercase();
        let (section, rest) = path.split_once("__")?;
        let mut parts = rest.split("__");
        let key = parts.next().unwrap_or_default().to_owned();
        let below: Vec<_> = parts.collect();
        Some(Assignment {
            section: section.to_owned(),
            key,
            given: nested(&below, value),
            origin: Origin::Variable(name),
        })
    };
    let mut variables: Vec<_> = variables.into_iter().collect();
    variables.sort();
    variables.into_iter().filter_map(ours).collect()
}

/// `value` below the tables that a variable's name goes through.
fn nested(below: &[&str], value: String) -> Given {
    let given = Given::Text(value);
    if below.is_empty() {
        return given;
    }
    let wrap = |inner, name: &&str| Value::Table(Table::from_iter([((*name).to_owned(), inner)]));
    Given::Toml(below.iter().rev().fold(given.value(false), wrap))
}

fn plain(value: Spanned<DeValue<'_>>) -> Result<Value, String> {
    let deserializer = ValueDeserializer::from(value);
    Value::deserialize(deserializer).map_err(|error| format!("is not valid: {}", error.message()))
}

fn is_section(name: &str) -> bool {
    let config = super::Config::default();
    config.sections().iter().any(|known| known.name() == name)
}

/// The fault of a top-level key that is not a table of settings.
fn unknown_section(name: &str, origin: Origin) -> Fault {
    if is_section(name) {
        return Fault {
            key: name.to_owned(),
            problem: format!("must be a table: write its keys below `[{name}]`"),
            origin: Some(origin),
        };
    }
    unknown(name, Some(origin))
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    before.filter(|byte| **byte == b'\n').count() + 1
}
