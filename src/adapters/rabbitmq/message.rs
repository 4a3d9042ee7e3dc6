//! Messages: events, deliveries, dead letters and quarantined messages as RabbitMQ carries them.
//!
//! What RabbitMQ notes about a message's way (`x-death` and the like) is never sent again:
//! before 4.0 it drops what it takes for a cycle.

use std::collections::BTreeSet;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::names::Names;
use crate::codec;
use crate::domain::delivery::{DeadLetter, DeadReason, Delivery};
use crate::domain::event::{EventFault, FaultReason};
use crate::domain::id::SubscriptionId;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{EventMessage, HeaderValue, Notice, Parcel, Quarantined};

/// The content type of protobuf bodies.
const PROTOBUF: &str = "application/x-protobuf";
/// The `type` property of messages that are deliveries.
const DELIVERY_TYPE: &str = "carillon.v1.Delivery";
/// Headers of Carillon's own begin with this.
const OWN: &str = "x-carillon-";
/// Most bytes of headers that are sent on: with our own they fit into a frame of 128 KiB, which
/// is the largest unless RabbitMQ is told otherwise.
const FOREIGN_BYTES_MAX: usize = 96 * 1024;
/// What a header takes beside its name and its value.
const HEADER_BYTES: usize = 6;
const TRACEPARENT: &str = "traceparent";
const RESUME_AFTER: &str = "x-carillon-resume-after";
const REASON: &str = "x-carillon-reason";
const ERROR: &str = "x-carillon-error";
const FIELD: &str = "x-carillon-field";
const QUARANTINED_AT: &str = "x-carillon-quarantined-at";
const DEAD_AT: &str = "x-carillon-dead-at";

/// A message on its way to RabbitMQ.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
    /// Whether it is no fault that no queue takes it.
    pub(super) may_return: bool,
    /// Where it waits, if it does: the rung's milliseconds.
    pub(super) rung: Option<u64>,
}

impl Outgoing {
    /// `parcel` as a message; `now` decides whether a delivery has to wait, if it can not on a
    /// rung in `avoided`. `new_id` names what is put aside.
    pub(super) fn of(
        parcel: Parcel,
        names: &Names,
        now: UnixMillis,
        avoided: &BTreeSet<u64>,
        new_id: impl FnOnce() -> String,
    ) -> Self {
        match parcel {
            Parcel::Event(message) => Self::event(message, ShortString::default(), &names.events),
            Parcel::Published { message, kind } => {
                let exchange = names.events.clone();
                Self::event(message, exchange, &kind.as_str().into())
            }
            Parcel::Delivery { delivery, due } => {
                let Some(rung) = names.rung(due, now, avoided) else {
                    return Self::delivery(&delivery, &names.deliveries);
                };
                let mut waiting = Self::delivery(&delivery, &rung.queue);
                waiting.rung = Some(rung.ms);
                waiting
            }
            Parcel::Dead(letter) => Self::dead(&letter, &names.dead_letters),
            Parcel::Quarantine(quarantined) => {
                Self::quarantined(quarantined, &names.quarantine, new_id())
            }
            Parcel::Notice(notice) => Self::notice(notice, &names.notices),
        }
    }

    fn event(mut message: EventMessage, exchange: ShortString, routing_key: &ShortString) -> Self {
        let headers = take_headers(&mut message);
        Self {
            exchange,
            routing_key: routing_key.clone(),
            properties: properties(message.content_type.as_deref(), headers),
            body: message.body,
            may_return: false,
            rung: None,
        }
    }

    /// Straight to a queue, by the exchange that every queue is bound to.
    fn to_queue(queue: &ShortString, properties: BasicProperties, body: Bytes) -> Self {
        Self {
            exchange: ShortString::default(),
            routing_key: queue.clone(),
            properties,
            body,
            may_return: false,
            rung: None,
        }
    }

    fn delivery(delivery: &Delivery, queue: &ShortString) -> Self {
        Self::carrying(delivery, FieldTable::default(), queue)
    }

    fn carrying(delivery: &Delivery, headers: FieldTable, queue: &ShortString) -> Self {
        let properties = delivery_properties(headers).with_message_id(delivery.id.as_str().into());
        Self::to_queue(queue, properties, codec::delivery::encode(delivery).into())
    }

    fn dead(letter: &DeadLetter, queue: &ShortString) -> Self {
        let delivery = &letter.delivery;
        let event = &delivery.event;
        let mut headers = FieldTable::default();
        let mut set = |name: &str, value: AMQPValue| insert(&mut headers, name, value);
        set(REASON, text(letter.reason.code()));
        set(
            "x-carillon-subscription",
            text(delivery.subscription.as_str()),
        );
        set("x-carillon-tenant", text(event.tenant.as_str()));
        set("x-carillon-event-id", text(event.id.as_str()));
        set("x-carillon-event-type", text(event.kind.as_str()));
        set("x-carillon-attempts", number(delivery.attempts.into()));
        if let Some(status) = delivery.last.and_then(|last| last.status) {
            set("x-carillon-last-status", number(status.into()));
        }
        if let Some(at) = delivery.first_attempt_at {
            set("x-carillon-first-attempt-at", text(&at.to_string()));
        }
        set(DEAD_AT, text(&letter.dead_at.to_string()));
        Self::carrying(delivery, headers, queue)
    }

    fn quarantined(quarantined: Quarantined, queue: &ShortString, id: String) -> Self {
        let Quarantined {
            mut message,
            fault,
            at,
        } = quarantined;
        let mut headers = take_headers(&mut message);
        let mut set = |name: &str, value: &str| insert(&mut headers, name, text(value));
        set(REASON, fault.reason.code());
        set(ERROR, &fault.sentence);
        set(QUARANTINED_AT, &at.to_string());
        if let Some(field) = &fault.field {
            set(FIELD, field);
        }
        let properties = properties(message.content_type.as_deref(), headers);
        let properties = properties.with_message_id(id.into());
        Self::to_queue(queue, properties, message.body)
    }

    fn notice(notice: Notice, exchange: &ShortString) -> Self {
        Self {
            exchange: exchange.clone(),
            routing_key: notice.kind.into(),
            properties: properties(Some("application/json"), FieldTable::default()),
            body: notice.body,
            may_return: true,
            rung: None,
        }
    }

    /// A copy of a delivery that waits, due at once.
    pub(super) fn now(mut self, names: &Names) -> Self {
        self.routing_key = names.deliveries.clone();
        self.rung = None;
        self
    }

    /// What came out of the quarantine, to be taken again as what it was.
    pub(super) fn requeued(found: lapin::message::Delivery, names: &Names) -> Self {
        let is_delivery = type_of(&found.properties) == Some(DELIVERY_TYPE);
        let message = quarantined(found).message;
        if is_delivery {
            let properties = delivery_properties(FieldTable::default());
            return Self::to_queue(&names.deliveries, properties, message.body);
        }
        Self::event(message, ShortString::default(), &names.events)
    }
}

/// How often a message was handed out before, if it was.
pub(super) fn handed_out_before(properties: &BasicProperties) -> Option<u32> {
    let headers = properties.headers().as_ref()?;
    match plain(headers.inner().get("x-delivery-count")?) {
        HeaderValue::Integer(times) if times > 0 => u32::try_from(times).ok(),
        _ => None,
    }
}

/// The rung that a due delivery waited on, in milliseconds.
pub(super) fn rung_of(properties: &BasicProperties) -> Option<u64> {
    let queue = header(properties, "x-first-death-queue")?;
    queue.rsplit_once('.')?.1.parse().ok()
}

/// An event as it came.
pub(super) fn event(found: lapin::message::Delivery) -> EventMessage {
    let content_type = found.properties.content_type().as_ref();
    let content_type = content_type.map(|text| text.as_str().to_owned());
    let mut message = EventMessage {
        body: found.data.into(),
        content_type,
        again: found.redelivered,
        ..EventMessage::default()
    };
    let headers = found.properties.headers().as_ref();
    for (name, value) in headers.into_iter().flat_map(|headers| headers.inner()) {
        let name = name.as_str();
        match (name, text_of(value)) {
            (TRACEPARENT, Some(text)) => message.traceparent = Some(text),
            (RESUME_AFTER, Some(text)) => message.resume_after = SubscriptionId::parse(&text).ok(),
            _ if is_about_the_way(name) => {}
            (_, Some(text)) => message
                .headers
                .push((name.to_owned(), HeaderValue::Text(text))),
            (_, None) => message.headers.push((name.to_owned(), plain(value))),
        }
    }
    message
}

/// What stands in the dead-letter queue; an error says what is wrong with it.
pub(super) fn dead_letter(found: lapin::message::Delivery) -> Result<DeadLetter, String> {
    let header = |name: &str| header(&found.properties, name);
    let reason = header(REASON).and_then(|code| DeadReason::from_code(&code));
    let dead_at = header(DEAD_AT).and_then(|at| UnixMillis::parse_rfc3339(&at));
    let body = Bytes::from(found.data);
    let delivery = codec::delivery::decode(&body).map_err(|fault| fault.to_string())?;
    Ok(DeadLetter {
        reason: reason.ok_or("the header x-carillon-reason is missing or not known")?,
        dead_at: dead_at.ok_or("the header x-carillon-dead-at is missing or no time")?,
        delivery,
    })
}

/// What stands in the quarantine: put there by Carillon, or by RabbitMQ because no queue
/// wanted it or nobody settled it.
pub(super) fn quarantined(found: lapin::message::Delivery) -> Quarantined {
    let (fault, at) = (fault_of(&found.properties), put_aside_at(&found.properties));
    let mut message = event(found);
    message.headers.retain(|(name, _)| !name.starts_with(OWN));
    message.again = false;
    Quarantined { message, fault, at }
}

/// Why something stands in the quarantine.
pub(super) fn fault_of(properties: &BasicProperties) -> EventFault {
    let header = |name: &str| header(properties, name);
    let reason = header(REASON).and_then(|code| FaultReason::from_code(&code));
    match reason {
        Some(reason) => EventFault {
            reason,
            field: header(FIELD),
            sentence: header(ERROR).unwrap_or_default(),
        },
        None if has_died(properties) => EventFault::whole(
            FaultReason::DeliveryLimit,
            "it was handed out again and again, and never settled: look for crashes around \
             the time it came, then requeue it",
        ),
        None => EventFault::whole(
            FaultReason::Unroutable,
            "no queue was bound for it when it was published: requeue it",
        ),
    }
}

/// Since when something stands in the quarantine, as far as is known.
pub(super) fn put_aside_at(properties: &BasicProperties) -> UnixMillis {
    let at = header(properties, QUARANTINED_AT).and_then(|at| UnixMillis::parse_rfc3339(&at));
    let published = || properties.timestamp().map(from_seconds);
    let known = at.or_else(|| died_at(properties)).or_else(published);
    known.unwrap_or(UnixMillis(0))
}

/// The name of a message in quarantine: its message id, or else a digest of it.
pub(super) fn quarantine_id(found: &lapin::message::Delivery) -> String {
    use sha2::{Digest as _, Sha256};
    match found.properties.message_id() {
        Some(id) if !id.as_str().is_empty() => id.as_str().to_owned(),
        _ => hex::encode(&Sha256::digest(&found.data)[..16]),
    }
}

/// All headers that a message goes on with: ours, and those that came with it.
fn take_headers(message: &mut EventMessage) -> FieldTable {
    let mut headers = FieldTable::default();
    if let Some(traceparent) = &message.traceparent {
        insert(&mut headers, TRACEPARENT, text(traceparent));
    }
    if let Some(after) = &message.resume_after {
        insert(&mut headers, RESUME_AFTER, text(after.as_str()));
    }
    insert_foreign(&mut headers, std::mem::take(&mut message.headers));
    headers
}

fn delivery_properties(headers: FieldTable) -> BasicProperties {
    properties(Some(PROTOBUF), headers).with_type(DELIVERY_TYPE.into())
}

/// Persistent, in every case.
fn properties(content_type: Option<&str>, headers: FieldTable) -> BasicProperties {
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_app_id("carillon".into())
        .with_headers(headers);
    // A longer one than AMQP has room for cannot have come by AMQP, and is none we read.
    match content_type.and_then(|text| ShortString::try_new(text).ok()) {
        Some(text) => properties.with_content_type(text),
        None => properties,
    }
}

fn type_of(properties: &BasicProperties) -> Option<&str> {
    properties.kind().as_ref().map(ShortString::as_str)
}

fn header(properties: &BasicProperties, name: &str) -> Option<String> {
    let headers = properties.headers().as_ref()?;
    text_of(headers.inner().get(name)?)
}

fn from_seconds(seconds: u64) -> UnixMillis {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    UnixMillis(seconds.saturating_mul(1000))
}

/// When RabbitMQ last put it somewhere else, to the second.
fn died_at(properties: &BasicProperties) -> Option<UnixMillis> {
    let deaths = properties.headers().as_ref()?.inner().get("x-death")?;
    let AMQPValue::FieldArray(deaths) = deaths else {
        return None;
    };
    let times = deaths.as_slice().iter().filter_map(|death| match death {
        AMQPValue::FieldTable(death) => match death.inner().get("time")? {
            AMQPValue::Timestamp(seconds) => Some(from_seconds(*seconds)),
            _ => None,
        },
        _ => None,
    });
    times.max()
}

fn has_died(properties: &BasicProperties) -> bool {
    let headers = properties.headers().as_ref();
    headers.is_some_and(|headers| headers.inner().contains_key("x-death"))
}

/// Whether RabbitMQ wrote the header about the message's way.
fn is_about_the_way(name: &str) -> bool {
    name == "x-death"
        || name.starts_with("x-first-death-")
        || name.starts_with("x-last-death-")
        || name == "x-delivery-count"
        || name == "x-acquired-count"
}

fn insert(headers: &mut FieldTable, name: &str, value: AMQPValue) {
    // A name longer than AMQP has room for cannot have come by AMQP.
    if let Ok(name) = ShortString::try_new(name) {
        headers.insert(name, value);
    }
}

/// Adds headers that came with a message, as far as they fit. RabbitMQ ends the connection
/// when a message's headers do not fit into one frame.
fn insert_foreign(headers: &mut FieldTable, foreign: Vec<(String, HeaderValue)>) {
    let mut bytes = 0;
    for (name, value) in foreign {
        let value_bytes = match &value {
            HeaderValue::Text(text) => text.len(),
            HeaderValue::Integer(_) | HeaderValue::Boolean(_) => 8,
        };
        let with_it = bytes + name.len() + value_bytes + HEADER_BYTES;
        if with_it > FOREIGN_BYTES_MAX {
            tracing::warn!(
                name,
                value_bytes,
                "a header is left out: there are too many"
            );
            continue;
        }
        bytes = with_it;
        insert(headers, &name, amqp(value));
    }
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn number(number: i64) -> AMQPValue {
    AMQPValue::LongLongInt(number)
}

fn amqp(value: HeaderValue) -> AMQPValue {
    match value {
        HeaderValue::Text(value) => text(&value),
        HeaderValue::Integer(value) => number(value),
        HeaderValue::Boolean(value) => AMQPValue::Boolean(value),
    }
}

fn text_of(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

fn plain(value: &AMQPValue) -> HeaderValue {
    match *value {
        AMQPValue::Boolean(value) => HeaderValue::Boolean(value),
        AMQPValue::ShortShortInt(value) => HeaderValue::Integer(value.into()),
        AMQPValue::ShortShortUInt(value) => HeaderValue::Integer(value.into()),
        AMQPValue::ShortInt(value) => HeaderValue::Integer(value.into()),
        AMQPValue::ShortUInt(value) => HeaderValue::Integer(value.into()),
        AMQPValue::LongInt(value) => HeaderValue::Integer(value.into()),
        AMQPValue::LongUInt(value) => HeaderValue::Integer(value.into()),
        AMQPValue::LongLongInt(value) => HeaderValue::Integer(value),
        AMQPValue::DecimalValue(value) => HeaderValue::Text(format!("{value:?}")),
        _ => HeaderValue::Text(json(value).to_string()),
    }
}

/// A value as a person reads it.
fn json(value: &AMQPValue) -> serde_json::Value {
    match value {
        AMQPValue::LongString(text) => text.to_string().into(),
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::Boolean(value) => (*value).into(),
        AMQPValue::Float(value) => (*value).into(),
        AMQPValue::Double(value) => (*value).into(),
        AMQPValue::Timestamp(seconds) => (*seconds).into(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(json).collect(),
        AMQPValue::FieldTable(fields) => {
            let fields = fields.inner().iter();
            let pairs = fields.map(|(name, value)| (name.as_str().to_owned(), json(value)));
            serde_json::Value::Object(pairs.collect())
        }
        AMQPValue::ByteArray(bytes) => hex::encode(bytes.as_slice()).into(),
        AMQPValue::Void => serde_json::Value::Null,
        other => match plain(other) {
            HeaderValue::Integer(number) => number.into(),
            HeaderValue::Boolean(value) => value.into(),
            HeaderValue::Text(text) => text.into(),
        },
    }
}
