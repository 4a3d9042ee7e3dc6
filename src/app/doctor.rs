//! `carillon doctor`: looks at all that Carillon needs, side by side, and says what to do.
//!
//! Adapters say what they find; the files below `doctor/` decide what that means. Nothing here
//! changes anything, and each look has its own limit of time.

mod embedded;
mod network;
mod rabbitmq;
mod redis;
mod running;
mod settings;
mod stored;

use std::time::Duration;

use crate::cli::Globals;
use crate::cli::doctor::Check;
use crate::codec::subscription::Survey;
use crate::config::{self, Config};

/// How long one part of what is looked at may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Looks at everything. `done` is told how many checks are done, now and then.
pub async fn examine(globals: &Globals, done: impl Fn(u64)) -> Vec<Check> {
    let tell = |checks: Vec<Check>| {
        done(checks.len() as u64);
        checks
    };
    let loaded = match Config::load(globals.config.as_deref(), config::environment()) {
        Ok(loaded) => loaded,
        Err(error) => {
            let advice = "mend it; `carillon config reference` explains every key";
            return vec![Check::failed("configuration", error.to_string(), advice)];
        }
    };
    let config = &loaded.config;
    let mut checks = tell(settings::checks(&loaded));
    let kept = async {
        let (mut checks, survey) = store(config).await;
        checks.extend(stored::check(config, survey.as_ref()));
        checks.extend(within("dns", network::dns(config, survey.as_ref())).await);
        tell(checks)
    };
    let others = async {
        let mut checks = vec![network::tls_roots(config)];
        checks.extend(within("api", running::checks(config, globals)).await);
        tell(checks)
    };
    let (kept, others) = tokio::join!(kept, others);
    checks.extend(kept);
    checks.extend(others);
    checks
}

/// Looks at what everything is kept in; with what was seen of the subscriptions, if they could be
/// read.
async fn store(config: &Config) -> (Vec<Check>, Option<Survey>) {
    if config.is_embedded() {
        return embedded::checks(config).await;
    }
    let mut survey = None;
    let redis = async {
        let (checks, seen) = redis::checks(config).await;
        survey = seen;
        checks
    };
    let (mut checks, of_redis) = tokio::join!(
        within("rabbitmq", rabbitmq::checks(config)),
        within("redis", redis)
    );
    checks.extend(of_redis);
    (checks, survey)
}

/// What `look` finds, or that it took too long.
async fn within(name: &str, look: impl Future<Output = Vec<Check>>) -> Vec<Check> {
    match tokio::time::timeout(LIMIT, look).await {
        Ok(checks) => checks,
        Err(_) => {
            let detail = format!("no answer within {} seconds", LIMIT.as_secs());
            let advice = "see whether it hangs, and whether the network lets through what is sent";
            vec![Check::failed(name, detail, advice)]
        }
    }
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
    async fn what_does_not_answer_is_not_waited_for() {
        let checks = within("there", std::future::pending()).await;
        assert_eq!(checks[0].name, "there");
        assert!(checks[0].detail.contains("20 seconds"), "{checks:?}");
    }
}
