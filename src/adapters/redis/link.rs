//! The connection for commands: there or not, replaced when it fails, never waited for.
//!
//! Without a connection a command fails at once. Each has a limit, and those under way
//! fail as soon as their connection is given up: a Redis that hangs holds nobody up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind};
use futures_util::FutureExt as _;
use futures_util::future::{join_all, try_join_all};
use tokio::sync::{Notify, watch};

use super::scripts::SmallScript;
use super::target::{Conn, Target, within};
use crate::ports::StoreError;

/// The connection for commands.
pub(super) struct Link {
    pub(super) target: Target,
    state: watch::Sender<State>,
    broken: Notify,
    count: AtomicU64,
}

enum State {
    /// And the how manieth it is.
    Up(Conn, u64),
    /// And why.
    Down(String),
    Closed,
}

impl Link {
    pub(super) fn new(target: Target) -> Self {
        let state = State::Down("not connected yet".to_owned());
        Self {
            target,
            state: watch::Sender::new(state),
            broken: Notify::new(),
            count: AtomicU64::new(0),
        }
    }

    /// Commands go to `conn` from now on.
    pub(super) fn up(&self, conn: Conn) {
        // What was said of the one before.
        let _ = self.broken.notified().now_or_never();
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        self.set(State::Up(conn, number));
    }

    /// No commands until there is a new connection. Those under way fail.
    pub(super) fn down(&self, why: String) {
        self.set(State::Down(why));
    }

    /// No commands any more.
    pub(super) fn close(&self) {
        self.state.send_replace(State::Closed);
    }

    fn set(&self, state: State) {
        self.state.send_if_modified(|now| {
            let open = !matches!(now, State::Closed);
            if open {
                *now = state;
            }
            open
        });
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(..))
    }

    /// Waits until there is a connection.
    pub(super) async fn wait_up(&self) {
        let mut state = self.state.subscribe();
        let up = state.wait_for(|state| matches!(state, State::Up(..)));
        // The sender lives as long as `self`.
        let _ = up.await;
    }

    /// Waits for the next connection: one made after this call.
    pub(super) fn next_up(&self) -> impl Future<Output = ()> + use<> {
        let mut state = self.state.subscribe();
        async move {
            let _ = state.changed().await;
            let _ = state.wait_for(|state| matches!(state, State::Up(..))).await;
        }
    }

    /// Waits until a command found the connection unusable.
    pub(super) async fn broken(&self) {
        self.broken.notified().await;
    }

    /// Why there is no connection, if there is none.
    pub(super) fn usable(&self) -> Result<(), StoreError> {
        self.state.borrow().conn().map(drop)
    }

    /// Does `work` on the connection, in at most `limit`.
    pub(super) async fn run<T, F>(
        &self,
        limit: Duration,
        work: impl FnOnce(Conn) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let mut state = self.state.subscribe();
        let (conn, number) = state.borrow_and_update().conn()?;
        tokio::select! {
            biased;
            done = tokio::time::timeout(limit, work(conn)) => match done {
                Ok(Ok(done)) => Ok(done),
                Ok(Err(error)) => Err(self.failed(&error, number)),
                Err(_) => Err(unavailable(format!("Redis did not answer within {limit:?}"))),
            },
            _ = state.changed() => {
                self.usable()?;
                Err(unavailable("the connection to Redis was lost; asking again is safe"))
            }
        }
    }

    /// The answers to `commands`, each about one key: in one round trip, or on a cluster
    /// side by side.
    pub(super) async fn ask_all<T: FromRedisValue>(
        &self,
        limit: Duration,
        commands: Vec<Cmd>,
    ) -> Result<Vec<T>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let ask = async |conn: Conn| match conn {
            Conn::Cluster(conn) => {
                let answers = commands.iter().map(|command| {
                    let mut conn = conn.clone();
                    async move { command.query_async(&mut conn).await }
                });
                try_join_all(answers).await
            }
            Conn::One(mut conn) => {
                let mut all = Pipeline::with_capacity(commands.len());
                for command in commands {
                    all.add_command(command);
                }
                all.query_async(&mut conn).await
            }
        };
        self.run(limit, ask).await
    }

    /// The answers to calls of `script`: in one round trip, or on a cluster side by side. What
    /// goes to a server that does not know the script is sent again with its text.
    pub(super) async fn call_all<T: FromRedisValue>(
        &self,
        limit: Duration,
        script: &SmallScript,
        calls: &[Vec<String>],
    ) -> Result<Vec<T>, StoreError> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let call = async |conn: Conn| {
            let by_hash = calls.iter().map(|words| script.by_hash(words));
            let mut answers: Vec<RedisResult<T>> = each(&conn, by_hash.collect()).await?;
            let places = (0..answers.len()).filter(|n| is_unknown_script(&answers[*n]));
            let places: Vec<usize> = places.collect();
            if !places.is_empty() {
                let by_text = places.iter().map(|n| script.by_text(&calls[*n]));
                let again = each(&conn, by_text.collect()).await?;
                for (place, answer) in places.into_iter().zip(again) {
                    answers[place] = answer;
                }
            }
            answers.into_iter().collect()
        };
        self.run(limit, call).await
    }

    /// Runs each group of commands, all about one key, as a transaction: nothing is left
    /// without its expiry. In one round trip, or on a cluster side by side.
    pub(super) async fn write_all(
        &self,
        limit: Duration,
        groups: &[Vec<Cmd>],
    ) -> Result<(), StoreError> {
        if groups.is_empty() {
            return Ok(());
        }
        let write = async |conn: Conn| match conn {
            Conn::Cluster(conn) => {
                let writes = groups.iter().map(|group| {
                    let mut conn = conn.clone();
                    let all = transaction(std::slice::from_ref(group));
                    async move { all.exec_async(&mut conn).await }
                });
                try_join_all(writes).await.map(drop)
            }
            Conn::One(mut conn) => transaction(groups).exec_async(&mut conn).await,
        };
        self.run(limit, write).await
    }

    /// The same for groups that can be missed: on a cluster one that is refused keeps no
    /// other from being written. An error comes with the places of those that are not.
    pub(super) async fn write_each(
        &self,
        limit: Duration,
        groups: &[Vec<Cmd>],
    ) -> Result<(), (Vec<usize>, StoreError)> {
        let write = async |conn: Conn| match conn {
            Conn::Cluster(conn) => {
                let writes = groups.iter().map(|group| {
                    let mut conn = conn.clone();
                    let all = transaction(std::slice::from_ref(group));
                    // A node that hangs is no reason to write again what others took.
                    async move { within(limit / 2, all.exec_async(&mut conn)).await }
                });
                Ok(join_all(writes).await)
            }
            Conn::One(mut conn) => {
                let written = transaction(groups).exec_async(&mut conn).await;
                written.map(|()| Vec::new())
            }
        };
        let places = 0..groups.len();
        let each = match self.run(limit, write).await {
            Ok(each) => each,
            Err(error) => return Err((places.collect(), error)),
        };
        let failed = places
            .zip(each)
            .filter_map(|(place, one)| Some((place, one.err()?)));
        let (places, errors): (Vec<usize>, Vec<RedisError>) = failed.unzip();
        match errors.first() {
            None => Ok(()),
            Some(error) => Err((places, unavailable(format!("Redis: {error}")))),
        }
    }

    /// What a caller is told of `error`. A connection that cannot be used any more, or that
    /// leads to a server which lost its office, is replaced.
    fn failed(&self, error: &RedisError, number: u64) -> StoreError {
        let demoted = is_read_only(error);
        let one = matches!(&*self.state.borrow(), State::Up(Conn::One(_), now) if *now == number);
        if one && (demoted || error.is_unrecoverable_error()) {
            self.broken.notify_one();
        }
        unavailable(format!("Redis: {error}"))
    }
}

impl State {
    fn conn(&self) -> Result<(Conn, u64), StoreError> {
        match self {
            Self::Up(conn, number) => Ok((conn.clone(), *number)),
            Self::Down(why) => Err(unavailable(format!("Redis cannot be reached: {why}"))),
            Self::Closed => Err(unavailable("it was closed")),
        }
    }
}

/// What comes of each of `commands`, in one round trip, or on a cluster side by side.
async fn each<T: FromRedisValue>(
    conn: &Conn,
    commands: Vec<Cmd>,
) -> RedisResult<Vec<RedisResult<T>>> {
    match conn.clone() {
        Conn::Cluster(conn) => {
            let answers = commands.iter().map(|command| {
                let mut conn = conn.clone();
                async move { command.query_async(&mut conn).await }
            });
            Ok(join_all(answers).await)
        }
        Conn::One(mut conn) => {
            let mut all = Pipeline::with_capacity(commands.len());
            all.ignore_errors();
            for command in commands {
                all.add_command(command);
            }
            all.query_async(&mut conn).await
        }
    }
}

fn transaction(groups: &[Vec<Cmd>]) -> Pipeline {
    let mut all = Pipeline::with_capacity(groups.iter().map(Vec::len).sum());
    all.atomic();
    for command in groups.iter().flatten() {
        all.add_command(command.clone()).ignore();
    }
    all
}

fn is_unknown_script<T>(answer: &RedisResult<T>) -> bool {
    let unknown = ErrorKind::Server(ServerErrorKind::NoScript);
    matches!(answer, Err(error) if error.kind() == unknown)
}

/// Whether a replica refused to write, alone or within a transaction.
fn is_read_only(error: &RedisError) -> bool {
    let read_only = ServerErrorKind::ReadOnly;
    let within = error.clone().into_server_errors();
    error.kind() == ErrorKind::Server(read_only)
        || within.is_some_and(|all| all.iter().any(|(_, one)| one.kind() == Some(read_only)))
}

pub(super) fn unavailable(why: impl Into<String>) -> StoreError {
    StoreError::Unavailable(why.into())
}
