//! The Carillon that runs, if one does: whether it lets us in, and says that it is ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::Findings;
use crate::cli::client::{ApiClient, ApiError};
use crate::cli::doctor::Check;
use crate::cli::{API_DEFAULT, Globals};
use crate::config::Config;

/// How long it may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Looks at it.
pub(super) async fn look(config: &Config, globals: &Globals, found: &Findings<'_>) {
    // Nobody said otherwise: where this configuration has it, with its token. That goes nowhere
    // else.
    let is_own = globals.api == API_DEFAULT;
    let own = || format!("http://{}", reachable(config.http.listen));
    let own_token = config.http.admin_token.clone().filter(|_| is_own);
    let globals = Globals {
        api: if is_own { own() } else { globals.api.clone() },
        token: globals.token.clone().or(own_token),
        ..globals.clone()
    };
    let ready = ready(reachable(config.ops.listen));
    let (api, ready) = tokio::join!(
        found.within("api", api(&globals)),
        found.within("ready", ready)
    );
    found.extend(api.into_iter().chain(ready));
}

async fn api(globals: &Globals) -> Check {
    let name = "api";
    let client = match ApiClient::new(globals) {
        Ok(client) => client,
        Err(error) => return Check::failed(name, error.to_string(), "mend --api"),
    };
    let query = [("limit", Some("1".to_owned()))];
    let asked = tokio::time::timeout(LIMIT, client.get_once(&["subscriptions"], &query));
    match asked.await {
        Ok(answered) => of_api(&globals.api, answered),
        Err(_) => {
            let detail = format!("{} did not answer within {LIMIT:?}", globals.api);
            Check::failed(name, detail, "look at its log")
        }
    }
}

fn of_api(api: &str, answered: Result<Value, ApiError>) -> Check {
    let name = "api";
    match answered {
        Ok(_) => Check::ok(name, format!("{api} answers and takes the token")),
        Err(ApiError::Unreachable {
            no_connection: true,
            ..
        }) => Check::skipped(
            name,
            format!("nothing listens at {api}: Carillon does not run there"),
        ),
        Err(ApiError::Refused(problem)) if matches!(problem.status, 401 | 403) => Check::failed(
            name,
            format!("{api} does not take the token: {}", problem.title),
            "it was started with another `http.admin_token`: restart it, or give its token with \
             --token or CARILLON_TOKEN",
        ),
        Err(ApiError::Refused(problem)) => {
            Check::failed(name, problem.to_string(), "look at its log")
        }
        Err(error) => Check::failed(
            name,
            error.to_string(),
            "something else may listen there: name another address in `http.listen`, or in --api",
        ),
    }
}

/// What the operations listener says.
async fn ready(listen: SocketAddr) -> Check {
    let (name, url) = ("ready", format!("http://{listen}/readyz"));
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(LIMIT)
        .build();
    let asked = match client {
        Ok(client) => client.get(&url).send().await,
        Err(error) => Err(error),
    };
    let answer = match asked {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => {
            let detail = format!("nothing listens at {listen}: Carillon does not run there");
            return Check::skipped(name, detail);
        }
        Err(error) => return Check::failed(name, format!("{url}: {error}"), "look at its log"),
    };
    let status = answer.status().as_u16();
    let document = answer.json().await.unwrap_or(Value::Null);
    of_ready(&url, status, &document)
}

fn of_ready(url: &str, status: u16, document: &Value) -> Check {
    let name = "ready";
    match (status, document["reason"].as_str()) {
        (200, _) => Check::ok(name, "it takes events and delivers them"),
        (503, Some(reason)) => Check::failed(
            name,
            format!("it is not ready: {reason}"),
            "what the other checks say of its servers leads to it",
        ),
        _ => Check::failed(
            name,
            format!("{url} answers {status}, which Carillon does not"),
            "something else listens there: name another address in `ops.listen`",
        ),
    }
}

/// An address to connect to for one to listen on.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::client::Problem;
    use crate::cli::doctor::Verdict;

    #[test]
    fn a_token_that_is_not_taken_is_told_with_what_to_do() {
        let refused = |status| {
            let problem = Problem {
                status,
                title: "No".to_owned(),
                ..Problem::default()
            };
            of_api("http://x", Err(ApiError::Refused(Box::new(problem))))
        };
        assert_eq!(of_api("http://x", Ok(json!({}))).verdict, Verdict::Ok);
        assert_eq!(refused(401).verdict, Verdict::Failed);
        assert!(refused(401).advice.unwrap().contains("--token"));
        assert_eq!(refused(503).verdict, Verdict::Failed);
        let other = of_api("http://x", Err(ApiError::Unexpected("a page".to_owned())));
        assert!(other.advice.unwrap().contains("http.listen"));
    }

    #[test]
    fn why_it_is_not_ready_is_told() {
        let waiting = json!({ "status": "not_ready", "reason": "draining" });
        assert_eq!(of_ready("u", 200, &json!({})).verdict, Verdict::Ok);
        let told = of_ready("u", 503, &waiting);
        assert_eq!(told.verdict, Verdict::Failed);
        assert!(told.detail.contains("draining"), "{told:?}");
        assert!(of_ready("u", 404, &Value::Null).detail.contains("404"));
    }

    #[test]
    fn an_address_to_listen_on_is_one_to_connect_to() {
        let of = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(of("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(of("[::]:8080"), "[::1]:8080");
        assert_eq!(of("10.0.0.1:80"), "10.0.0.1:80");
    }
}
