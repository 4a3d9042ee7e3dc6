//! The topology: exchanges, queues and bindings, declared again at every connect.
//!
//! Every queue is a quorum queue. A declaration that is there already costs nothing; one
//! that differs is an error that names the queue and the argument.

use futures_util::future::try_join_all;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::names::Names;

/// How often a message may be handed out without being settled before it goes to
/// quarantine: each crash, restart or lost connection counts one.
const DELIVERY_LIMIT: i64 = 100;

/// The same for a queue that is read: each reading counts one. From RabbitMQ 4.0 on the limit
/// is 20 unless something else is said; -1 would be none, but makes 3.10 drop the message.
const READ_LIMIT: i64 = 2_000_000_000;

/// Why the topology is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// Something of this name is there and differs.
    #[error("{0}")]
    Conflict(Conflict),
    /// The user may not declare.
    #[error(
        "RabbitMQ refuses to declare `{name}`: {text}; give the user the permission to \
         configure, read and write what begins with the prefix"
    )]
    Refused {
        /// The queue or exchange.
        name: String,
        /// What RabbitMQ said.
        text: String,
    },
    /// RabbitMQ could not be asked.
    #[error("`{name}` could not be declared: {source}")]
    Failed {
        /// The queue or exchange.
        name: String,
        /// What went wrong.
        source: lapin::Error,
    },
}

/// A queue or exchange that is there and differs from what Carillon needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its name.
    pub name: String,
    /// The argument that differs, if RabbitMQ said which.
    pub argument: Option<String>,
    /// What it is.
    pub found: Option<String>,
    /// What it should be.
    pub wanted: Option<String>,
    /// All that RabbitMQ said.
    pub text: String,
}

impl TopologyError {
    /// Whether trying again makes sense.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }

    /// Whether it says that there is no such thing.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Failed { source, .. } if is_missing(source))
    }

    pub(super) fn of(name: &str, error: lapin::Error) -> Self {
        let name = name.to_owned();
        let ErrorKind::ProtocolError(fault) = error.kind() else {
            return Self::Failed {
                name,
                source: error,
            };
        };
        let text = fault.get_message().as_str().to_owned();
        match fault.get_id() {
            406 => Self::Conflict(Conflict::parse(&name, &text)),
            403 => Self::Refused { name, text },
            _ => Self::Failed {
                name,
                source: error,
            },
        }
    }
}

impl Conflict {
    /// Reads `… inequivalent arg 'A' for queue 'Q' in vhost 'V': received 'W' but current is 'F'`,
    /// where a value may also be without quotes or "none".
    fn parse(name: &str, text: &str) -> Self {
        let after = |mark: &str| text.split_once(mark).map(|(_, rest)| rest);
        let quoted = |mark: &str| Some(after(mark)?.split_once('\'')?.0.to_owned());
        let value = |text: &str| text.trim().trim_start_matches("the value ").to_owned();
        let wanted = after("received ").and_then(|rest| rest.split_once(" but current is "));
        let bare = |text: &str| value(text).split(" of type").next().map(unquoted);
        Self {
            name: name.to_owned(),
            argument: quoted("arg '"),
            wanted: wanted.and_then(|(wanted, _)| bare(wanted)),
            found: wanted.and_then(|(_, found)| bare(found)),
            text: text.to_owned(),
        }
    }
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches('\'').to_owned()
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, text, .. } = self;
        match (&self.argument, &self.found, &self.wanted) {
            (Some(argument), Some(found), Some(wanted)) => write!(
                f,
                "`{name}` is there with another `{argument}`: found {found}, wanted {wanted}"
            )?,
            _ => write!(f, "`{name}` is there and differs: {text}")?,
        }
        f.write_str(
            "; delete it when it is empty, so that it is declared anew, or give this \
             installation another `broker.prefix`",
        )
    }
}

/// Whether RabbitMQ says that there is no such thing.
pub(super) fn is_missing(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(fault) if fault.get_id() == 404)
}

/// Declares all that is missing, and checks what is there.
pub(super) async fn declare(connection: &Connection, names: &Names) -> Result<(), TopologyError> {
    let opened = connection.create_channel().await;
    let channel = opened.map_err(|error| TopologyError::of("a channel", error))?;
    for (name, kind, arguments) in exchanges(names) {
        exchange(&channel, name, kind, arguments, false).await?;
    }
    for (name, arguments) in queues(names) {
        queue(&channel, name.as_str(), arguments).await?;
    }
    let rungs = rungs(names);
    let rungs = rungs.map(|(name, arguments)| queue(&channel, name.as_str(), arguments));
    try_join_all(rungs).await?;
    for (queue, exchange, key) in [
        (&names.quarantine, &names.unrouted, ""),
        (&names.events, &names.events, "#"),
        (&names.deliveries, &names.deliveries, "#"),
    ] {
        bind(&channel, queue, exchange, key).await?;
    }
    let _ = channel.close(200, "done".into()).await;
    Ok(())
}

/// Each exchange, with what it is.
pub(super) fn exchanges(
    names: &Names,
) -> impl Iterator<Item = (&ShortString, ExchangeKind, FieldTable)> {
    let mut with_alternate = FieldTable::default();
    let unrouted = AMQPValue::LongString(names.unrouted.as_str().into());
    with_alternate.insert("alternate-exchange".into(), unrouted);
    let plain = FieldTable::default;
    [
        (&names.unrouted, ExchangeKind::Fanout, plain()),
        (&names.events, ExchangeKind::Topic, with_alternate.clone()),
        (&names.deliveries, ExchangeKind::Topic, with_alternate),
        (&names.notices, ExchangeKind::Topic, plain()),
    ]
    .into_iter()
}

/// Each queue but those to wait in, with its arguments.
pub(super) fn queues(names: &Names) -> impl Iterator<Item = (&ShortString, FieldTable)> {
    let handed_out = || {
        let mut arguments = at_least_once(names.unrouted.as_str());
        arguments.insert("x-delivery-limit".into(), DELIVERY_LIMIT.into());
        arguments
    };
    [
        (&names.quarantine, read_through()),
        (&names.dead_letters, read_through()),
        (&names.events, handed_out()),
        (&names.deliveries, handed_out()),
    ]
    .into_iter()
}

/// Each queue to wait in, with its arguments.
pub(super) fn rungs(names: &Names) -> impl Iterator<Item = (&ShortString, FieldTable)> {
    names.rungs.iter().map(|rung| {
        let mut arguments = at_least_once(names.deliveries.as_str());
        let ttl = i64::try_from(rung.ms).unwrap_or(i64::MAX);
        arguments.insert("x-message-ttl".into(), ttl.into());
        (&rung.queue, arguments)
    })
}

/// Declares an exchange; `passive`: only asks whether it is there.
pub(super) async fn exchange(
    channel: &Channel,
    name: &ShortString,
    kind: ExchangeKind,
    arguments: FieldTable,
    passive: bool,
) -> Result<(), TopologyError> {
    let options = ExchangeDeclareOptions {
        durable: true,
        passive,
        ..ExchangeDeclareOptions::default()
    };
    let declared = channel.exchange_declare(name.clone(), kind, options, arguments);
    let declared = declared.await;
    declared.map_err(|error| TopologyError::of(name.as_str(), error))
}

/// Declares a queue.
pub(super) async fn queue(
    channel: &Channel,
    name: &str,
    arguments: FieldTable,
) -> Result<(), TopologyError> {
    let durable = QueueDeclareOptions::durable();
    let declared = channel.queue_declare(name.into(), durable, arguments).await;
    declared
        .map(drop)
        .map_err(|error| TopologyError::of(name, error))
}

/// How many messages are ready in a queue, and how many consumers it has. Makes none.
pub(super) async fn size(
    channel: &Channel,
    queue: &ShortString,
) -> Result<(u64, u32), lapin::Error> {
    let passive = QueueDeclareOptions::durable().passive();
    let found = channel.queue_declare(queue.clone(), passive, FieldTable::default());
    let found = found.await?;
    Ok((found.message_count().into(), found.consumer_count()))
}

async fn bind(
    channel: &Channel,
    queue: &ShortString,
    exchange: &ShortString,
    key: &str,
) -> Result<(), TopologyError> {
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    let bound = channel.queue_bind(queue.clone(), exchange.clone(), key.into(), options, none);
    let bound = bound.await;
    bound.map_err(|error| TopologyError::of(queue.as_str(), error))
}

/// A queue that is read without taking from it.
fn read_through() -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-delivery-limit".into(), READ_LIMIT.into());
    arguments
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(text.into());
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

/// A quorum queue that hands what leaves it to `exchange` and forgets it when that is
/// confirmed. This needs `reject-publish`, also without a maximal length.
fn at_least_once(exchange: &str) -> FieldTable {
    let mut arguments = quorum();
    let text = |text: &str| AMQPValue::LongString(text.into());
    arguments.insert("x-dead-letter-exchange".into(), text(exchange));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_names_its_parts() {
        for (text, argument, found, wanted) in [
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue \
                 'carillon.wait.250' in vhost '/': received '250' but current is '300'",
                "x-message-ttl",
                "300",
                "250",
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost \
                 '/': received the value 'quorum' of type 'longstr' but current is none",
                "x-queue-type",
                "none",
                "quorum",
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'e' in vhost '/': \
                 received 'topic' but current is 'direct'",
                "type",
                "direct",
                "topic",
            ),
        ] {
            let conflict = Conflict::parse("q", text);
            assert_eq!(conflict.argument.as_deref(), Some(argument));
            assert_eq!(conflict.found.as_deref(), Some(found));
            assert_eq!(conflict.wanted.as_deref(), Some(wanted));
            let told = conflict.to_string();
            assert!(
                told.contains("found") && told.contains("delete it"),
                "{told}"
            );
        }
        let odd = Conflict::parse("q", "PRECONDITION_FAILED - something else");
        assert!(odd.to_string().contains("something else"));
    }
}
