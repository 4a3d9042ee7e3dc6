//! The configuration: what may be set, where it comes from, and what is wrong with it.
//!
//! `carillon.toml` first, then environment variables that are written as TOML values.
//! Not the `config` crate: its environment source does not read TOML values, and it
//! cannot say from which line or variable a wrong value came. Every setting is in
//! `config/sections.rs`; its doc comments make `docs/configuration.md`. Nothing here
//! connects to anything, and no file but the configuration file is read.

mod check;
mod connection;
pub mod duration;
mod fault;
mod page;
mod schema;
mod secret;
mod sections;
mod source;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::codec::subscription::SpecRules;
use crate::domain::address::EgressRules;
use crate::domain::retry::{Exponential, RetryFault, RetryPolicy};

pub use check::TOKEN_CHARS_ADVISED;
pub use connection::{BrokerUrls, RedisForm, RedisUrl};
pub use fault::{ConfigError, Fault, Origin, Warning};
pub use page::{print, print_json, reference};
pub use sections::{
    Audit, Broker, Config, Dedup, Delivery, Egress, Embedded, Http, Intake, Ops, Plan, Redis,
    Retry, Secrets, Shutdown, Telemetry,
};
pub use source::environment;
pub use values::{LogForm, PageOrigin};

/// The file that is read when no other is named, in the working directory.
pub const FILE: &str = "carillon.toml";

/// A checked configuration, and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The effective configuration.
    pub config: Config,
    /// What is allowed, but should be looked at.
    pub warnings: Vec<Warning>,
    /// Where the settings came from.
    pub sources: Sources,
}

/// Where the settings came from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Each key that was set, such as `delivery.timeout`, and what set it last.
    pub keys: BTreeMap<String, Origin>,
}

impl Config {
    /// Reads `file`, or `carillon.toml` if there is one, and the variables of `env`
    /// that are ours, which win.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault found: files that cannot be read, unknown keys,
    /// wrong types and ranges, and settings that do not go together.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        Self::load_in(Path::new(""), file, env)
    }

    fn load_in(
        directory: &Path,
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let mut faults = Vec::new();
        let mut config = Self::default();
        let mut sources = Sources::default();
        let mut given = Vec::new();
        if let Some((path, text)) = source::read_file(directory, file, &mut faults) {
            given.extend(source::from_file(&path, &text, &mut faults));
            sources.file = Some(path);
        }
        given.extend(source::from_environment(env));
        for assignment in given {
            match config.assign(&assignment) {
                Ok(()) => {
                    sources.keys.insert(assignment.path(), assignment.origin);
                }
                Err(fault) => faults.push(fault),
            }
        }
        check::relations(&config, &sources, &mut faults);
        if !faults.is_empty() {
            faults.sort_by(|a, b| a.origin.cmp(&b.origin));
            return Err(ConfigError { faults });
        }
        let warnings = check::warnings(&config);
        Ok(Loaded {
            config,
            warnings,
            sources,
        })
    }

    fn assign(&mut self, assignment: &source::Assignment) -> Result<(), Fault> {
        let (section, key) = (&assignment.section, &assignment.key);
        let sections = self.sections_mut();
        let result = sections
            .into_iter()
            .find(|known| known.name() == section)
            .and_then(|known| known.set(key, &assignment.given));
        let origin = Some(assignment.origin.clone());
        match result {
            Some(Ok(())) => Ok(()),
            Some(Err(problem)) => Err(Fault {
                key: format!("{}{}", assignment.path(), problem.below),
                problem: problem.text,
                origin,
            }),
            None => Err(fault::unknown(&assignment.path(), origin)),
        }
    }

    /// The policy of deliveries whose subscription has none of its own.
    ///
    /// # Panics
    /// When `retry` was set by hand to what [`Config::load`] refuses.
    #[expect(
        clippy::expect_used,
        reason = "`load` and a test of the defaults check it"
    )]
    pub fn retry_policy(&self) -> RetryPolicy {
        // Proof: `load` refuses whatever `check::relations` finds, and that asks for the
        // same policy; the defaults are valid by a test.
        self.retry.policy().expect("`retry` was checked by `load`")
    }

    /// The exponential schedule that a subscription's own settings change.
    pub fn exponential(&self) -> Exponential {
        self.retry.exponential()
    }

    /// What the installation says about subscriptions.
    pub fn spec_rules(&self) -> SpecRules {
        SpecRules {
            is_stored: false,
            require_https: self.egress.require_https,
            timeout: self.delivery.timeout,
            retry: self.exponential(),
        }
    }

    /// Which addresses may be connected to.
    pub fn egress_rules(&self) -> EgressRules {
        EgressRules {
            allow: self.egress.allow.clone(),
            deny: self.egress.deny.clone(),
        }
    }

    /// Whether one process with one SQLite file does it all: no broker, no Redis.
    pub fn is_embedded(&self) -> bool {
        self.broker.url.is_none() && self.redis.url.is_none()
    }
}

impl Retry {
    fn exponential(&self) -> Exponential {
        Exponential {
            initial: self.initial,
            multiplier: self.multiplier,
            max: self.max,
            max_attempts: self.max_attempts,
        }
    }

    fn policy(&self) -> Result<RetryPolicy, RetryFault> {
        match &self.schedule {
            Some(delays) => RetryPolicy::list(delays.clone(), self.jitter),
            None => RetryPolicy::exponential(self.exponential(), self.jitter),
        }
    }
}
