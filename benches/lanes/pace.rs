//! Publishing: at a steady pace, or all at once.
//!
//! The pace is an open loop: an event is begun when its time has come, whether or not those
//! before it have been taken. A dispatcher that is slow to take them does not get fewer.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::clock::{Clock, micros};
use crate::publisher::{EVENTS_PER_CALL, Event, Publisher};

/// How often it is seen what has become due.
const TICK: Duration = Duration::from_millis(10);
/// Calls under way at most: past these the loop is open no more, and [`Paced::late_max`] tells.
const CALLS_MAX: usize = 256;
/// Calls under way when all is published at once.
const CALLS_AT_ONCE: usize = 4;

/// What was published at a pace.
pub struct Paced {
    /// When the publishing of each event began, by its number.
    pub sent: Vec<Duration>,
    /// How far behind its time an event was begun, at most.
    pub late_max: Duration,
}

/// Publishes so many a second, from now `until` that resolves; comes back when all are durable.
/// `event` makes the one of a number, sent at a time.
pub async fn pace(
    publisher: &Publisher,
    clock: Clock,
    per_second: u32,
    until: impl Future<Output = ()>,
    event: impl Fn(u64, Duration) -> Event,
) -> Result<Paced> {
    let begun = clock.now();
    let due =
        |number: u64| begun + Duration::from_micros(number * 1_000_000 / u64::from(per_second));
    let (mut sent, mut late_max) = (Vec::new(), Duration::ZERO);
    let mut calls = JoinSet::new();
    let mut ticks = interval(TICK);
    let mut until = pin!(until);
    loop {
        tokio::select! {
            () = &mut until => break,
            _ = ticks.tick() => {}
        }
        while calls.len() >= CALLS_MAX {
            ended(calls.join_next().await)?;
        }
        while let Some(call) = calls.try_join_next() {
            ended(Some(call))?;
        }
        let now = clock.now();
        let numbers =
            sent.len() as u64..micros(now - begun) * u64::from(per_second) / 1_000_000 + 1;
        for some in chunks(numbers) {
            late_max = late_max.max(now.saturating_sub(due(some.start)));
            let events: Vec<Event> = some.map(|number| event(number, now)).collect();
            sent.resize(sent.len() + events.len(), now);
            let publisher = publisher.clone();
            calls.spawn(async move { publisher.publish(&events).await });
        }
    }
    while let Some(call) = calls.join_next().await {
        ended(Some(call))?;
    }
    Ok(Paced { sent, late_max })
}

fn ended(call: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    call.map_or(Ok(()), |call| call?)
}

/// Publishes so many as fast as they are taken, and counts in `taken` those that are durable.
pub async fn flood(
    publisher: &Publisher,
    clock: Clock,
    count: u32,
    taken: &Cell<u64>,
    event: impl Fn(u64, Duration) -> Event,
) -> Result<()> {
    let calls = chunks(0..count.into()).map(|some| {
        let event = &event;
        async move {
            let (now, count) = (clock.now(), some.end - some.start);
            let events: Vec<Event> = some.map(|number| event(number, now)).collect();
            publisher.publish(&events).await?;
            taken.set(taken.get() + count);
            Ok(())
        }
    });
    stream::iter(calls)
        .buffer_unordered(CALLS_AT_ONCE)
        .try_for_each(async |()| Ok(()))
        .await
}

/// The numbers in the parts that one call takes.
fn chunks(numbers: std::ops::Range<u64>) -> impl Iterator<Item = std::ops::Range<u64>> {
    let size = u64::from(EVENTS_PER_CALL);
    let end = numbers.end;
    (numbers.start..end)
        .step_by(EVENTS_PER_CALL as usize)
        .map(move |from| from..(from + size).min(end))
}
