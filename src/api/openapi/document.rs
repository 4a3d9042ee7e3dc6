//! The document as a whole: the route table, with what follows from it for each of its lines.

use std::collections::BTreeMap;

use http::StatusCode;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::super::auth::Access;
use super::super::problem::{self, Code};
use super::super::routes::{self, Route};
use super::operation::Operation;
use super::parts;

const ABOUT: &str = "\
Carillon takes security events, finds the webhook subscriptions that want them, and delivers each \
as a signed HTTPS POST.

**Who may call.** `Authorization: Bearer <token>`: the admin token (`http.admin_token`), or a \
tenant token that sees and changes what belongs to its tenant; what is not the caller's is \
answered as what is not there. Without an admin token configured, Carillon listens on loopback \
alone, and whoever can connect is the admin.

**Problems.** Every refusal is a problem document (RFC 9457) with a stable `code`. Unknown \
parameters and unknown fields are refused (422), but for events, whose unknown fields are ignored. \
An unknown path is answered 404, another method of a known one 405 with `Allow`; `HEAD` is `GET` \
without the document.

**Lists** are `{\"items\": […], \"next\": …}`; what `next` says goes on where the list ended.

**Null.** In what is sent, null stands for what is absent.";

/// What the tags stand for, in the order in which a reader meets them.
const TAGS: &[(&str, &str)] = &[
    ("events", "What happened: published, matched, delivered."),
    (
        "subscriptions",
        "Who wants which events, and where they go.",
    ),
    (
        "overview",
        "How it is going: counts and lanes of the process that answers.",
    ),
    (
        "attempts",
        "The audit log: what was sent, and what came back.",
    ),
    (
        "deliveries",
        "One event for one subscription: what became of it.",
    ),
    (
        "dead-letters",
        "What was given up: look, send again, discard.",
    ),
    (
        "quarantine",
        "What was not understood: look, and have it taken again.",
    ),
    (
        "secrets",
        "The keys under which signing secrets are encrypted.",
    ),
    (
        "tokens",
        "Tokens that see and change what belongs to one tenant.",
    ),
    ("meta", "This description."),
];

/// Problems that every call which asks who is calling may end in.
const OF_ALL: &[Code] = &[
    Code::Unauthorized,
    Code::TokenExpired,
    Code::CrossOrigin,
    Code::InvalidParameter,
    Code::TooManyRequests,
    Code::Internal,
    Code::StoreUnavailable,
    Code::StoreLost,
    Code::KeyMissing,
];

/// The whole document.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        settings.contract = schemars::generate::Contract::Serialize;
    });
    let mut schemas = settings.into_generator();
    parts::named(&mut schemas, "Problem", problem::schema);
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut refusals = Map::new();
    for route in routes::table() {
        let operation = (route.describe)(&mut schemas);
        let method = route.method.as_str().to_ascii_lowercase();
        let described = described(&route, operation, &mut refusals);
        paths
            .entry(route.path)
            .or_default()
            .insert(method, described);
    }
    let tags = TAGS
        .iter()
        .map(|(name, about)| json!({ "name": name, "description": about }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Carillon",
            "summary": "A webhook dispatcher: security events in, signed HTTPS POSTs out.",
            "description": ABOUT,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache License 2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "Where this document came from." }],
        "tags": tags.collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "securitySchemes": {
                "adminToken": {
                    "type": "http", "scheme": "bearer",
                    "description": "`http.admin_token`: may do everything.",
                },
                "tenantToken": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "ct_…",
                    "description": "A token of `POST /v1/tenants/{tenant}/tokens`: reaches what belongs to one tenant.",
                },
            },
            "responses": refusals,
            "schemas": schemas.take_definitions(true),
        },
    })
}

fn described(route: &Route, mut operation: Operation, refusals: &mut Map<String, Value>) -> Value {
    if route.access != Access::Anyone {
        operation = operation.refuses(OF_ALL);
    }
    if route.access == Access::Admin {
        operation = operation.refuses(&[Code::Forbidden]);
    }
    let mut answers = Map::new();
    for (status, answer) in &operation.answers {
        answers.insert(status.as_str().to_owned(), answer.clone());
    }
    for (status, codes) in by_status(&operation.codes) {
        let name = name_of(status, &codes);
        let reference = json!({ "$ref": format!("#/components/responses/{name}") });
        refusals
            .entry(name)
            .or_insert_with(|| refusal(status, &codes));
        answers.insert(status.as_str().to_owned(), reference);
    }
    let mut description = operation.description;
    if operation.body.is_some() {
        let kib = route.body_bytes_max / 1024;
        description += &format!("\n\nThe body has at most {kib} KiB.");
    }
    let mut described = json!({
        "tags": [operation.tag],
        "operationId": operation.id,
        "summary": operation.summary,
        "description": description,
        "security": security(route.access),
        "responses": answers,
    });
    if !operation.parameters.is_empty() {
        described["parameters"] = operation.parameters.into();
    }
    if let Some(body) = operation.body {
        described["requestBody"] = body;
    }
    described
}

/// Who may call: one of these suffices. None is needed where no admin token is configured.
fn security(access: Access) -> Value {
    match access {
        Access::Anyone => json!([]),
        Access::Admin => json!([{ "adminToken": [] }, {}]),
        Access::Tenants => json!([{ "adminToken": [] }, { "tenantToken": [] }, {}]),
    }
}

fn by_status(codes: &[Code]) -> BTreeMap<StatusCode, Vec<Code>> {
    let mut by_status: BTreeMap<_, Vec<Code>> = BTreeMap::new();
    for code in codes {
        let same = by_status.entry(code.status()).or_default();
        if !same.iter().any(|known| known.name() == code.name()) {
            same.push(*code);
        }
    }
    for same in by_status.values_mut() {
        same.sort_by_key(|code| code.name());
    }
    by_status
}

/// What the answer is called that is one of `codes`: those of several operations are the same.
fn name_of(status: StatusCode, codes: &[Code]) -> String {
    let names: Vec<_> = codes.iter().map(|code| code.name()).collect();
    format!("{}.{}", status.as_str(), names.join("."))
}

/// The answer that is one of `codes`, which have this status.
fn refusal(status: StatusCode, codes: &[Code]) -> Value {
    let names: Vec<_> = codes.iter().map(|code| code.name()).collect();
    let told = codes
        .iter()
        .map(|code| format!("- `{}`: {}", code.name(), code.sentence()));
    let title = status.canonical_reason().unwrap_or_default();
    let about = format!("{title}\n\n{}", told.collect::<Vec<_>>().join("\n"));
    let examples = codes.iter().map(|code| {
        let example = json!({ "value": problem::example(*code) });
        (code.name().to_owned(), example)
    });
    let examples: Map<_, _> = examples.collect();
    let schema = json!({
        "allOf": [
            { "$ref": "#/components/schemas/Problem" },
            { "properties": {
                "status": { "const": status.as_u16() },
                "code": { "enum": names },
            } },
        ],
    });
    let mut answer = json!({
        "description": about,
        "content": { "application/problem+json": { "schema": schema, "examples": examples } },
    });
    if let Some((name, header)) = header_of(status) {
        answer["headers"] = json!({ name: header });
    }
    answer
}

/// The header that a refusal of this status has.
fn header_of(status: StatusCode) -> Option<(&'static str, Value)> {
    match status {
        StatusCode::UNAUTHORIZED => Some((
            "WWW-Authenticate",
            json!({
                "description": "The scheme of the token that is needed (RFC 6750).",
                "required": true,
                "schema": { "type": "string", "const": "Bearer" },
            }),
        )),
        StatusCode::TOO_MANY_REQUESTS => Some(("Retry-After", retry_after(true))),
        // Where a person has to mend something first, there is no saying when.
        StatusCode::SERVICE_UNAVAILABLE => Some(("Retry-After", retry_after(false))),
        _ => None,
    }
}

fn retry_after(required: bool) -> Value {
    json!({
        "description": "When to try again, in seconds.",
        "required": required,
        "schema": { "type": "integer", "minimum": 0 },
    })
}
