//! News for pages that are open: that there were attempts, as server-sent events (HTML Living
//! Standard section 9.2). What they were, a page asks for again as its visitor.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, header};

use super::Pages;
use super::visitor::Visitor;

/// News come at most so often.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// A sign of life: proxies end what is silent; and another replica's attempts are seen, too.
const AT_LEAST_EVERY: Duration = Duration::from_secs(10);
/// How long a page listens before it has to ask again: its visitor's token may be over.
const FOR_AT_MOST: Duration = Duration::from_secs(15 * 60);

/// Tells of news until the page is closed.
pub async fn listen(State(pages): State<Pages>, _visitor: Visitor) -> Response {
    let Ok(place) = pages.listeners.clone().try_acquire_owned() else {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return (status, [(header::RETRY_AFTER, "30")]).into_response();
    };
    let count = pages.api.insight.attempts();
    let until = tokio::time::Instant::now() + FOR_AT_MOST;
    let news = stream::unfold((count, place), move |(mut count, place)| async move {
        if tokio::time::Instant::now() >= until {
            return None;
        }
        tokio::time::sleep(AT_MOST_EVERY).await;
        let changed = tokio::time::timeout(AT_LEAST_EVERY, count.changed()).await;
        // The pipeline is gone: this process ends.
        if let Ok(Err(_)) = changed {
            return None;
        }
        let news = Bytes::from_static(b"event: news\ndata: {}\n\n");
        Some((Ok::<_, Infallible>(news), (count, place)))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from_stream(news)).into_response()
}
