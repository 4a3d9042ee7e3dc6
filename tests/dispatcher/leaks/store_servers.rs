//! RabbitMQ and Redis of one's own, with passwords, to be searched.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::Consumer;
use redis::aio::MultiplexedConnection;

use crate::dispatcher::leaks::{Canaries, Needle, Piece, files_below, with_unpacked};
use crate::on_a_broker::Client;
use crate::process::Variables;
use crate::services::{Broker, RedisServer};

const USER: &str = "carillon";
/// How long nothing more has to come.
const QUIET: Duration = Duration::from_millis(300);

/// Where the program keeps everything.
pub struct Store {
    broker: Broker,
    redis: RedisServer,
    passwords: [String; 2],
    notices: Option<(Client, Consumer)>,
}

impl Store {
    /// What must be found in it, as the search is to be trusted.
    pub const CONTROLS: &[(&str, &str)] = &[
        ("store", Canaries::HEADER),
        ("files of Redis", Canaries::HEADER),
        ("store", Canaries::EVENT),
        ("store, unpacked", Canaries::DATA),
        ("store, unpacked", Canaries::HEADER),
        ("broker", Canaries::DATA),
        ("broker", Canaries::EVENT),
        ("broker", Canaries::PUT_ASIDE),
        ("notices", Canaries::EVENT),
    ];
    /// The place with bodies as they were published.
    pub const KEEPS_BODIES: &str = "broker";

    pub async fn start() -> Self {
        let (broker, redis) = tokio::join!(Broker::start(1), RedisServer::start());
        let passwords = [(); 2].map(|()| {
            let mut random = [0; 12];
            getrandom::fill(&mut random).unwrap();
            format!("p{}", hex::encode(random))
        });
        let [of_broker, of_redis] = &passwords;
        broker.ctl(1, &["add_user", USER, of_broker]).await;
        broker
            .ctl(1, &["set_permissions", USER, ".*", ".*", ".*"])
            .await;
        let password = format!(">{of_redis}");
        redis
            .cli(&["acl", "setuser", USER, "on", &password, "~*", "&*", "+@all"])
            .await;
        Self {
            broker,
            redis,
            passwords,
            notices: None,
        }
    }

    pub fn variables(&self) -> Variables {
        let [of_broker, of_redis] = &self.passwords;
        let user = |password| format!("://{USER}:{password}@");
        let broker = self
            .broker
            .url(1)
            .replace("://guest:guest@", &user(of_broker));
        let redis = self.redis.url().replace("://", &user(of_redis));
        vec![
            ("CARILLON_BROKER__URL", broker),
            ("CARILLON_REDIS__URL", redis),
        ]
    }

    /// Its own secrets.
    pub fn needles(&self) -> Vec<Needle> {
        let [of_broker, of_redis] = &self.passwords;
        vec![
            Needle::new("password of RabbitMQ", of_broker),
            Needle::new("password of Redis", of_redis),
        ]
    }

    /// Hears all notices from now on.
    pub async fn listen(&mut self) {
        let client = Client::at(&self.broker.url(1), "carillon").await;
        let notices = client.listen("notices", "#").await;
        self.notices = Some((client, notices));
    }

    /// What Redis holds, the files of both, and the notices.
    pub async fn pieces(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let (_, notices) = self.notices.as_mut().unwrap();
        while let Ok(Some(notice)) = tokio::time::timeout(QUIET, notices.next()).await {
            pieces.push(Piece::new("notices", notice.unwrap().data));
        }
        let client = redis::Client::open(self.redis.url()).unwrap();
        let mut conn = client.get_multiplexed_async_connection().await.unwrap();
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut conn)
            .await
            .unwrap();
        for key in keys {
            for value in values_of(&mut conn, &key).await {
                pieces.extend(with_unpacked("store", value));
            }
            pieces.push(Piece::new("store", key));
        }
        self.redis.cli(&["save"]).await;
        let folder = self.redis.folder().await;
        pieces.extend(files_below(Path::new(&folder), "files of Redis"));
        let folder = self.broker.folder().await;
        pieces.extend(files_below(Path::new(&folder), "broker"));
        pieces
    }
}

/// Everything under a key, and the key's own dump.
async fn values_of(conn: &mut MultiplexedConnection, key: &[u8]) -> Vec<Vec<u8>> {
    let kind: String = redis::cmd("TYPE").arg(key).query_async(conn).await.unwrap();
    let mut ask = match kind.as_str() {
        "string" => redis::cmd("GET"),
        "hash" => redis::cmd("HGETALL"),
        "set" => redis::cmd("SMEMBERS"),
        "list" => redis::cmd("LRANGE"),
        "zset" => redis::cmd("ZRANGE"),
        "stream" => redis::cmd("XRANGE"),
        // It has just expired.
        _ => return Vec::new(),
    };
    ask.arg(key);
    match kind.as_str() {
        "list" | "zset" => ask.arg(0).arg(-1),
        "stream" => ask.arg("-").arg("+"),
        _ => &mut ask,
    };
    let mut values = Vec::new();
    flatten(ask.query_async(conn).await.unwrap(), &mut values);
    values
}

fn flatten(value: redis::Value, into: &mut Vec<Vec<u8>>) {
    match value {
        redis::Value::BulkString(bytes) => into.push(bytes),
        redis::Value::SimpleString(text) => into.push(text.into_bytes()),
        redis::Value::Array(values) | redis::Value::Set(values) => {
            values.into_iter().for_each(|value| flatten(value, into));
        }
        redis::Value::Map(pairs) => pairs.into_iter().for_each(|(key, value)| {
            flatten(key, into);
            flatten(value, into);
        }),
        _ => {}
    }
}
