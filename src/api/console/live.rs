//! News for pages that are open: that there were attempts, as server-sent events (HTML Living
//! Standard section 9.2). What they were, a page asks for again as its visitor.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use http::{StatusCode, header};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::Pages;
use super::visitor::Visitor;

/// News come at most so often.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// A sign of life: proxies end what is silent; and another replica's attempts are seen, too.
const AT_LEAST_EVERY: Duration = Duration::from_secs(10);
/// How long a page listens before it has to ask again: its visitor's token may be over.
const FOR_AT_MOST: Duration = Duration::from_secs(15 * 60);

/// That it is heard, and when a browser asks again after the connection broke.
const HELLO: &str = "retry: 3000\n\n";
/// That there were attempts.
const NEWS: &str = "event: news\ndata: {}\n\n";
/// That there were none here.
const BEAT: &str = "event: beat\ndata: {}\n\n";

/// Tells of news until the page is closed, or this process ends.
pub async fn listen(State(pages): State<Pages>, visitor: Visitor) -> Response {
    let Some(count) = pages.api.insight.attempts(visitor.caller.owner().as_ref()) else {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return (status, [(header::RETRY_AFTER, "30")]).into_response();
    };
    let listener = Listener {
        count,
        not_before: Instant::now(),
        until: Instant::now() + FOR_AT_MOST,
    };
    let news = stream::unfold(listener, |mut listener| async {
        let next = listener.next().await?;
        Some((next, listener))
    });
    let stopping = pages.api.stopping.clone();
    let said = stream::iter([HELLO]).chain(news);
    let said = said.take_until(stopping.cancelled_owned());
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from_stream(said.map(Ok::<_, Infallible>))).into_response()
}

/// A page that is open.
struct Listener {
    count: watch::Receiver<u64>,
    not_before: Instant,
    until: Instant,
}

impl Listener {
    /// What it is told next; `None` when it has to ask again.
    async fn next(&mut self) -> Option<&'static str> {
        sleep_until(self.not_before).await;
        let changed = timeout(AT_LEAST_EVERY, self.count.changed()).await;
        self.not_before = Instant::now() + AT_MOST_EVERY;
        if self.not_before > self.until {
            return None;
        }
        match changed {
            Ok(Ok(())) => Some(NEWS),
            Err(_) => Some(BEAT),
            // The pipeline is gone: this process ends.
            Ok(Err(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn news_come_at_most_once_a_second_and_else_a_sign_of_life() {
        let (sender, count) = watch::channel(0);
        let begun = Instant::now();
        let mut listener = Listener {
            count,
            not_before: begun,
            until: begun + Duration::from_secs(30),
        };
        sender.send_modify(|n| *n += 1);
        assert_eq!(listener.next().await, Some(NEWS));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        (0..9).for_each(|_| sender.send_modify(|n| *n += 1));
        assert_eq!(listener.next().await, Some(NEWS));
        assert_eq!(begun.elapsed(), AT_MOST_EVERY);
        assert_eq!(listener.next().await, Some(BEAT));
        assert_eq!(begun.elapsed(), AT_MOST_EVERY * 2 + AT_LEAST_EVERY);
        while listener.next().await.is_some() {}
        assert!(begun.elapsed() >= Duration::from_secs(29));
        drop(sender);
        assert_eq!(listener.next().await, None);
    }
}
