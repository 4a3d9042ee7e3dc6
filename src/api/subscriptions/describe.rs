//! What can be asked of `/v1/subscriptions`: a line for each in the API's description.

use serde_json::{Value, json};

use super::super::DECLARED_MAX;
use super::super::answer::List;
use super::super::openapi::{Operation, Schemas, parts};
use super::super::problem::Code;
use super::actions::{Rotation, TestResult};
use super::schema;
use crate::domain::outcome::Reason;

const TAG: &str = "subscriptions";
const TAG_ABOUT: &str = "What it is now: as `If-Match`, a change is made to that alone.";

/// What `list` is.
pub fn list(schemas: &mut Schemas) -> Operation {
    Operation::new(TAG, "listSubscriptions", "List subscriptions, by id")
        .query(
            "tenant",
            "Of this tenant; `*` are those of every tenant.",
            parts::scope(),
        )
        .query("limit", "How many at most.", parts::limit())
        .query(
            "cursor",
            "The `next` of the page before.",
            parts::subscription_id(),
        )
        .answers(
            200,
            "A page of subscriptions.",
            parts::of::<List<schema::Shown>>(schemas),
            json!({ "items": [shown()], "next": null }),
        )
}

/// What `create` is.
pub fn create(schemas: &mut Schemas) -> Operation {
    let key = json!({
        "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$",
    });
    let document = schema::written(schemas);
    let least = json!({ "tenant": "acme", "url": "https://hooks.example.com/carillon" });
    let filtered = json!({
        "tenant": "acme",
        "url": "https://hooks.example.com/carillon",
        "event_types": ["lookup_result.*"],
        "filter": { "data": { "domain": [{ "suffix": ".example.com" }] } },
        "rate_limit": { "per_second": 5, "burst": 10 },
        "retry": { "max_attempts": 5 },
    });
    let mut made = shown();
    made["secret"] = secret();
    Operation::new(TAG, "createSubscription", "Create a subscription")
        .about(
            "Answers it with its secret, shown this once. Asked again with the same `Idempotency-Key` \
             and document it answers the same, for a day. A key is known for as long as what it made is \
             there: once that is deleted, it makes it anew, under the same id and with another secret.",
        )
        .header("Idempotency-Key", "What tells this creation from others of the tenant.", key)
        .takes(document, true, &[("the least", least), ("with a filter", filtered)])
        .refuses(&[
            Code::Forbidden,
            Code::InvalidHeader,
            Code::Conflict,
            Code::IdempotencyKeyUsed,
            Code::IdempotencyKeyReused,
        ])
        .answers(201, "The subscription and its secret.", schema::made(schemas), made)
        .answers_header("ETag", TAG_ABOUT, "\"19ca0d6a4f8-1\"")
        .answers_header("Location", "Where it is.", &format!("/v1/subscriptions/{}", parts::SUBSCRIPTION))
}

/// What `declare` is.
pub fn declare(schemas: &mut Schemas) -> Operation {
    let item = schema::declared(schemas);
    let items = json!({ "type": "array", "maxItems": DECLARED_MAX, "items": item });
    let list = json!({
        "type": "object",
        "required": ["items"],
        "properties": { "items": items, "next": {} },
        "additionalProperties": false,
    });
    let one = json!({
        "id": parts::SUBSCRIPTION, "tenant": "acme", "url": "https://hooks.example.com/carillon",
    });
    let declared = json!({ "created": 0, "updated": 0, "unchanged": 1, "items": [
        { "id": parts::SUBSCRIPTION, "action": "unchanged" },
    ] });
    Operation::new(TAG, "declareSubscriptions", "Declare subscriptions")
        .about(
            "All are made or changed to be as they are declared, or none is; who is not named stays as \
             it is. A list is taken as it is shown, so that what was listed restores a store that has \
             lost it.",
        )
        .flag("dry_run", "Whether to say what would change, and change nothing.")
        .takes(
            json!({ "anyOf": [items, list] }),
            true,
            &[("an array", json!([one])), ("a list", json!({ "items": [one], "next": null }))],
        )
        .refuses(&[Code::InvalidBatch, Code::InvalidItem, Code::Conflict])
        .answers(200, "What was done to each.", schema::declarations(schemas), declared)
}

/// What `show` is.
pub fn show(schemas: &mut Schemas) -> Operation {
    of_one("readSubscription", "Read a subscription")
        .answers(
            200,
            "The subscription.",
            parts::of::<schema::Shown>(schemas),
            shown(),
        )
        .answers_header("ETag", TAG_ABOUT, "\"19ca0d6a4f8-1\"")
}

/// What `declare_one` is.
pub fn declare_one(schemas: &mut Schemas) -> Operation {
    let document = schema::declared(schemas);
    let one = json!({ "tenant": "acme", "url": "https://hooks.example.com/carillon" });
    let mut made = shown();
    made["secret"] = secret();
    let operation = of_one("declareSubscription", "Declare a subscription")
        .about(
            "It is made, or changed, to be as it is declared. Only the admin chooses ids: what is \
             not there is answered 404 to a tenant token.",
        )
        .takes(document, true, &[("the least", one)])
        .refuses(&[Code::Conflict])
        .answers(200, "It was there.", schema::made(schemas), shown())
        .answers_header("ETag", TAG_ABOUT, "\"19ca0d6a4f8-2\"")
        .answers(201, "It was made.", schema::made(schemas), made)
        .answers_header("ETag", TAG_ABOUT, "\"19ca0d6a4f8-1\"")
        .answers_header(
            "Location",
            "Where it is.",
            &format!("/v1/subscriptions/{}", parts::SUBSCRIPTION),
        );
    conditional(operation)
}

/// What `change` is.
pub fn change(schemas: &mut Schemas) -> Operation {
    let patch = schema::patch(schemas);
    let mut changed = shown();
    changed["enabled"] = json!(false);
    changed["disabled_reason"] = json!("manual");
    let examples = [
        ("disable", json!({ "enabled": false })),
        ("no filter", json!({ "filter": null })),
    ];
    let content = json!({
        "application/json": super::super::openapi::content(patch.clone(), &examples),
        "application/merge-patch+json": super::super::openapi::content(patch, &examples),
    });
    let operation = of_one("changeSubscription", "Change a subscription")
        .about("A JSON merge patch (RFC 7396). Another way of signing makes another secret, which is shown this once.")
        .takes_one_of(true, content)
        .refuses(&[Code::Malformed, Code::InvalidField, Code::Conflict])
        .answers(200, "The subscription as it is now.", schema::made(schemas), changed)
        .answers_header("ETag", TAG_ABOUT, "\"19ca0d6a4f8-2\"");
    conditional(operation)
}

/// What `delete` is.
pub fn delete(_: &mut Schemas) -> Operation {
    let operation = of_one("deleteSubscription", "Delete a subscription")
        .about("Its waiting deliveries are dead-lettered when they are due.")
        .refuses(&[Code::Conflict])
        .answers_nothing(204, "It was deleted.");
    conditional(operation)
}

/// What `test` is.
pub fn test(schemas: &mut Schemas) -> Operation {
    let refused = json!({
        "detail": "the address 10.0.0.7 is private",
        "latency_ms": 1,
        "outcome": "failed",
        "reason": Reason::from_code("blocked_address").map(Reason::code),
        "response_body": null,
        "status": null,
    });
    of_one("testSubscription", "Send a test event to a subscription")
        .about("A `test.delivery` event, sent now, outside the queue and not again; the audit log has it.")
        .takes(parts::nothing(), false, &[("nothing", json!({}))])
        .answers(200, "What happened.", parts::of::<TestResult>(schemas), refused)
}

/// What `rotate_secret` is.
pub fn rotate_secret(schemas: &mut Schemas) -> Operation {
    // Its type refers to it.
    schema::secret(schemas);
    let overlap = parts::duration("24h", "at most 30 days");
    let document = parts::document(json!({ "overlap": overlap }));
    let rotated =
        json!({ "id": parts::SUBSCRIPTION, "overlap_until": parts::TIME, "secret": secret() });
    of_one("rotateSecret", "Make a new secret for a subscription")
        .about("It is shown this once. The one before signs too until the overlap is over.")
        .takes(
            document,
            false,
            &[("within the hour", json!({ "overlap": "1h" }))],
        )
        .refuses(&[Code::Conflict, Code::TooManySecrets])
        .answers(
            200,
            "The new secret.",
            parts::of::<Rotation>(schemas),
            rotated,
        )
}

fn of_one(id: &'static str, summary: &'static str) -> Operation {
    let about = "The subscription.";
    Operation::new(TAG, id, summary).of("id", about, parts::subscription_id(), parts::SUBSCRIPTION)
}

/// What goes by the tags that a request names.
fn conditional(operation: Operation) -> Operation {
    let tags = || {
        json!({
            "type": "string",
            "pattern": "^(\\*|(W/)?\"[!#-~]*\"(, *(W/)?\"[!#-~]*\")*)$",
            "examples": ["\"19ca0d6a4f8-1\""],
        })
    };
    operation
        .header(
            "If-Match",
            "Only what has one of these tags; `*` is whatever is there.",
            tags(),
        )
        .header(
            "If-None-Match",
            "Only what has none of these tags; `*` is where nothing is.",
            tags(),
        )
        .refuses(&[Code::InvalidHeader, Code::PreconditionFailed])
}

/// A subscription in examples.
fn shown() -> Value {
    json!({
        "created_at": parts::TIME,
        "description": "",
        "disabled_reason": null,
        "enabled": true,
        "event_types": ["lookup_result.*"],
        "filter": { "data": { "domain": [{ "suffix": ".example.com" }] } },
        "format": "standard",
        "headers": {},
        "id": parts::SUBSCRIPTION,
        "rate_limit": { "per_second": 5.0, "burst": 10 },
        "retry": { "max_attempts": 5 },
        "signing": "hmac-sha256",
        "tenant": "acme",
        "timeout_ms": 10000,
        "updated_at": parts::TIME,
        "url": "https://hooks.example.com/carillon",
    })
}

/// A secret in examples: everybody knows it.
fn secret() -> Value {
    json!({ "hex": "00".repeat(32), "whsec": format!("whsec_{}=", "A".repeat(43)) })
}
