//! The URLs of RabbitMQ and Redis, which may hold passwords.
//!
//! They are checked for form, and shown without user information and query. No fault
//! repeats a part of them.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use toml::Value;
use url::Url;

use super::schema::{Kind, Problem};
use super::values::{REDACTED, quoted, secret_text};

/// The URLs of the nodes of one RabbitMQ cluster; at least one.
#[derive(Clone)]
pub struct BrokerUrls(Vec<SecretString>);

/// Where Redis is.
#[derive(Clone)]
pub struct RedisUrl {
    form: RedisForm,
    nodes: Vec<SecretString>,
    database: i64,
    shown: String,
}

/// What stands behind a Redis URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisForm {
    /// One server.
    Single,
    /// A cluster, of which some nodes are named.
    Cluster,
    /// Sentinels that know the master.
    Sentinel {
        /// The name by which they know it.
        master: String,
    },
}

impl BrokerUrls {
    /// Each `amqp://` or `amqps://` URL with its credentials, in the order given.
    pub fn expose(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|url| url.expose_secret())
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let several = text.contains(',');
        let urls = text.split(',').map(str::trim).enumerate().map(|(i, url)| {
            node(url, &["amqp", "amqps"]).map_err(|problem| {
                let place = format!("[{i}]");
                problem.below(if several { &place } else { "" })
            })?;
            Ok(SecretString::from(url))
        });
        urls.collect::<Result<_, _>>().map(Self)
    }
}

impl RedisUrl {
    /// One server, a cluster, or sentinels.
    pub fn form(&self) -> &RedisForm {
        &self.form
    }

    /// A `redis://` or `rediss://` URL with credentials for each host that was named: of
    /// the server, of cluster nodes, or of sentinels. Without a database.
    pub fn expose_nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|url| url.expose_secret())
    }

    /// The number of the database; 0 in a cluster.
    pub fn database(&self) -> i64 {
        self.database
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let (scheme, rest) = text.split_once("://").ok_or_else(Self::wrong)?;
        let (base, kind) = scheme.split_once('-').unwrap_or((scheme, ""));
        if !matches!(base, "redis" | "rediss") {
            return Err(Self::wrong());
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if rest.contains(['?', '#']) || path.contains('@') {
            let problem = "must not have a query or fragment; in a password, `/`, `?` and `#` are \
                           written `%2F`, `%3F` and `%23`";
            return Err(Problem::new(problem));
        }
        let (form, database) = RedisForm::parse(kind, path)?;
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        if form == RedisForm::Single && hosts.contains(',') {
            let problem = "must have one host; for a cluster, write `redis-cluster://`";
            return Err(Problem::new(problem));
        }
        let nodes = hosts.split(',').map(|host| {
            let url = format!("{base}://{user}{host}");
            node(&url, &[base]).map(|()| SecretString::from(url))
        });
        Ok(Self {
            nodes: nodes.collect::<Result<_, _>>()?,
            form,
            database,
            shown: without_secrets(text),
        })
    }

    fn wrong() -> Problem {
        Problem::new(format!("must be {}", Self::form_text()))
    }

    fn form_text() -> &'static str {
        "a URL that begins with `redis://`, `rediss://`, `redis-cluster://`, `rediss-cluster://`, \
         `redis-sentinel://` or `rediss-sentinel://`"
    }
}

impl RedisForm {
    /// The form that a scheme ends with, and the database that the path ends with.
    fn parse(kind: &str, path: &str) -> Result<(Self, i64), Problem> {
        match kind {
            "" => Ok((Self::Single, database(path)?)),
            "cluster" if path.is_empty() => Ok((Self::Cluster, 0)),
            "cluster" => {
                let problem = "must not have a path: a cluster has no databases";
                Err(Problem::new(problem))
            }
            "sentinel" => {
                let (master, number) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    let problem = "must have the name of the master as its path";
                    return Err(Problem::new(problem));
                }
                let master = master.to_owned();
                Ok((Self::Sentinel { master }, database(number)?))
            }
            _ => Err(RedisUrl::wrong()),
        }
    }
}

impl fmt::Debug for BrokerUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show().unwrap_or_default())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(&self.shown))
    }
}

impl Kind for BrokerUrls {
    const TEXT: bool = true;

    fn form() -> String {
        "one or more URLs that begin with `amqp://` or `amqps://`, separated by commas".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        Self::parse(secret_text::<Self>(value)?)
    }

    fn show(&self) -> Option<String> {
        let urls: Vec<_> = self.expose().map(without_secrets).collect();
        Some(quoted(&urls.join(",")))
    }
}

impl Kind for RedisUrl {
    const TEXT: bool = true;

    fn form() -> String {
        Self::form_text().to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        Self::parse(secret_text::<Self>(value)?)
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.shown))
    }
}

/// Checks the URL of one node: scheme, form and host.
fn node(url: &str, schemes: &[&str]) -> Result<(), Problem> {
    let parsed = Url::parse(url).ok();
    let Some(parsed) = parsed.filter(|url| schemes.contains(&url.scheme())) else {
        let expected: Vec<_> = schemes.iter().map(|s| format!("`{s}://`")).collect();
        let expected = expected.join(" or ");
        let problem = format!(
            "must be a URL that begins with {expected}; in a password, `/`, `@`, `,` and the like \
             are written `%2F`, `%40`, `%2C`"
        );
        return Err(Problem::new(problem));
    };
    match parsed.host_str() {
        None | Some("") => Err(Problem::new("must name a host")),
        Some(_) => Ok(()),
    }
}

fn database(path: &str) -> Result<i64, Problem> {
    if path.is_empty() {
        return Ok(0);
    }
    let number = path.parse().ok().filter(|n| *n >= 0);
    number.ok_or_else(|| Problem::new("must have a database number as its path, such as `/0`"))
}

/// The URL with user information and query replaced.
fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, query) = match rest.split_once(['?', '#']) {
        Some((rest, _)) => (rest, format!("?{REDACTED}")),
        None => (rest, String::new()),
    };
    // From the right: whatever is left of the last `@` may be a part of a password.
    let rest = match rest.rsplit_once('@') {
        Some((_, hosts)) => format!("{REDACTED}@{hosts}"),
        None => rest.to_owned(),
    };
    format!("{scheme}://{rest}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_urls_are_split_and_redacted() {
        let urls = BrokerUrls::parse("amqp://u:p%2Cw@a:5672/v, amqps://b/%2f?heartbeat=3").unwrap();
        let exposed: Vec<_> = urls.expose().collect();
        assert_eq!(
            exposed,
            ["amqp://u:p%2Cw@a:5672/v", "amqps://b/%2f?heartbeat=3"]
        );
        assert_eq!(
            format!("{urls:?}"),
            r#""amqp://…@a:5672/v,amqps://b/%2f?…""#
        );
    }

    #[test]
    fn faults_of_broker_urls_repeat_nothing() {
        for (text, below) in [
            ("hunter2", ""),
            ("http://u:hunter2@host", ""),
            ("amqp://", ""),
            ("amqp:hunter2", ""),
            ("amqp://u:hunter2@host:port", ""),
            ("amqp://u:hun,ter2@host", "[0]"),
            ("amqp://a,", "[1]"),
        ] {
            let problem = BrokerUrls::parse(text).unwrap_err();
            assert_eq!(problem.below, below, "{text}");
            assert!(!problem.text.contains("ter2"), "{}", problem.text);
        }
    }

    #[test]
    fn redis_urls_have_three_forms() {
        let master = RedisForm::Sentinel {
            master: "main".to_owned(),
        };
        for (text, form, nodes, database, shown) in [
            (
                "redis://h",
                RedisForm::Single,
                vec!["redis://h"],
                0,
                "redis://h",
            ),
            (
                "rediss://u:p@h:1/3",
                RedisForm::Single,
                vec!["rediss://u:p@h:1"],
                3,
                "rediss://…@h:1/3",
            ),
            (
                "redis-cluster://:p@h:1,[::1]:2",
                RedisForm::Cluster,
                vec!["redis://:p@h:1", "redis://:p@[::1]:2"],
                0,
                "redis-cluster://…@h:1,[::1]:2",
            ),
            (
                "rediss-sentinel://h:1,i:2/main/4",
                master,
                vec!["rediss://h:1", "rediss://i:2"],
                4,
                "rediss-sentinel://h:1,i:2/main/4",
            ),
        ] {
            let url = RedisUrl::parse(text).unwrap();
            assert_eq!(url.form(), &form, "{text}");
            assert_eq!(url.expose_nodes().collect::<Vec<_>>(), nodes);
            assert_eq!(url.database(), database);
            assert_eq!(format!("{url:?}"), format!("{shown:?}"));
        }
    }

    #[test]
    fn faults_of_redis_urls_repeat_nothing() {
        for text in [
            "hunter2",
            "http://hunter2@h",
            "redis-ring://hunter2@h",
            "redis://:hunter2@",
            "redis://:hunter2@a,b",
            "redis://h/hunter2",
            "redis://h/-1",
            "redis://:hunter2@h?x=1",
            "redis-cluster://:hunter2@h/1",
            "redis-sentinel://:hunter2@h",
            "redis-sentinel://:hunter2@h/m/x",
            "redis://:hun/ter2@h",
            "redis-sentinel://u:12/ter2@h/m",
        ] {
            let problem = RedisUrl::parse(text).map(|_| text).unwrap_err();
            assert!(!problem.text.contains("ter2"), "{text}: {}", problem.text);
        }
    }
}
