//! Publishing to an API that refuses what it is told to refuse.

use std::io::Cursor;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::*;
use crate::cli::receiver::{Behaviour, Received, Receiver, ReceiverSettings, Reply, channel};

/// How the API says that it does not take a batch.
#[derive(Clone, Copy)]
enum Refusal {
    /// 422 with the index of the first event that has no `type`.
    Index,
    /// 422 and nothing more.
    Silent,
    /// 413 for more than two events.
    Size,
}

impl Refusal {
    fn reply(self, received: &Received) -> Reply {
        let events: Vec<Value> = serde_json::from_slice(&received.body).unwrap();
        let wrong = events.iter().position(|event| event.get("type").is_none());
        let (status, body) = match (self, wrong) {
            (Self::Index, Some(index)) => (422, json!({"title": "Bad event", "index": index})),
            (Self::Silent, Some(_)) => (422, json!({"title": "Bad event"})),
            (Self::Size, _) if events.len() > 2 => (413, json!({"title": "Too large"})),
            _ => (202, json!({"accepted": events.len()})),
        };
        let status = StatusCode::from_u16(status).unwrap();
        Reply {
            body: Bytes::from(body.to_string()),
            ..Reply::status(status)
        }
    }
}

struct Run {
    result: Result<(), CliError>,
    published: u64,
    refused: u64,
    requests: Vec<String>,
}

async fn publish(refusal: Refusal, skip_invalid: bool, text: &str) -> Run {
    // Whoever comes first installs it; it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (observer, mut seen) = channel();
    let api = Receiver::start(ReceiverSettings {
        behaviour: Behaviour::scripted(move |received| refusal.reply(received)),
        observer: Some(observer),
        ..ReceiverSettings::default()
    });
    let api = api.await.unwrap();
    let globals = Globals {
        json: false,
        api: api.url(),
        token: None,
        config: None,
    };
    let args = Args {
        file: "-".into(),
        batch: 4,
        skip_invalid,
    };
    let mut publisher = Publisher::new(&args, ApiClient::new(&globals).unwrap(), None);
    let mut input: Input = Box::new(Cursor::new(text.to_owned().into_bytes()));
    let result = publisher.publish_all(&mut input).await;
    let (published, refused) = (publisher.published, publisher.refused);
    drop(publisher);
    api.stop().await;
    let mut requests = Vec::new();
    while let Ok(received) = seen.try_recv() {
        assert_eq!(received.path, "/v1/events");
        requests.push(String::from_utf8(received.body.to_vec()).unwrap());
    }
    Run {
        result,
        published,
        refused,
        requests,
    }
}

const GOOD: &str = r#"{"type":"a"}"#;

fn lines(events: &[&str]) -> String {
    events.join("\n") + "\n"
}

#[tokio::test]
async fn events_go_out_in_batches_as_they_were_written() {
    let text = lines(&[GOOD, "", GOOD, GOOD, GOOD, r#" {"type":  1.0}"#]);
    let run = publish(Refusal::Index, false, &text).await;
    run.result.unwrap();
    assert_eq!((run.published, run.refused), (5, 0));
    let first = format!("[{GOOD},{GOOD},{GOOD},{GOOD}]");
    assert_eq!(run.requests, [first.as_str(), r#"[{"type":  1.0}]"#]);
}

#[tokio::test]
async fn an_array_is_published_too() {
    let run = publish(Refusal::Index, false, "\n [{\"type\":1},\n{\"type\":2}]\n").await;
    run.result.unwrap();
    assert_eq!(run.requests, [r#"[{"type":1},{"type":2}]"#]);
}

#[tokio::test]
async fn the_first_refusal_ends_it_and_names_the_line() {
    let text = lines(&[GOOD, GOOD, GOOD, GOOD, GOOD, "{}", GOOD]);
    let run = publish(Refusal::Index, false, &text).await;
    let error = run.result.unwrap_err().to_string();
    assert!(error.starts_with("line 6: Bad event"), "{error}");
    assert!(error.contains("Nothing from line 5 to 7"), "{error}");
    assert_eq!((run.published, run.refused), (4, 1));

    let run = publish(Refusal::Silent, false, &text).await;
    let error = run.result.unwrap_err().to_string();
    assert!(error.contains("Nothing from line 5 to 7"), "{error}");
}

#[tokio::test]
async fn what_is_before_a_broken_line_is_published() {
    let run = publish(Refusal::Index, false, &lines(&[GOOD, "{", GOOD])).await;
    let error = run.result.unwrap_err().to_string();
    assert!(error.starts_with("line 2:"), "{error}");
    assert_eq!((run.published, run.refused), (1, 1));
}

#[tokio::test]
async fn what_is_refused_is_left_out_on_request() {
    let text = lines(&["{}", GOOD, "{}", GOOD, "nonsense", GOOD, "{}"]);
    for refusal in [Refusal::Index, Refusal::Silent] {
        let run = publish(refusal, true, &text).await;
        run.result.unwrap();
        assert_eq!((run.published, run.refused), (3, 4));
    }
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved() {
    let run = publish(Refusal::Size, false, &lines(&[GOOD; 4])).await;
    run.result.unwrap();
    assert_eq!((run.published, run.refused), (4, 0));
    assert_eq!(run.requests.len(), 3);
}
