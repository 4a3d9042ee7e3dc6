//! What settings have to do with each other, and what is allowed but unwise.

use secrecy::ExposeSecret as _;

use super::fault::{Fault, Warning};
use super::sections::Config;
use super::{Origin, Sources};
use crate::domain::retry::{Exponential, RetryFault, RetryPolicy};

/// Fewer characters than these make an admin token worth guessing.
pub const TOKEN_CHARS_ADVISED: usize = 32;

/// Adds the relations that are broken, leaving out those of keys that are faulty already.
pub(super) fn relations(config: &Config, sources: &Sources, faults: &mut Vec<Fault>) {
    let faulty: Vec<_> = faults.iter().map(|fault| fault.key.clone()).collect();
    let sound = |prefix: &str| !faulty.iter().any(|key| key.starts_with(prefix));
    let origin = |key: &str| sources.keys.get(key).cloned();
    if sound("broker.") && sound("redis.") {
        faults.extend(both_servers_or_none(config, origin));
    }
    if sound("http.") {
        faults.extend(token_off_loopback(config, origin));
        faults.extend(admin_token_of_its_own(config, origin));
    }
    if sound("http.listen") && sound("ops.listen") {
        faults.extend(listeners_apart(config, origin));
    }
    if sound("retry.") {
        faults.extend(retry(config, origin));
    }
}

fn both_servers_or_none(config: &Config, origin: impl Fn(&str) -> Option<Origin>) -> Option<Fault> {
    let (set, missing) = match (&config.broker.url, &config.redis.url) {
        (Some(_), None) => ("broker.url", "redis.url"),
        (None, Some(_)) => ("redis.url", "broker.url"),
        _ => return None,
    };
    Some(Fault {
        key: set.to_owned(),
        problem: format!(
            "is set without `{missing}`: set both to run on RabbitMQ and Redis, or neither to run \
             embedded"
        ),
        origin: origin(set),
    })
}

fn token_off_loopback(config: &Config, origin: impl Fn(&str) -> Option<Origin>) -> Option<Fault> {
    let listen = config.http.listen;
    let loopback = listen.ip().to_canonical().is_loopback();
    (!loopback && config.http.admin_token.is_none()).then(|| Fault {
        key: "http.listen".to_owned(),
        problem: format!(
            "is {listen}, where others can reach it, and no token is asked for: set \
             `http.admin_token`, or listen on loopback, such as 127.0.0.1:{}",
            listen.port()
        ),
        origin: origin("http.listen"),
    })
}

fn admin_token_of_its_own(
    config: &Config,
    origin: impl Fn(&str) -> Option<Origin>,
) -> Option<Fault> {
    let token = config.http.admin_token.as_ref()?.expose_secret();
    token.starts_with("ct_").then(|| Fault {
        key: "http.admin_token".to_owned(),
        problem: "must not begin with ct_, as tenant tokens do".to_owned(),
        origin: origin("http.admin_token"),
    })
}

fn listeners_apart(config: &Config, origin: impl Fn(&str) -> Option<Origin>) -> Option<Fault> {
    let (http, ops) = (config.http.listen, config.ops.listen);
    (http == ops && http.port() != 0).then(|| Fault {
        key: "ops.listen".to_owned(),
        problem: format!("is {ops}, as `http.listen` is: they need two ports"),
        origin: origin("ops.listen").or_else(|| origin("http.listen")),
    })
}

fn retry(config: &Config, origin: impl Fn(&str) -> Option<Origin>) -> Vec<Fault> {
    let retry = &config.retry;
    // One by one, to find all; the exponential settings count even with a schedule,
    // since subscriptions change them.
    let exponential = retry.exponential().check();
    let jitter = RetryPolicy::exponential(Exponential::default(), retry.jitter);
    let list = retry.schedule.clone();
    let schedule = list.map(|delays| RetryPolicy::list(delays, 0.0).map(|_| ()));
    let checked = [exponential, jitter.map(|_| ()), schedule.unwrap_or(Ok(()))];
    let shown = |fault: RetryFault| {
        let key = format!("retry.{}", fault.field);
        // A default is at odds with what was set: `max` with `initial`.
        let origin = origin(&key).or_else(|| origin("retry.initial"));
        Fault {
            key,
            problem: fault.problem,
            origin,
        }
    };
    checked
        .into_iter()
        .filter_map(Result::err)
        .map(shown)
        .collect()
}

/// What is allowed but should be looked at.
pub(super) fn warnings(config: &Config) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |key, problem| warnings.push(Warning { key, problem });
    if let Some(token) = &config.http.admin_token
        && token.expose_secret().chars().count() < TOKEN_CHARS_ADVISED
    {
        let problem = format!(
            "has fewer than {TOKEN_CHARS_ADVISED} characters, which makes it easy to guess"
        );
        warn("http.admin_token", problem);
    }
    if !config.is_embedded() && config.secrets.keys.first().is_none() {
        let problem = "is not set: signing secrets are stored in Redis without encryption";
        warn("secrets.keys", problem.to_owned());
    }
    for network in &config.egress.allow {
        if network.prefix_len() == 0 {
            let problem = format!("has {network}: webhooks can reach every internal address");
            warn("egress.allow", problem);
        }
    }
    for (key, networks) in [
        ("egress.allow", &config.egress.allow),
        ("egress.deny", &config.egress.deny),
    ] {
        for network in networks.iter().filter(|n| n.addr() != n.trunc().addr()) {
            let whole = network.trunc();
            warn(key, format!("has {network}, which covers all of {whole}"));
        }
    }
    warnings
}
