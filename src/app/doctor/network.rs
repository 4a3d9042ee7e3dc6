//! Names and certificates: what sending webhooks needs of the machine.

use std::net::IpAddr;
use std::time::Duration;

use url::Url;

use crate::adapters::https::{Answered, look_up, read_ca_file, system_root_count};
use crate::cli::doctor::Check;
use crate::codec::subscription::Survey;
use crate::config::Config;

/// How long name servers may take.
const DNS_LIMIT: Duration = Duration::from_secs(5);

/// Whether names can be looked up as sending does: that of the first subscription, else that of
/// RabbitMQ or Redis.
pub(super) async fn dns(config: &Config, survey: Option<&Survey>) -> Check {
    let name = "dns";
    let of_subscription = survey.and_then(|survey| survey.host.clone());
    let is_endpoint = of_subscription.is_some();
    let Some(host) = of_subscription.or_else(|| server_name(config)) else {
        let detail = "there is no name to look up: no subscription with one yet";
        return Check::skipped(name, detail);
    };
    let answered = look_up(&host, config.egress_rules(), DNS_LIMIT).await;
    of_answer(&host, answered, is_endpoint)
}

fn of_answer(host: &str, answered: Result<Answered, String>, is_endpoint: bool) -> Check {
    let name = "dns";
    match answered {
        Ok(Answered::Addresses(n)) => {
            let addresses = match n {
                1 => "1 address".to_owned(),
                n => format!("{n} addresses"),
            };
            Check::ok(name, format!("`{host}` has {addresses}"))
        }
        Ok(Answered::Refused(why)) if is_endpoint => Check::warning(
            name,
            format!("`{host}` is the host of a subscription, and is not sent to: {why}"),
            "name the address in `egress.allow`, if that is meant",
        ),
        Ok(Answered::Nothing) if is_endpoint => Check::warning(
            name,
            format!("name servers answer; `{host}`, the host of a subscription, has no address"),
            "look at that subscription's URL",
        ),
        // The names of servers are looked up by the system, which knows more than name servers.
        Ok(_) => Check::ok(name, format!("name servers answer (asked for `{host}`)")),
        Err(why) => Check::failed(
            name,
            why,
            "see that the name servers of /etc/resolv.conf can be reached from here: nothing can be \
             sent to a name without them",
        ),
    }
}

/// A name among the hosts of RabbitMQ and Redis.
fn server_name(config: &Config) -> Option<String> {
    let brokers = config.broker.url.iter().flat_map(|urls| urls.expose());
    let redis = config.redis.url.iter().flat_map(|url| url.expose_nodes());
    let host = |url: &str| Url::parse(url).ok()?.host_str().map(str::to_owned);
    let is_name = |host: &String| {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        address.is_err() && host != "localhost"
    };
    brokers.chain(redis).filter_map(host).find(is_name)
}

/// Whom TLS trusts.
pub(super) fn tls_roots(config: &Config) -> Check {
    let system = system_root_count();
    let ours = match &config.egress.ca_file {
        None => Ok(None),
        Some(path) => read_ca_file(path).map(|read| Some(read.len())),
    };
    of_roots(system, ours.map_err(|error| error.to_string()))
}

fn of_roots(system: usize, ours: Result<Option<usize>, String>) -> Check {
    let name = "tls roots";
    match (system, ours) {
        (_, Err(why)) => Check::failed(name, why, "mend the file that `egress.ca_file` names"),
        (0, Ok(None)) => Check::warning(
            name,
            "the system has no root certificates: no HTTPS endpoint can be trusted",
            "install them (`ca-certificates`), or set `egress.ca_file`",
        ),
        (0, Ok(Some(n))) => Check::ok(name, format!("{n} of `egress.ca_file`, none of the system")),
        (system, Ok(None)) => Check::ok(name, format!("{system} of the system")),
        (system, Ok(Some(n))) => Check::ok(
            name,
            format!("{system} of the system and {n} of `egress.ca_file`"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn an_answer_is_judged_by_whose_name_it_is() {
        for (answered, is_endpoint, expected) in [
            (Ok(Answered::Addresses(1)), true, Verdict::Ok),
            (Ok(Answered::Nothing), true, Verdict::Warning),
            (Ok(Answered::Nothing), false, Verdict::Ok),
            (
                Ok(Answered::Refused("inside".to_owned())),
                true,
                Verdict::Warning,
            ),
            (
                Ok(Answered::Refused("inside".to_owned())),
                false,
                Verdict::Ok,
            ),
            (Err("no answer".to_owned()), false, Verdict::Failed),
        ] {
            let check = of_answer("a.example", answered, is_endpoint);
            assert_eq!(check.verdict, expected, "{check:?}");
        }
    }

    #[test]
    fn roots_of_both_kinds_are_counted() {
        for (system, ours, expected) in [
            (0, Ok(None), Verdict::Warning),
            (0, Ok(Some(1)), Verdict::Ok),
            (140, Ok(Some(1)), Verdict::Ok),
            (140, Err("unreadable".to_owned()), Verdict::Failed),
        ] {
            assert_eq!(of_roots(system, ours).verdict, expected);
        }
    }

    #[test]
    fn only_names_are_looked_up() {
        let name = |broker: &str, redis: &str| {
            let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            let env = [
                set("CARILLON_BROKER__URL", broker),
                set("CARILLON_REDIS__URL", redis),
            ];
            server_name(&Config::load(None, env).unwrap().config)
        };
        let found = name("amqp://u:p@10.0.0.1,amqp://u:p@rabbit-2/v", "redis://redis");
        assert_eq!(found.as_deref(), Some("rabbit-2"));
        let found = name("amqp://localhost", "redis-cluster://[::1]:1,r.example:2");
        assert_eq!(found.as_deref(), Some("r.example"));
        assert_eq!(name("amqp://127.0.0.1", "redis://127.0.0.1"), None);
    }
}
