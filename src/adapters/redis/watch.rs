//! The loops that keep a connection, look whether Redis is well, and hear of changes.
//!
//! Every half second one command asks for the marker and the last stamp. It shows whether
//! Redis answers, whether it holds our data, and whether a change went by untold: so a
//! change is told within a second even when publishing does not work.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::redis::RedisResult;
use backon::BackoffBuilder as _;
use futures_util::StreamExt as _;

use super::Core;
use super::changes::Change;
use super::target::{Conn, within};
use crate::ports::StoreError;
use crate::telemetry::events::DependencyChanged;
use crate::telemetry::labels::Dependency;

/// How often Redis is asked how it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// And how often while no messages about changes come.
const LOOK_EVERY_DEAF: Duration = Duration::from_millis(250);
/// How long it may take to say so.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// And how long when it is asked once more, before the connection is given up.
const LOOK_AGAIN_LIMIT: Duration = Duration::from_millis(500);
/// How long making a connection may take, sentinels included.
const CONNECT_LIMIT: Duration = Duration::from_secs(6);
/// How long a message about a change may take to come after the change was seen.
const MESSAGE_GRACE: Duration = Duration::from_millis(200);
/// How long a comparison of versions may take.
const COMPARE_LIMIT: Duration = Duration::from_secs(5);
/// How many versions are asked for by one command.
const VERSIONS_MAX: usize = 1000;

/// How Redis was, the last time it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The id of its marker.
    pub(super) marker: Option<String>,
    /// The stamp of the last change.
    pub(super) stamp: u64,
}

/// From 50 ms, growing to between 1.5 and 3 s, without end.
fn backoff() -> impl Iterator<Item = Duration> {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_millis(1500))
        .with_jitter()
        .without_max_times()
        .build()
}

/// Connects, looks after the connection until it fails, and begins again.
pub(super) async fn keep_connected(core: Arc<Core>) {
    loop {
        let conn = connect(&core).await;
        core.link.up(conn.clone());
        core.tell_up();
        let fault = look_after(&core, conn).await;
        lost(&core, &fault);
    }
}

fn lost(core: &Core, fault: &str) {
    core.link.down(fault.to_owned());
    core.tell_down(&fault);
}

/// A connection that answers, however long it takes.
async fn connect(core: &Core) -> Conn {
    let mut said = !core.is_new();
    for delay in backoff() {
        let connecting = async {
            let conn = core.link.target.connect().await?;
            let seen = within(LOOK_LIMIT, core.look(conn.clone())).await?;
            Ok((conn, seen))
        };
        match within(CONNECT_LIMIT, connecting).await {
            Ok((conn, seen)) => {
                core.note(&seen);
                return conn;
            }
            Err(error) => {
                let error = error.to_string();
                if said {
                    core.link.down(error);
                } else {
                    lost(core, &error);
                    said = true;
                }
            }
        }
        tokio::time::sleep(delay).await;
    }
    // The delays have no end.
    std::future::pending().await
}

/// Asks how Redis is until it does not answer; returns why.
async fn look_after(core: &Core, conn: Conn) -> String {
    loop {
        let pause = if core.hears.load(Ordering::Acquire) {
            LOOK_EVERY
        } else {
            LOOK_EVERY_DEAF
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = core.look_now.notified() => {}
            () = core.link.broken() => return "the connection was lost".to_owned(),
        }
        let look = async |limit| within(limit, core.look(conn.clone())).await;
        let seen = match look(LOOK_LIMIT).await {
            Err(_) => look(LOOK_AGAIN_LIMIT).await,
            seen => seen,
        };
        match seen {
            Ok(seen) => core.note(&seen),
            Err(error) => return error.to_string(),
        }
    }
}

impl Core {
    /// Asks how Redis is: one command, so that both belong together.
    pub(super) async fn look(&self, mut conn: Conn) -> RedisResult<Seen> {
        let mut ask = ::redis::cmd("MGET");
        ask.arg(&self.keys.marker).arg(&self.keys.stamp);
        let (marker, stamp): (Option<String>, Option<u64>) = ask.query_async(&mut conn).await?;
        Ok(Seen {
            marker,
            stamp: stamp.unwrap_or(0),
        })
    }

    /// Redis answers; without our data that is as if it did not.
    fn tell_up(&self) {
        if !self.unmarked.load(Ordering::Acquire) {
            let (name, fault) = (Dependency::Redis, None);
            self.settings
                .telemetry
                .emit(DependencyChanged { name, fault });
        }
    }

    /// Redis does not answer, or has lost our data.
    fn tell_down(&self, why: &dyn std::fmt::Display) {
        let (name, fault) = (Dependency::Redis, Some(why));
        self.settings
            .telemetry
            .emit(DependencyChanged { name, fault });
    }

    /// Takes note of how Redis is; tells what changed.
    fn note(&self, seen: &Seen) {
        match &seen.marker {
            Some(marker) => {
                if self.unmarked.swap(false, Ordering::AcqRel) {
                    self.tell_up();
                }
                self.changes.in_epoch(marker);
            }
            None => {
                if !self.unmarked.swap(true, Ordering::AcqRel) {
                    self.tell_down(&self.no_marker());
                }
            }
        }
        *super::locked(&self.seen) = seen.clone();
        // Without a marker nothing is compared: what was loaded before the loss is served on.
        if seen.marker.is_some() && seen.stamp != self.changes.told() {
            self.changes.gap.notify_one();
        }
    }
}

/// Compares versions whenever something was not told.
pub(super) async fn close_gaps(core: Arc<Core>) {
    loop {
        core.changes.gap.notified().await;
        let is_told = || core.changes.told() == super::locked(&core.seen).stamp;
        if core.hears.load(Ordering::Acquire) && !is_told() {
            // The message may be on its way.
            tokio::time::sleep(MESSAGE_GRACE).await;
            if is_told() {
                continue;
            }
            // Who has just begun to listen is told of the next gap.
            core.deaf.notify_waiters();
        }
        // What could not be compared shows as a gap again at the next look.
        if let Err(error) = compare(&core).await {
            tracing::debug!(%error, "the versions of scopes could not be compared");
        }
    }
}

/// Tells of all that differs from what was told.
///
/// The stamp is read before what is known: what is loaded later is at least as new.
async fn compare(core: &Core) -> Result<(), StoreError> {
    let from = core.changes.told();
    let look = |conn| core.look(conn);
    let seen = core.link.run(LOOK_LIMIT, look).await?;
    let Some(marker) = &seen.marker else {
        return Ok(());
    };
    core.changes.in_epoch(marker);
    if seen.stamp == from {
        return Ok(());
    }
    let snapshot = core.changes.snapshot();
    for part in snapshot.chunks(VERSIONS_MAX) {
        let mut ask = ::redis::cmd("HMGET");
        ask.arg(&core.keys.versions);
        for (scope, _) in part {
            ask.arg(scope.as_str());
        }
        let versions: Vec<Option<u64>> = core
            .link
            .run(COMPARE_LIMIT, async |mut conn| {
                ask.query_async(&mut conn).await
            })
            .await?;
        let versions: Vec<u64> = versions
            .into_iter()
            .map(Option::unwrap_or_default)
            .collect();
        core.changes.compare(part, &versions);
    }
    core.changes.compared(from, seen.stamp);
    Ok(())
}

/// Hears of changes as they are published, by a connection of its own.
pub(super) async fn hear(core: Arc<Core>) {
    let mut delays = backoff();
    let mut said = false;
    loop {
        core.link.wait_up().await;
        let listening = core.link.target.listen(&core.keys.channel);
        match within(CONNECT_LIMIT, listening).await {
            Ok(mut messages) => {
                // What was published before is looked up, and is no sign of being deaf; what
                // comes meanwhile waits.
                if let Err(error) = compare(&core).await {
                    tracing::debug!(%error, "the versions of scopes could not be compared");
                    core.look_now.notify_one();
                }
                core.hears.store(true, Ordering::Release);
                let stream = &mut messages.stream;
                tokio::select! {
                    () = stream.for_each(async |message| heard(&core, &message)) => {}
                    () = core.deaf.notified() => {}
                }
                core.hears.store(false, Ordering::Release);
                core.look_now.notify_one();
                delays = backoff();
                said = false;
            }
            // While Redis is away, that was said.
            Err(error) if !said && core.link.is_up() => {
                said = true;
                tracing::warn!(
                    %error,
                    "Redis publishes no changes to us; they are looked up, and take up to a second"
                );
            }
            Err(error) => tracing::debug!(%error, "cannot listen for changes, trying again"),
        }
        if let Some(delay) = delays.next() {
            tokio::time::sleep(delay).await;
        }
    }
}

fn heard(core: &Core, message: &::redis::Msg) {
    let text = std::str::from_utf8(message.get_payload_bytes()).ok();
    let whole = match text.and_then(Change::parse) {
        Some(change) => core.changes.tell(&change),
        None => false,
    };
    if !whole {
        core.look_now.notify_one();
    }
}
