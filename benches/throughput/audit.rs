//! The audit log's store in trouble: deliveries a second beside those of the same round with a
//! store that is well.
//!
//! Embedded, attempts are in the file that everything else is in; a trigger on their table
//! refuses them, or makes each of them slow. On servers Redis keeps them, and the ledger too:
//! with the ledger off, what Redis does to the audit log stands by itself.
//!
//! The trouble begins when the dispatcher knows the subscriptions and has settled the first call.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;

use crate::args::Backend;
use crate::broker;
use crate::dispatcher::{Dispatcher, Setting, Store};
use crate::load::Load;
use crate::proxy::Proxy;
use crate::round::{self, Dispatched};
use crate::servers::Server;
use crate::sink::Sink;

/// How much later than at once Redis gets a question, and its answer comes.
const LATE: Duration = Duration::from_millis(25);
const WITHOUT_LEDGER: &[Setting<'static>] = &[("CARILLON_DEDUP__WINDOW", "\"0s\"")];

const REFUSES: &str = "CREATE TRIGGER bench BEFORE INSERT ON attempts
    BEGIN SELECT RAISE(ABORT, 'the bench refuses attempts'); END";
/// About a millisecond.
const SLOW: &str = "CREATE TRIGGER bench BEFORE INSERT ON attempts BEGIN
    SELECT (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000)
            SELECT COUNT(*) FROM n); END";

/// What is measured in each round.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    trouble: Trouble,
    has_ledger: bool,
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    /// It takes no attempts, and all else.
    Refuses,
    /// It takes nothing new at all.
    Full,
    Slow,
    Gone,
}

/// What was measured in one round, in the order of the cases.
pub struct Round(pub Vec<Dispatched>);

/// What is measured on a backend. Those before the next one without trouble stand beside it.
pub fn cases(backend: Backend) -> Vec<Case> {
    let with = |has_ledger, troubles: &[Trouble]| {
        let troubles = troubles.iter();
        let case = |&trouble| Case {
            trouble,
            has_ledger,
        };
        troubles.map(case).collect::<Vec<_>>()
    };
    use Trouble::{Full, Gone, None, Refuses, Slow};
    match backend {
        Backend::Embedded => with(true, &[None, Refuses, Slow]),
        Backend::Production => [
            with(true, &[None, Refuses, Full, Slow, Gone]),
            with(false, &[None, Full, Slow, Gone]),
        ]
        .concat(),
    }
}

impl Case {
    /// Whether others stand beside it.
    pub fn is_well(&self) -> bool {
        matches!(self.trouble, Trouble::None)
    }
}

/// Measures all cases; `round` says which begins.
pub async fn measure(
    load: &Load,
    broker: Option<&Server>,
    cases: &[Case],
    round: u32,
) -> anyhow::Result<Round> {
    let mut measured = vec![None; cases.len()];
    for turn in 0..cases.len() {
        let place = (turn + round as usize) % cases.len();
        let case = cases[place];
        let one = match broker {
            None => embedded(load, case).await,
            Some(broker) => production(load, case, broker).await,
        };
        measured[place] = Some(one.with_context(|| case.to_string())?);
    }
    Ok(Round(measured.into_iter().flatten().collect()))
}

async fn embedded(load: &Load, case: Case) -> anyhow::Result<Dispatched> {
    let mut sink = Sink::start(load.deliveries()).await?;
    let mut dispatcher = Dispatcher::start(&Store::Embedded, &[]).await?;
    let calls = begun(load, &dispatcher, &sink).await?;
    let trigger = match case.trouble {
        Trouble::Refuses => REFUSES,
        Trouble::Slow => SLOW,
        _ => "",
    };
    rusqlite::Connection::open(dispatcher.file())?.execute_batch(trigger)?;
    round::dispatched(load, calls, &mut dispatcher, &mut sink).await
}

async fn production(load: &Load, case: Case, broker: &Server) -> anyhow::Result<Dispatched> {
    let mut redis = Server::redis().await?;
    let address = redis.url.trim_start_matches("redis://");
    let address: SocketAddr = address.trim_end_matches('/').parse()?;
    // In all cases, so that all pay for it.
    let proxy = Proxy::start(address).await;
    let store = Store::Servers {
        broker_url: &broker.url,
        redis_url: &format!("redis://{}", proxy.addr()),
    };
    let settings: &[Setting<'_>] = if case.has_ledger { &[] } else { WITHOUT_LEDGER };
    let mut sink = Sink::start(load.deliveries()).await?;
    let mut dispatcher = Dispatcher::start(&store, settings).await?;
    let calls = begun(load, &dispatcher, &sink).await?;
    match case.trouble {
        Trouble::None => {}
        Trouble::Refuses => drop(redis.ask("cli", &["acl", "setuser", "default", "-lpush"])?),
        Trouble::Full => drop(redis.ask("cli", &["config", "set", "maxmemory", "1"])?),
        Trouble::Slow => proxy.delay(LATE),
        Trouble::Gone => drop(redis.ask("stop", &[])?),
    }
    let dispatched = round::dispatched(load, calls, &mut dispatcher, &mut sink).await?;
    dispatcher.process.stop().await?;
    broker::check_empty(&broker.url).await?;
    Ok(dispatched)
}

/// Has the dispatcher take the subscriptions and settle the first call; the other calls.
async fn begun(load: &Load, dispatcher: &Dispatcher, sink: &Sink) -> anyhow::Result<Vec<Vec<u8>>> {
    dispatcher.subscribe(load, &sink.url).await?;
    let mut calls = load.calls();
    let others = calls.split_off(1);
    let first: Vec<serde_json::Value> = serde_json::from_slice(&calls[0])?;
    let deliveries = first.len() as u64 * u64::from(load.fan_out);
    dispatcher.publish(calls).await?;
    dispatcher.settled(deliveries).await?;
    Ok(others)
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trouble = match self.trouble {
            Trouble::None => "well",
            Trouble::Refuses => "takes no attempts",
            Trouble::Full => "full",
            Trouble::Slow => "slow",
            Trouble::Gone => "gone",
        };
        let ledger = if self.has_ledger { "" } else { ", no ledger" };
        write!(f, "{trouble}{ledger}")
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let speeds = self.0.iter().map(|one| one.sample.per_second);
        let speeds: Vec<String> = speeds.map(|speed| format!("{speed:.0}/s")).collect();
        f.write_str(&speeds.join(", "))
    }
}
