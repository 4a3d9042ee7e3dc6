//! The load: events of one size, the bodies they lead to, and how many there are.

use std::fmt;

/// A whole event, as JSON.
pub const EVENT_BYTES: usize = 512;
/// Requests at once to one endpoint: the default of `delivery.endpoint_max_in_flight`.
pub const IN_FLIGHT_PER_ENDPOINT: u32 = 32;
/// Events in one call of the API.
const EVENTS_PER_CALL: usize = 500;

/// The type of all events.
pub const TYPE: &str = "bench.event";
/// The tenant of all events and subscriptions.
pub const TENANT: &str = "bench";
const TIMESTAMP: &str = "2026-01-01T00:00:00Z";

/// So many events, each to so many endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Events to publish.
    pub events: u32,
    /// Endpoints, each of which gets every event.
    pub fan_out: u32,
}

impl Load {
    /// `events` to each of `fan_out` endpoints.
    pub fn new(events: u32, fan_out: u32) -> Self {
        Self { events, fan_out }
    }

    /// Requests that the sink is to get.
    pub fn deliveries(&self) -> u64 {
        u64::from(self.events) * u64::from(self.fan_out)
    }

    /// More connections than this mean that they are not kept. Thrice the requests at
    /// once: the client opens one in advance for a request that finds none free, and
    /// keeps it beside the one that became free in the meantime.
    pub fn connections_max(&self) -> u64 {
        u64::from(3 * IN_FLIGHT_PER_ENDPOINT * self.fan_out)
    }

    /// The bodies of the calls that publish all events.
    pub fn calls(&self) -> Vec<Vec<u8>> {
        let events: Vec<String> = events(self.events.into()).collect();
        let call = |events: &[String]| format!("[{}]", events.join(",")).into_bytes();
        events.chunks(EVENTS_PER_CALL).map(call).collect()
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, fan_out } = self;
        write!(f, "fan-out {fan_out}, {events} events")
    }
}

/// The path of an endpoint.
pub fn path(endpoint: u32) -> String {
    format!("/endpoint/{endpoint}")
}

/// The body that an endpoint gets for each event, of format `standard`.
pub fn delivered_body() -> String {
    let data = data();
    format!(r#"{{"type":"{TYPE}","timestamp":"{TIMESTAMP}","data":{data}}}"#)
}

/// So many events, each with an id of its own.
pub fn events(count: u64) -> impl Iterator<Item = String> {
    let data = data();
    (0..count).map(move |id| {
        let event = event_with(id, &data);
        assert_eq!(event.len(), EVENT_BYTES);
        event
    })
}

fn event_with(id: u64, data: &str) -> String {
    format!(
        r#"{{"id":"evt_{id:010}","type":"{TYPE}","tenant":"{TENANT}","timestamp":"{TIMESTAMP}","data":{data}}}"#
    )
}

/// An object that fills an event up to its size.
fn data() -> String {
    let with = |filling: &str| {
        format!(r#"{{"domain":"example.com","severity":"high","note":"{filling}"}}"#)
    };
    let bare = event_with(0, &with("")).len();
    with(&"x".repeat(EVENT_BYTES - bare))
}
