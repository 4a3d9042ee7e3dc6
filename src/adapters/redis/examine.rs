//! Looks at a Redis and leaves it as it is, for `carillon doctor`: does it let us in, is it set up
//! so that nothing is lost, is it marked as ours, can our keys read what is in it.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use futures_util::future::join_all;

use super::Keys;
use super::target::{OpenError, Target, within};
use crate::codec::subscription::Survey;
use crate::codec::vault::Vault;
use crate::config::RedisUrl;
use crate::domain::timestamp::UnixMillis;

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How many records are read by one question.
const PAGE: usize = 500;

/// A Redis that is looked at.
pub struct Examiner {
    target: Target,
    keys: Keys,
}

/// One server as it tells of itself.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its `INFO`.
    pub info: Result<HashMap<String, String>, Untold>,
    /// Its clock; `None` when it did not say.
    pub clock: Option<UnixMillis>,
}

/// Why a server did not tell of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untold {
    /// The user may not ask; what the server said.
    Forbidden(String),
    /// It did not answer, or could not; why.
    Failed(String),
}

impl Examiner {
    /// One of the Redis at `url`, where names of keys begin with `prefix`.
    ///
    /// # Errors
    /// [`OpenError`] for settings that can never work.
    pub fn new(url: RedisUrl, ca_file: Option<&Path>, prefix: &str) -> Result<Self, OpenError> {
        Ok(Self {
            target: Target::new(url, ca_file)?,
            keys: Keys::new(prefix),
        })
    }

    /// Each server: the one that is named or that the sentinels name, or all nodes of a cluster
    /// that are named. With `host:port`, and why it cannot be reached.
    pub async fn servers(&self) -> Vec<(String, Result<Server, String>)> {
        let looks = self.target.each_server().await.into_iter();
        let looks = looks.map(|(place, connected)| async {
            let asked = match connected {
                Ok(conn) => Ok(ask(conn).await),
                Err(error) => Err(error.to_string()),
            };
            (place, asked)
        });
        join_all(looks).await
    }

    /// Whether it is marked as ours: all keys are there that never go.
    ///
    /// # Errors
    /// Why it cannot be asked.
    pub async fn is_marked(&self) -> Result<bool, String> {
        let keys = &self.keys;
        let mut ask = ::redis::cmd("EXISTS");
        for key in [
            &keys.marker,
            &keys.records,
            &keys.ids,
            &keys.by_scope,
            &keys.versions,
            &keys.stamp,
        ] {
            ask.arg(key);
        }
        let ask = async {
            let mut conn = self.target.connect().await?;
            ask.query_async::<u64>(&mut conn).await
        };
        let there = within(LIMIT, ask).await;
        there.map(|n| n == 6).map_err(|error| error.to_string())
    }

    /// Reads all subscriptions, in parts.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub async fn survey(&self, vault: &Vault) -> Result<Survey, String> {
        let read = async {
            let mut conn = self.target.connect().await?;
            let mut survey = Survey::default();
            let mut cursor = 0_u64;
            loop {
                let mut ask = ::redis::cmd("HSCAN");
                ask.arg(&self.keys.records).arg(cursor);
                ask.arg("COUNT").arg(PAGE);
                let page = ask.query_async(&mut conn);
                let (next, page): (u64, Vec<(String, Vec<u8>)>) = within(LIMIT, page).await?;
                // The member without a name keeps the key from being absent.
                for (_, kept) in page.iter().filter(|(id, _)| !id.is_empty()) {
                    // The version and the scope stand before it.
                    let record = kept.splitn(3, |b| *b == b' ').nth(2);
                    survey.add(record.unwrap_or_default(), vault);
                }
                cursor = next;
                if cursor == 0 {
                    return Ok(survey);
                }
            }
        };
        let read: RedisResult<Survey> = read.await;
        read.map_err(|error| error.to_string())
    }
}

/// What one server tells of itself, as far as the user may ask.
async fn ask(mut conn: MultiplexedConnection) -> Server {
    let info = ::redis::cmd("INFO");
    let info = within(LIMIT, info.query_async::<String>(&mut conn)).await;
    let time = ::redis::cmd("TIME");
    let time = within(LIMIT, time.query_async::<(i64, i64)>(&mut conn)).await;
    Server {
        info: info
            .map(|text| read_info(&text))
            .map_err(|error| untold(&error)),
        clock: time.ok().map(|(s, us)| UnixMillis(s * 1000 + us / 1000)),
    }
}

/// A command that is forbidden, or is known by another name.
fn untold(error: &RedisError) -> Untold {
    use ServerErrorKind::{NoPerm, ResponseError};
    match error.kind() {
        ErrorKind::Server(NoPerm | ResponseError) => Untold::Forbidden(error.to_string()),
        _ => Untold::Failed(error.to_string()),
    }
}

/// `name:value` on each line; titles begin with a `#`.
fn read_info(text: &str) -> HashMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::target::fault;
    use super::*;

    #[test]
    fn silence_is_not_taken_for_a_refusal() {
        let said = |kind| RedisError::from((ErrorKind::Server(kind), "it said so"));
        let is_forbidden = |error| matches!(untold(&error), Untold::Forbidden(_));
        assert!(is_forbidden(said(ServerErrorKind::NoPerm)));
        assert!(is_forbidden(said(ServerErrorKind::ResponseError)));
        assert!(!is_forbidden(said(ServerErrorKind::BusyLoading)));
        assert!(!is_forbidden(fault("no answer in time")));
    }

    #[test]
    fn info_is_read_by_its_names() {
        let info = read_info("# Server\r\nredis_version:7.0.15\r\nos:Linux 6:1\r\n\r\nmaxmemory:0");
        assert_eq!(info["redis_version"], "7.0.15");
        assert_eq!(info["os"], "Linux 6:1");
        assert_eq!(info["maxmemory"], "0");
        assert_eq!(info.len(), 3);
    }
}
