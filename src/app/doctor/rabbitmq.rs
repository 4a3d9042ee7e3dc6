//! RabbitMQ: each node, the exchanges and queues, and whether it takes messages.

use std::time::Duration;

use futures_util::future::join_all;

use super::{Findings, is_at_least};
use crate::adapters::rabbitmq::TopologyError;
use crate::adapters::rabbitmq::examine::{Node, Topology, place_of};
use crate::cli::doctor::Check;
use crate::config::Config;

/// The oldest version that Carillon is tested with.
const OLDEST: (u32, u32) = (3, 10);
/// How long one node may take to let us in and say what it is.
const NODE_LIMIT: Duration = Duration::from_secs(15);
/// Names told of many; the rest is a number.
const NAMED_MAX: usize = 3;

/// Looks at all of it.
pub(super) async fn look(config: &Config, found: &Findings<'_>) {
    let urls = config.broker.url.iter().flat_map(|urls| urls.expose());
    let ca_file = config.broker.ca_file.as_deref();
    let looks = urls.map(|url| async move {
        let url = url.into();
        let place = place_of(&url);
        let node = tokio::time::timeout(NODE_LIMIT, Node::connect(&url, ca_file));
        let late = |_| Err(format!("{place}: no answer within {NODE_LIMIT:?}"));
        let node = node.await.unwrap_or_else(late);
        (place, node)
    });
    let looked = join_all(looks).await;
    let others_answer = looked.iter().any(|(_, node)| node.is_ok());
    let mut first = None;
    for (place, node) in looked {
        let version = node.as_ref().map(|node| node.version.as_deref());
        found.add(of_node(&place, version, others_answer));
        match (node, &first) {
            (Ok(node), None) => first = Some(node),
            (Ok(node), Some(_)) => node.close().await,
            (Err(_), _) => {}
        }
    }
    let Some(node) = first else {
        return;
    };
    let prefix = &config.broker.prefix;
    // First this: during an alarm RabbitMQ reads nothing more from a connection that publishes.
    let topology = found.within("queues", node.topology(prefix)).await;
    found.extend(topology.as_ref().map(of_topology));
    let held = found.within("broker alarm", node.held(prefix)).await;
    found.extend(held.map(of_alarm));
    node.close().await;
}

fn of_node(place: &str, found: Result<Option<&str>, &String>, others_answer: bool) -> Check {
    let name = "rabbitmq";
    match found {
        Ok(Some(version)) if !is_at_least(version, OLDEST) => Check::warning(
            name,
            format!("{place}: version {version}"),
            format!("Carillon needs {}.{} or later", OLDEST.0, OLDEST.1),
        ),
        Ok(Some(version)) => Check::ok(name, format!("{place}: version {version}")),
        Ok(None) => Check::ok(name, format!("{place}: answers")),
        Err(why) if others_answer => {
            let advice = "Carillon uses the others; mend it, or take it out of `broker.url`";
            Check::warning(name, why.clone(), advice)
        }
        Err(why) => {
            let advice = "see that RabbitMQ runs there, and that `broker.url` and `broker.ca_file` \
                          suit it";
            Check::failed(name, why.clone(), advice)
        }
    }
}

fn of_topology(topology: &Topology) -> Check {
    let name = "queues";
    let Topology {
        there,
        missing,
        faults,
        silent,
    } = topology;
    let silence = |name: &String| format!("RabbitMQ says nothing of `{name}`: has it a leader?");
    let faults: Vec<String> = faults
        .iter()
        .map(TopologyError::to_string)
        .chain(silent.iter().map(silence))
        .collect();
    if !faults.is_empty() {
        let more = match faults.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            n => format!("; and {n} more like this"),
        };
        let told = faults[..faults.len().min(NAMED_MAX)].join("; ");
        let advice = "`carillon serve` does not start like this";
        return Check::failed(name, format!("{told}{more}"), advice);
    }
    let detail = match (there, missing.len()) {
        (0, _) => "none is there yet: `carillon serve` declares them".to_owned(),
        (there, 0) => format!("all {there} exchanges and queues are there as they are to be"),
        (there, n) => {
            format!("{there} are there as they are to be; `carillon serve` declares {n} more")
        }
    };
    Check::ok(name, detail)
}

fn of_alarm(held: Result<Option<String>, String>) -> Check {
    let name = "broker alarm";
    match held {
        Ok(None) => Check::ok(name, "RabbitMQ takes messages"),
        Ok(Some(reason)) => Check::failed(
            name,
            format!("RabbitMQ holds publishing: {reason}"),
            "give it memory or disk (`rabbitmq-diagnostics alarms`); until then retries wait and \
             events are refused",
        ),
        Err(why) => Check::failed(
            name,
            format!("a message could not be published: {why}"),
            "give the user the permission to write to the default exchange and to what begins with \
             the prefix",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn one_node_of_several_may_be_away() {
        let why = "rabbit:5672: refused".to_owned();
        for (found, others, expected) in [
            (Ok(Some("4.1.0")), false, Verdict::Ok),
            (Ok(None), false, Verdict::Ok),
            (Ok(Some("3.8.9")), false, Verdict::Warning),
            (Err(&why), true, Verdict::Warning),
            (Err(&why), false, Verdict::Failed),
        ] {
            let check = of_node("rabbit:5672", found, others);
            assert_eq!(check.verdict, expected, "{check:?}");
            assert!(check.detail.contains("rabbit:5672"), "{check:?}");
        }
    }

    #[test]
    fn what_is_missing_is_made_and_what_differs_is_not() {
        let refused = |name: &str| TopologyError::Refused {
            name: name.to_owned(),
            text: "no".to_owned(),
        };
        let missing = |n: usize| (0..n).map(|n| n.to_string()).collect();
        for (there, absent, faults, silent, expected) in [
            (0, 66, 0, 0, Verdict::Ok),
            (66, 0, 0, 0, Verdict::Ok),
            (60, 6, 0, 0, Verdict::Ok),
            (60, 0, 6, 0, Verdict::Failed),
            (60, 0, 0, 6, Verdict::Failed),
        ] {
            let topology = Topology {
                there,
                missing: missing(absent),
                faults: (0..faults).map(|n| refused(&format!("q{n}"))).collect(),
                silent: missing(silent),
            };
            assert_eq!(of_topology(&topology).verdict, expected);
        }
        let topology = Topology {
            faults: (0..5).map(|n| refused(&format!("q{n}"))).collect(),
            ..Topology::default()
        };
        let told = of_topology(&topology).detail;
        assert!(told.contains("`q2`") && told.contains("2 more"), "{told}");
    }

    #[test]
    fn an_alarm_is_a_failure() {
        assert_eq!(of_alarm(Ok(None)).verdict, Verdict::Ok);
        let low = of_alarm(Ok(Some("low on memory".to_owned())));
        assert_eq!(low.verdict, Verdict::Failed);
        assert!(low.detail.contains("low on memory"), "{low:?}");
        assert_eq!(of_alarm(Err("no".to_owned())).verdict, Verdict::Failed);
    }
}
