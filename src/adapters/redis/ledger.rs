//! [`Ledger`]: a set of settled subscriptions per key, which expires with the window.
//!
//! Callers are many and small. One loop groups what waits by its key and writes it in one
//! round trip; the next group gathers meanwhile. What could not be written is owed: it is
//! written when Redis is back, so that an outage leaves few copies that nobody knows as such.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::link::unavailable;
use super::{Core, Redis, expiry_ms, locked};
use crate::domain::id::{LedgerKey, SubscriptionId};
use crate::ports::{Begun, Chunk, Ledger, StoreError};

/// How long reading or writing may take: deliveries wait for it.
const LIMIT: Duration = Duration::from_secs(1);
/// How many records are written together.
const GROUP_MAX: usize = 1000;
/// How long a chunk belongs to who began it and does not say that it ended. Longer than the
/// longest attempt.
const CLAIM_MS: u64 = 75_000;
/// How many calls may wait.
const WAITING_MAX: usize = 16_384;

/// How many records are owed at most, about 10 MiB; the oldest are forgotten before.
const OWED_MAX: usize = 100_000;
/// How often it is tried to write what is owed.
const OWED_EVERY: Duration = Duration::from_millis(500);

/// That an event, or a wait, is settled for a subscription.
type Record = (LedgerKey, SubscriptionId);

/// A call of `record` or `end`.
pub(super) struct Call {
    settled: Vec<Record>,
    ended: Option<LedgerKey>,
    /// Told when it is written; nobody waits for an end.
    done: Option<oneshot::Sender<Result<(), StoreError>>>,
}

/// The calls that wait.
pub(super) struct Queue {
    sender: mpsc::Sender<Call>,
    receiver: tokio::sync::Mutex<mpsc::Receiver<Call>>,
    owed: Mutex<VecDeque<Record>>,
}

impl Queue {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Self {
            sender,
            receiver: tokio::sync::Mutex::new(receiver),
            owed: Mutex::default(),
        }
    }

    fn owe(&self, settled: Vec<Record>) {
        let mut owed = locked(&self.owed);
        owed.extend(settled);
        let beyond = owed.len().saturating_sub(OWED_MAX);
        owed.drain(..beyond);
    }

    /// Some of what is owed, the oldest first; it is owed no more.
    fn some_owed(&self) -> Vec<Record> {
        let mut owed = locked(&self.owed);
        let count = owed.len().min(GROUP_MAX);
        owed.drain(..count).collect()
    }
}

#[async_trait]
impl Ledger for Redis {
    async fn settled(&self, keys: &[LedgerKey]) -> Result<Vec<Vec<SubscriptionId>>, StoreError> {
        let core = &self.core;
        if core.settings.dedup_window.is_zero() || keys.is_empty() {
            return Ok(vec![Vec::new(); keys.len()]);
        }
        let asks = keys.iter().map(|key| core.members(key));
        let found: Vec<Vec<String>> = core.link.ask_all(LIMIT, asks.collect()).await?;
        Ok(found.iter().map(|ids| parse(ids)).collect())
    }

    async fn begin(&self, chunks: &[Chunk]) -> Result<Vec<Begun>, StoreError> {
        let core = &self.core;
        if core.settings.dedup_window.is_zero() || chunks.is_empty() {
            return Ok(vec![Begun::Ours(Vec::new()); chunks.len()]);
        }
        // The claim first: when it is ours, whoever had it has written what it settled.
        let asks = chunks
            .iter()
            .flat_map(|chunk| [core.claim(chunk), core.members(&chunk.event)]);
        let found: Vec<::redis::Value> = core.link.ask_all(LIMIT, asks.collect()).await?;
        let begun = found.chunks_exact(2).map(|answers| match &answers[0] {
            ::redis::Value::Nil => Begun::Elsewhere,
            _ => {
                let ids: Vec<String> = ::redis::from_redis_value_ref(&answers[1])
                    // What cannot be read is delivered again, which is safe.
                    .unwrap_or_default();
                Begun::Ours(parse(&ids))
            }
        });
        Ok(begun.collect())
    }

    fn end(&self, chunk: LedgerKey) {
        let core = &self.core;
        if core.settings.dedup_window.is_zero() {
            return;
        }
        let call = Call {
            settled: Vec::new(),
            ended: Some(chunk),
            done: None,
        };
        // One that is not written ends by its time.
        let _ = core.ledger.sender.try_send(call);
    }

    async fn record(&self, settled: Vec<Record>) -> Result<(), StoreError> {
        let core = &self.core;
        if core.settings.dedup_window.is_zero() || settled.is_empty() {
            return Ok(());
        }
        if let Err(error) = core.link.usable() {
            core.ledger.owe(settled);
            return Err(error);
        }
        core.record(settled).await
    }
}

impl Core {
    /// Hands `settled` to the loop, and waits until it is written.
    pub(super) async fn record(&self, settled: Vec<Record>) -> Result<(), StoreError> {
        let (done, written) = oneshot::channel();
        let call = Call {
            settled,
            ended: None,
            done: Some(done),
        };
        if let Err(refused) = self.ledger.sender.try_send(call) {
            self.ledger.owe(refused.into_inner().settled);
            return Err(unavailable("too much waits to be written to the ledger"));
        }
        match tokio::time::timeout(LIMIT, written).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(unavailable("the ledger was closed")),
            Err(_) => Err(unavailable("the ledger could not be written in time")),
        }
    }

    fn ledger_key(&self, key: &LedgerKey) -> String {
        let key = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key.0);
        format!("{}:l:{key}", self.keys.prefix)
    }

    fn claim_key(&self, chunk: &LedgerKey) -> String {
        let key = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(chunk.0);
        format!("{}:c:{key}", self.keys.prefix)
    }

    /// Claims a chunk: answered with nil when another has it. A message that came back is
    /// taken over.
    fn claim(&self, chunk: &Chunk) -> ::redis::Cmd {
        let mut claim = ::redis::cmd("SET");
        claim
            .arg(self.claim_key(&chunk.chunk))
            .arg(1)
            .arg("PX")
            .arg(CLAIM_MS);
        if !chunk.again {
            claim.arg("NX");
        }
        claim
    }

    fn members(&self, key: &LedgerKey) -> ::redis::Cmd {
        let mut ask = ::redis::cmd("SMEMBERS");
        ask.arg(self.ledger_key(key));
        ask
    }

    /// One transaction for each key: a set never stays without its expiry.
    fn ledger_commands(&self, calls: &[Call]) -> Vec<Vec<::redis::Cmd>> {
        let mut by_key: HashMap<&LedgerKey, Vec<&str>> = HashMap::new();
        for (key, subscription) in calls.iter().flat_map(|call| &call.settled) {
            by_key.entry(key).or_default().push(subscription.as_str());
        }
        let window = expiry_ms(self.settings.dedup_window);
        let write = |(key, subscriptions): (&LedgerKey, Vec<&str>)| {
            let key = self.ledger_key(key);
            let mut add = ::redis::cmd("SADD");
            add.arg(&key).arg(subscriptions);
            let mut expire = ::redis::cmd("PEXPIRE");
            expire.arg(&key).arg(window);
            vec![add, expire]
        };
        let settled = by_key.into_iter().map(write);
        // After what was settled: whoever claims it next reads that.
        let end = |chunk: &LedgerKey| {
            let mut end = ::redis::cmd("DEL");
            end.arg(self.claim_key(chunk));
            vec![end]
        };
        let ended = calls.iter().filter_map(|call| call.ended.as_ref());
        settled.chain(ended.map(end)).collect()
    }
}

/// What cannot be read is delivered again, which is safe.
fn parse(ids: &[String]) -> Vec<SubscriptionId> {
    let ids = ids.iter();
    ids.filter_map(|id| SubscriptionId::parse(id).ok())
        .collect()
}

/// Writes what waits, group by group, and what is owed.
pub(super) async fn write(core: Arc<Core>) {
    let mut waiting = core.ledger.receiver.lock().await;
    let mut tries = interval(OWED_EVERY);
    tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            first = waiting.recv() => match first {
                Some(first) => drop(core.write_group(first, &mut waiting).await),
                None => return,
            },
            _ = tries.tick() => core.write_owed(&mut waiting).await,
        }
    }
}

impl Core {
    /// Writes `first` together with what waits; what fails is owed.
    async fn write_group(
        &self,
        first: Call,
        waiting: &mut mpsc::Receiver<Call>,
    ) -> Result<(), StoreError> {
        let mut records = first.settled.len().max(1);
        let mut calls = vec![first];
        while records < GROUP_MAX
            && let Ok(call) = waiting.try_recv()
        {
            records += call.settled.len().max(1);
            calls.push(call);
        }
        let commands = self.ledger_commands(&calls);
        let result = self.link.write_all(LIMIT, &commands).await;
        for call in calls {
            if result.is_err() {
                self.ledger.owe(call.settled);
            }
            if let Some(done) = call.done {
                let _ = done.send(result.clone());
            }
        }
        result
    }

    async fn write_owed(&self, waiting: &mut mpsc::Receiver<Call>) {
        while self.link.usable().is_ok() {
            let settled = self.ledger.some_owed();
            if settled.is_empty() {
                return;
            }
            let call = Call {
                settled,
                ended: None,
                done: None,
            };
            if self.write_group(call, waiting).await.is_err() {
                return;
            }
        }
    }
}
