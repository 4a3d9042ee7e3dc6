//! The look, the script and the sign of the console; part of the program.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};

const STYLE: &str = include_str!("assets/carillon.css");
const SCRIPT: &str = include_str!("assets/carillon.js");
const SIGN: &str = include_str!("assets/carillon.svg");

/// One of them. They may be kept for an hour: a page names the version that it needs.
pub async fn show(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "carillon.css" => ("text/css; charset=utf-8", STYLE),
        "carillon.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "carillon.svg" => ("image/svg+xml", SIGN),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=3600"),
    ];
    (headers, text).into_response()
}
