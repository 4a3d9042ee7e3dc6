//! `carillon doctor`: looks at all that Carillon needs, side by side, and says what to do.
//!
//! Adapters say what they find; the files below `doctor/` decide what that means. Nothing that is
//! there is changed, and nothing stays: for a moment there is a file without a name in the folder of
//! the embedded store, and RabbitMQ is sent an empty message to a queue that is not there, as it tells
//! of an alarm nobody but those who publish. Each look has its own limit of time.

mod embedded;
mod network;
mod rabbitmq;
mod redis;
mod running;
mod settings;
mod stored;

use std::cell::RefCell;
use std::time::Duration;

use crate::cli::Globals;
use crate::cli::doctor::Check;
use crate::config::{self, Config};

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Checks as they are found: what takes too long takes nothing away that was found before.
struct Findings<'a> {
    found: RefCell<Vec<Check>>,
    /// Told how many are found.
    tell: &'a dyn Fn(u64),
}

impl<'a> Findings<'a> {
    fn new(tell: &'a dyn Fn(u64)) -> Self {
        Self {
            found: RefCell::default(),
            tell,
        }
    }

    fn add(&self, check: Check) {
        self.extend([check]);
    }

    fn extend(&self, checks: impl IntoIterator<Item = Check>) {
        let mut found = self.found.borrow_mut();
        let before = found.len();
        found.extend(checks);
        (self.tell)((found.len() - before) as u64);
    }

    /// What `look` comes to; or that it took too long, as the finding `name`.
    async fn within<T>(&self, name: &str, look: impl Future<Output = T>) -> Option<T> {
        let looked = tokio::time::timeout(LIMIT, look).await.ok();
        if looked.is_none() {
            let detail = format!("no answer within {} seconds", LIMIT.as_secs());
            let advice = "see whether it hangs, and whether the network lets through what is sent";
            self.add(Check::failed(name, detail, advice));
        }
        looked
    }

    /// The same of what holds up its thread: a file may be on a server that hangs.
    async fn aside<T: Send + 'static>(
        &self,
        name: &str,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        match self.within(name, tokio::task::spawn_blocking(look)).await? {
            Ok(looked) => Some(looked),
            Err(error) => {
                let advice = "this should not happen: report it";
                self.add(Check::failed(name, error.to_string(), advice));
                None
            }
        }
    }
}

/// Looks at everything. `done` is told how many checks are done, now and then.
pub async fn examine(globals: &Globals, done: impl Fn(u64)) -> Vec<Check> {
    let loaded = match Config::load(globals.config.as_deref(), config::environment()) {
        Ok(loaded) => loaded,
        Err(error) => {
            let advice = "mend it; `carillon config reference` explains every key";
            return vec![Check::failed("configuration", error.to_string(), advice)];
        }
    };
    let config = &loaded.config;
    // One for each of what goes on side by side, in the order in which they are shown.
    let all: [Findings<'_>; 4] = std::array::from_fn(|_| Findings::new(&done));
    let [settings, broker, kept, others] = &all;
    settings.extend(settings::checks(&loaded));
    let stored = async {
        let survey = match config.is_embedded() {
            true => embedded::look(config, kept).await,
            false => redis::look(config, kept).await,
        };
        kept.extend(stored::check(config, survey.as_ref()));
        let dns = network::dns(config, survey.as_ref());
        kept.extend(kept.within("dns", dns).await);
    };
    let around = async {
        let roots = config.clone();
        let roots = others.aside("tls roots", move || network::tls_roots(&roots));
        others.extend(roots.await);
        running::look(config, globals, others).await;
    };
    tokio::join!(rabbitmq::look(config, broker), stored, around);
    all.into_iter()
        .flat_map(|findings| findings.found.into_inner())
        .collect()
}

/// `1 subscription has`, `2 subscriptions have`.
fn subscriptions_have(n: usize) -> String {
    match n {
        1 => "1 subscription has".to_owned(),
        n => format!("{n} subscriptions have"),
    }
}

/// Whether a version such as `3.12.1` is at least `major.minor`; one that cannot be read is.
fn is_at_least(version: &str, (major, minor): (u32, u32)) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(found), Some(second)) => (found, second) >= (major, minor),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, expected) in [
            ("3.9.29", false),
            ("3.10.0", true),
            ("3.12.1", true),
            ("4.0.5", true),
            ("2.99.0", false),
            ("next", true),
        ] {
            assert_eq!(is_at_least(version, (3, 10)), expected, "{version}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_answer_is_not_waited_for_and_hides_nothing() {
        let findings = Findings::new(&|_| {});
        let look = async {
            findings.add(Check::ok("before", "found"));
            std::future::pending::<()>().await;
        };
        assert_eq!(findings.within("there", look).await, None);
        assert_eq!(findings.within("here", async { 5 }).await, Some(5));
        let found = findings.found.into_inner();
        let names: Vec<&str> = found.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, ["before", "there"]);
        assert!(found[1].detail.contains("20 seconds"), "{found:?}");
    }
}
