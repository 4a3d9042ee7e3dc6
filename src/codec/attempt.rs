//! Attempts at rest: message `carillon.v1.Attempt`, compressed with LZ4.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use super::proto;
use crate::domain::attempt::{Attempt, NextAction, Response, SentRequest, Timing};
use crate::domain::id::{DeliveryId, EventId, EventType, SubscriptionId, TenantId};
use crate::domain::outcome::Reason;
use crate::domain::timestamp::UnixMillis;

/// The largest record that is unpacked: bodies and headers are bounded when kept.
const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Encodes and compresses `attempt`, with at most `body_bytes_max` of the request body.
pub fn encode(attempt: &Attempt, body_bytes_max: usize) -> Vec<u8> {
    let request = &attempt.request;
    let response = attempt.response.clone().unwrap_or_default();
    let millis = |d: Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
    let message = proto::Attempt {
        delivery_id: attempt.delivery.as_str().to_owned(),
        attempt: attempt.number,
        subscription_id: attempt.subscription.as_str().to_owned(),
        tenant: attempt.tenant.as_str().to_owned(),
        event_id: attempt.event.as_str().to_owned(),
        event_type: attempt.kind.as_str().to_owned(),
        at_ms: attempt.at.0,
        url: request.url.clone(),
        outcome: outcome_code(attempt).to_owned(),
        reason: attempt
            .reason
            .map_or(String::new(), |reason| reason.code().to_owned()),
        status: response.status.into(),
        request_headers: pack_headers(&request.headers),
        request_body: request.body.slice(..request.body.len().min(body_bytes_max)),
        request_body_cut: request.body_cut || request.body.len() > body_bytes_max,
        response_headers: pack_headers(&response.headers),
        response_body: response.body,
        response_body_cut: response.body_cut,
        dns_ms: attempt.timing.dns.map(millis),
        connect_ms: attempt.timing.connect.map(millis),
        first_byte_ms: attempt.timing.first_byte.map(millis),
        total_ms: millis(attempt.timing.total),
        next_action: attempt.next_action.code().to_owned(),
        next_at_ms: attempt.next_at.map_or(0, |at| at.0),
        test: attempt.test,
        detail: attempt.detail.clone(),
        redrives: attempt.redrives,
        own: !attempt.shared,
    };
    lz4_flex::compress_prepend_size(&message.encode_to_vec())
}

/// `delivered` or `failed`.
pub fn outcome_code(attempt: &Attempt) -> &'static str {
    match attempt.reason {
        None => "delivered",
        Some(_) => "failed",
    }
}

/// Decodes what [`encode`] wrote; `None` when it is damaged.
pub fn decode(bytes: &[u8]) -> Option<Attempt> {
    let (size, packed) = lz4_flex::block::uncompressed_size(bytes).ok()?;
    if size > RECORD_BYTES_MAX {
        return None;
    }
    let unpacked = lz4_flex::decompress(packed, size).ok()?;
    let message = proto::Attempt::decode(Bytes::from(unpacked)).ok()?;
    let millis = |ms: u32| Duration::from_millis(ms.into());
    let response = Response {
        status: u16::try_from(message.status).ok()?,
        headers: unpack_headers(message.response_headers),
        body: message.response_body,
        body_cut: message.response_body_cut,
    };
    Some(Attempt {
        delivery: DeliveryId::parse(&message.delivery_id).ok()?,
        number: message.attempt,
        redrives: message.redrives,
        subscription: SubscriptionId::parse(&message.subscription_id).ok()?,
        shared: !message.own,
        tenant: TenantId::parse(&message.tenant).ok()?,
        event: EventId::parse(&message.event_id).ok()?,
        kind: EventType::parse(&message.event_type).ok()?,
        at: UnixMillis(message.at_ms),
        request: SentRequest {
            url: message.url,
            headers: unpack_headers(message.request_headers),
            body: message.request_body,
            body_cut: message.request_body_cut,
        },
        response: Some(response).filter(|response| response.status != 0),
        reason: Reason::from_code(&message.reason),
        detail: message.detail,
        timing: Timing {
            dns: message.dns_ms.map(millis),
            connect: message.connect_ms.map(millis),
            first_byte: message.first_byte_ms.map(millis),
            total: millis(message.total_ms),
        },
        next_action: NextAction::from_code(&message.next_action),
        next_at: Some(message.next_at_ms)
            .filter(|ms| *ms != 0)
            .map(UnixMillis),
        test: message.test,
    })
}

fn pack_headers(headers: &[(String, String)]) -> Vec<proto::Header> {
    let pack = |(name, value): &(String, String)| proto::Header {
        name: name.clone(),
        value: value.clone(),
    };
    headers.iter().map(pack).collect()
}

fn unpack_headers(headers: Vec<proto::Header>) -> Vec<(String, String)> {
    headers.into_iter().map(|h| (h.name, h.value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::outcome::Failure;

    fn attempt(body: &'static [u8]) -> Attempt {
        Attempt {
            delivery: DeliveryId::parse("msg_1").unwrap(),
            number: 2,
            redrives: 3,
            subscription: SubscriptionId::parse("sub_1").unwrap(),
            shared: true,
            tenant: TenantId::parse("acme").unwrap(),
            event: EventId::parse("e").unwrap(),
            kind: EventType::parse("t").unwrap(),
            at: UnixMillis(9),
            request: SentRequest {
                url: "https://example.com/".to_owned(),
                headers: vec![("webhook-id".to_owned(), "msg_1".to_owned())],
                body: Bytes::from_static(body),
                body_cut: false,
            },
            response: None,
            reason: Some(Failure::Timeout.reason()),
            detail: "too slow".to_owned(),
            timing: Timing {
                dns: Some(Duration::from_millis(1)),
                total: Duration::from_millis(10),
                ..Timing::default()
            },
            next_action: NextAction::Retry,
            next_at: Some(UnixMillis(99)),
            test: false,
        }
    }

    #[test]
    fn comes_back_as_it_went_and_says_when_it_was_cut() {
        let whole = decode(&encode(&attempt(b"12345"), 5)).unwrap();
        assert_eq!(format!("{whole:?}"), format!("{:?}", attempt(b"12345")));
        let cut = decode(&encode(&attempt(b"12345"), 4)).unwrap();
        assert_eq!(&cut.request.body[..], b"1234");
        assert!(cut.request.body_cut);
    }

    #[test]
    fn damage_is_noticed() {
        let mut bytes = encode(&attempt(b""), 5);
        bytes.truncate(bytes.len() / 2);
        assert!(decode(&bytes).is_none());
        assert!(decode(&[255; 12]).is_none());
        assert!(decode(&[]).is_none());
    }
}
