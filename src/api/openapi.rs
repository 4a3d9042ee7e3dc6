//! `GET /openapi.json`: what the API is, in OpenAPI 3.1, made from the route table.
//!
//! Each line of the table has an [`Operation`] that its handler's file tells: what it takes and
//! answers, from the types that are answered and the constants that are checked. Who may call,
//! how large a body is, and what may go wrong follows from the table and from what an operation
//! takes. `carillon openapi` prints the document; `docs/openapi.json` is a copy of it.

use std::sync::LazyLock;

use axum::response::IntoResponse;
use http::header;
use serde_json::json;

mod document;
mod operation;
pub mod parts;
#[cfg(test)]
mod tests;

pub use operation::{Describe, Operation, Schemas, content};

/// How long clients and proxies may keep the document: it changes with the program alone.
const KEPT: &str = "public, max-age=300";

/// The document, made once.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    let document = document::document();
    // A tree of JSON values is always written.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
});

/// The document's text, with a line break at its end.
pub fn text() -> &'static str {
    &TEXT
}

/// Answers the document; whoever asks may know it.
pub async fn show() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, KEPT),
    ];
    (headers, text())
}

/// What [`show`] is.
pub fn describe_show(_: &mut Schemas) -> Operation {
    Operation::new("meta", "readDescription", "Read this description")
        .about("The description of the API, in OpenAPI 3.1. It needs no token.")
        .answers(
            200,
            "This document.",
            json!({
                "type": "object",
                "required": ["openapi", "info", "paths"],
                "properties": {
                    "openapi": { "type": "string", "pattern": "^3\\.1\\." },
                    "info": { "type": "object" },
                    "paths": { "type": "object" },
                },
                "additionalProperties": true,
            }),
            json!({ "openapi": "3.1.0", "info": { "title": "Carillon" }, "paths": {} }),
        )
}
