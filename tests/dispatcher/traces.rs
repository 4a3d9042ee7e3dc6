//! Traces: one from the publisher to each endpoint, whole over retries, and nothing of it in the
//! way of deliveries.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use carillon::ports::{EventMessage, Parcel};
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

use super::collector::{Collector, Span, url_of};
use super::harness::{Api, Dispatcher, event, events, ms, poll_until, typed_event};
use super::hooks::{Hooks, status, webhook_id};
use crate::process::{self, Process};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PUBLISHER: &str = "00f067aa0ba902b7";

/// A dispatcher that sends spans there, and tries again after each of `delays`.
async fn traced(collector: &Url, delays: &[u64]) -> Dispatcher {
    let collector = collector.clone();
    let delays = delays.iter().map(|delay| ms(*delay)).collect();
    Dispatcher::with(|config| {
        config.telemetry.otlp_endpoint = Some(collector);
        config.retry.schedule = Some(delays);
    })
    .await
}

/// Publishes with a `traceparent`.
async fn publish(api: &Api, document: &Value, traceparent: &str) {
    let request = api.request(Method::POST, "/v1/events").json(document);
    let request = request.header("traceparent", traceparent);
    api.send(request).await.expect(202);
}

fn sampled() -> String {
    format!("00-{TRACE}-{PUBLISHER}-01")
}

/// The spans whose name begins so, by their beginning.
fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    let mut named: Vec<&Span> = spans.iter().filter(|s| s.name.starts_with(name)).collect();
    named.sort_by_key(|span| span.began);
    named
}

/// The end of a span's name, which begins with a queue's prefix.
fn queue(span: &Span) -> &str {
    span.name.rsplit_once('.').unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_whole_over_a_retry() {
    let collector = Collector::start().await;
    let hooks = Hooks::answering(|_, times| status(if times == 1 { 500 } else { 200 })).await;
    let carillon = traced(&collector.url(), &[1]).await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("a"), json!({})).await;
    publish(api, &event("e1"), &sampled()).await;
    let requests = hooks.arrived("a", 2).await;
    api.settled().await;
    let attempts = api.items_when("/v1/attempts", 2).await;
    carillon.stop().await;

    let spans = collector.spans();
    assert_eq!(spans.len(), 6, "{spans:#?}");
    for span in &spans {
        assert_eq!(span.trace, TRACE, "{span:?}");
        assert!(span.began <= span.ended, "{span:?}");
    }
    let process = named(&spans, "process ");
    let [taken, again] = process[..] else {
        panic!("{process:?}");
    };
    let [plan] = named(&spans, "plan")[..] else {
        panic!("{spans:?}");
    };
    let [sent] = named(&spans, "send ")[..] else {
        panic!("{spans:?}");
    };
    let [first, second] = named(&spans, "POST")[..] else {
        panic!("{spans:?}");
    };
    let queues = [taken, again, sent].map(queue);
    assert_eq!(queues, ["events", "deliveries", "deliveries"]);
    let parents = [taken, plan, first, sent, again, second].map(|span| span.parent.as_str());
    let expected = [
        PUBLISHER, &taken.id, &taken.id, &taken.id, &sent.id, &again.id,
    ];
    assert_eq!(parents, expected);
    let remote = spans.iter().filter(|span| span.parent_is_remote);
    let mut remote: Vec<_> = remote.map(|span| span.id.as_str()).collect();
    remote.sort_unstable();
    let mut expected = [taken.id.as_str(), again.id.as_str()];
    expected.sort_unstable();
    assert_eq!(remote, expected, "what came by a queue");
    for span in [again, second] {
        assert_eq!(span.links, [first.id.as_str()], "{span:?}");
    }
    for span in [taken, plan, sent, first] {
        assert!(span.links.is_empty(), "{span:?}");
    }

    // What endpoints were sent is the attempt's span; the audit log shows it too.
    for (request, span) in requests.iter().zip([first, second]) {
        let told = request.header("traceparent").unwrap();
        assert_eq!(told, span.traceparent());
        let recorded = attempts.iter().any(|attempt| {
            let headers = attempt["request"]["headers"].to_string();
            headers.contains(told)
        });
        assert!(recorded, "{told}: {attempts:?}");
    }
    says(&spans, &made.id, webhook_id(&requests[0]), &hooks.url(""));
}

/// The attributes of that trace.
fn says(spans: &[Span], subscription: &str, delivery: &str, hooks: &str) {
    let url: Url = hooks.parse().unwrap();
    let kinds: Vec<_> = named(spans, "").iter().map(|span| span.kind).collect();
    let expected = [
        "consumer", "internal", "client", "producer", "consumer", "client",
    ];
    assert_eq!(kinds, expected);
    let [first, second] = named(spans, "POST")[..] else {
        panic!("{spans:?}");
    };
    for (span, number, code) in [(first, 1, 500), (second, 2, 200)] {
        for (key, expected) in [
            ("http.request.method", json!("POST")),
            ("http.response.status_code", json!(code)),
            ("server.address", json!("127.0.0.1")),
            ("server.port", json!(url.port())),
            ("url.scheme", json!("http")),
            ("url.full", json!(url.join("/REDACTED").unwrap().as_str())),
            ("carillon.attempt", json!(number)),
            ("carillon.delivery.id", json!(delivery)),
            ("carillon.subscription.id", json!(subscription)),
            ("carillon.event.id", json!("e1")),
            ("carillon.event.type", json!("demo.happened")),
            ("carillon.tenant", json!("acme")),
        ] {
            assert_eq!(*span.get(key), expected, "{key} of {span:?}");
        }
    }
    assert_eq!(*first.get("error.type"), "server_error");
    assert_eq!(first.error.as_deref(), Some("server_error"));
    assert_eq!(*first.get("http.request.resend_count"), Value::Null);
    assert_eq!(*second.get("http.request.resend_count"), 1);
    assert_eq!(
        (second.get("error.type"), &second.error),
        (&Value::Null, &None)
    );
    let systems = ["sqlite", "rabbitmq"];
    for span in named(spans, "process ")
        .into_iter()
        .chain(named(spans, "send "))
    {
        let (operation, destination) = span.name.split_once(' ').unwrap();
        assert_eq!(*span.get("messaging.operation.type"), operation);
        assert_eq!(*span.get("messaging.operation.name"), operation);
        assert_eq!(*span.get("messaging.destination.name"), destination);
        let system = span.get("messaging.system").as_str().unwrap();
        assert!(systems.contains(&system), "{span:?}");
        assert!(span.get("messaging.message.id").is_string(), "{span:?}");
    }
    assert_eq!(*named(spans, "plan")[0].get("carillon.plan.deliveries"), 1);
    let resource = &spans[0].resource;
    assert_eq!(resource["service.name"], "carillon");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert!(resource["service.instance.id"].is_string(), "{resource:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_keeps_its_trace_over_a_restart_and_a_redrive() {
    let collector = Collector::start().await;
    let works = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&works);
    let hooks = Hooks::answering(move |_, _| match is_well.load(Ordering::Relaxed) {
        true => status(200),
        false => status(500),
    });
    let hooks = hooks.await;
    let carillon = traced(&collector.url(), &[1500]).await;
    carillon.api.subscribe(&hooks.url("a"), json!({})).await;
    publish(&carillon.api, &event("e1"), &sampled()).await;
    hooks.arrived("a", 1).await;
    let carillon = carillon.restart().await;
    let api = &carillon.api;
    hooks.arrived("a", 2).await;
    let letters = api.items_when("/v1/dead-letters", 1).await;
    assert_eq!(letters[0]["reason"], "exhausted");
    works.store(true, Ordering::Relaxed);
    let redriven = api.post("/v1/dead-letters/redrive", &json!({})).await;
    assert_eq!(redriven.expect(200)["redriven"], 1);
    let requests = hooks.arrived("a", 3).await;
    api.settled().await;
    let delivery = webhook_id(&requests[0]);
    api.items_when("/v1/attempts", 3).await;
    // Its own trace: the other has long ended. But it says which one that was.
    let path = format!("/v1/deliveries/{delivery}/redeliver");
    api.post(&path, &json!({})).await.expect(202);
    hooks.arrived("a", 4).await;
    api.settled().await;
    carillon.stop().await;

    let spans = collector.spans();
    let posts = named(&spans, "POST");
    let [first, second, third, fourth] = posts[..] else {
        panic!("{spans:#?}");
    };
    let above = |span: &Span| {
        let parent = spans.iter().find(|other| other.id == span.parent).unwrap();
        (parent.name.rsplit_once('.').unwrap().1.to_owned(), parent)
    };
    for (span, before) in [(second, first), (third, second), (fourth, third)] {
        assert_eq!(span.links, [before.id.as_str()], "{span:?}");
        assert_eq!(above(span).0, "deliveries");
    }
    for span in [first, second, third] {
        assert_eq!(span.trace, TRACE);
    }
    let (_, again) = above(third);
    assert_eq!(
        above(again).0,
        "dead-letters",
        "what was given up led to it"
    );
    assert_ne!(fourth.trace, TRACE);
    assert_eq!(above(fourth).1.parent, "");
    let instances: std::collections::BTreeSet<String> = spans
        .iter()
        .map(|span| span.resource["service.instance.id"].to_string())
        .collect();
    assert_eq!(instances.len(), 2, "two processes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_is_not_sent_but_handed_on() {
    let collector = Collector::start().await;
    let hooks = Hooks::answering(|_, times| status(if times == 1 { 500 } else { 200 })).await;
    let carillon = traced(&collector.url(), &[1]).await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("a"), json!({})).await;
    publish(api, &event("e1"), &format!("00-{TRACE}-{PUBLISHER}-00")).await;
    let requests = hooks.arrived("a", 2).await;
    api.settled().await;
    // One that is kept, to see that nothing else was on its way.
    publish(api, &event("e2"), "not a traceparent").await;
    hooks.arrived("a", 4).await;
    api.settled().await;
    carillon.stop().await;
    let told: Vec<_> = requests.iter().map(|r| r.header("traceparent")).collect();
    assert_ne!(told[0], told[1], "each attempt is another span");
    for told in told {
        let told: Vec<&str> = told.unwrap().split('-').collect();
        assert_eq!((told[1], told[3]), (TRACE, "00"));
        assert_ne!(told[2], PUBLISHER);
    }
    let spans = collector.spans();
    assert_eq!(spans.len(), 6, "{spans:#?}");
    for span in &spans {
        assert_eq!(span.trace, spans[0].trace);
        assert_ne!(span.trace, TRACE);
    }
    assert_eq!(spans[0].parent, "", "it has no trace, so it begins one");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_nothing_is_added_to_requests() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    carillon.api.subscribe(&hooks.url("a"), json!({})).await;
    publish(&carillon.api, &event("e1"), &sampled()).await;
    let requests = hooks.arrived("a", 1).await;
    assert_eq!(requests[0].header("traceparent"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_and_a_test_are_traced() {
    let collector = Collector::start().await;
    let hooks = Hooks::start().await;
    let carillon = traced(&collector.url(), &[1]).await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("a"), json!({})).await;
    let tested = api.post(&format!("{}/test", made.path()), &json!({})).await;
    assert_eq!(tested.expect(200)["outcome"], "delivered");
    let (setup, _) = carillon.stop().await;
    let faulty = EventMessage {
        body: "{".into(),
        traceparent: Some(sampled()),
        ..EventMessage::default()
    };
    setup.put(vec![Parcel::Event(faulty)]).await;
    let carillon = setup.start().await;
    carillon.api.items_when("/v1/quarantine", 1).await;
    carillon.stop().await;
    let spans = collector.spans();
    let [test, faulty] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(
        (faulty.trace.as_str(), faulty.parent.as_str()),
        (TRACE, PUBLISHER)
    );
    assert_eq!((faulty.kind, queue(faulty)), ("consumer", "events"));
    assert_eq!(faulty.error.as_deref(), Some("malformed"));
    assert_eq!(*faulty.get("error.type"), "malformed");
    assert_eq!((test.name.as_str(), test.parent.as_str()), ("POST", ""));
    assert_eq!(*test.get("carillon.test"), true);
    let request = &hooks.seen("a")[0];
    assert_eq!(request.header("traceparent"), Some(&*test.traceparent()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_span_holds_a_secret() {
    const SECRETS: [&str; 5] = ["p4th", "qu3ry", "h3ader", "b0dy", "answ3r"];
    let collector = Collector::start().await;
    let hooks = Hooks::answering(|_, _| super::hooks::with_header(status(500), "x-a", "answ3r"));
    let hooks = hooks.await;
    let carillon = traced(&collector.url(), &[1]).await;
    let api = &carillon.api;
    let more = json!({ "headers": { "x-token": "h3ader" } });
    let url = hooks.url("p4th/more?token=qu3ry");
    let made = api.subscribe(&url, more).await;
    let data = json!({ "a": "b0dy" });
    publish(api, &typed_event("e1", "demo.happened", &data), &sampled()).await;
    hooks.arrived("p4th/more?token=qu3ry", 2).await;
    api.items_when("/v1/dead-letters", 1).await;
    api.settled().await;
    carillon.stop().await;
    let bytes = collector.bytes();
    let has = |needle: &str| {
        bytes
            .windows(needle.len())
            .any(|at| at == needle.as_bytes())
    };
    assert!(has("demo.happened") && has("127.0.0.1"), "it is searched");
    assert_eq!(named(&collector.spans(), "POST").len(), 2);
    let whsec = made.whsec().trim_start_matches("whsec_");
    let hex = made.document["secret"]["hex"].as_str().unwrap();
    for secret in SECRETS.into_iter().chain([whsec, hex, "v1,"]) {
        assert!(!has(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_of_opentelemetry_holds_and_log_lines_name_the_trace() {
    let collector = Collector::start().await;
    let hooks = Hooks::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = collector.url();
    let variables = [
        ("CARILLON_EGRESS__ALLOW", r#"["127.0.0.1/32"]"#),
        ("CARILLON_TELEMETRY__OTLP_ENDPOINT", url.as_str()),
        ("CARILLON_TELEMETRY__LOG", "json"),
        ("OTEL_SERVICE_NAME", "renamed"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.instance.id=i7,deployment.environment.name=test",
        ),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
    ];
    let variables = variables.map(|(name, value)| (name, value.to_owned()));
    let path = folder.path().join("log");
    let log = File::create(&path).unwrap();
    let mut command = process::command(folder.path(), &variables.to_vec());
    command.env("RUST_LOG", "info").stderr(log);
    let mut process = Process::start(command);
    let api = Api::at(process.api(), process.ops(), None);
    poll_until("it is ready", async || {
        let url = format!("{}/readyz", process.ops());
        let answer = reqwest::get(url).await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    api.subscribe(&hooks.url("a"), json!({})).await;
    publish(&api, &event("kept"), &sampled()).await;
    publish(&api, &event("left-out"), "").await;
    hooks.arrived("a", 2).await;
    api.settled().await;
    process.tell_to_end();
    assert!(
        poll_until("its end", async || process.ended())
            .await
            .success()
    );

    let spans = collector.spans();
    assert_eq!(spans.len(), 3, "one event's: {spans:#?}");
    let resource = &spans[0].resource;
    assert_eq!(resource["service.name"], "renamed");
    assert_eq!(resource["service.instance.id"], "i7");
    assert_eq!(resource["deployment.environment.name"], "test");
    let log = std::fs::read_to_string(path).unwrap();
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let attempts: Vec<Value> = lines.filter(|line| line["delivery"].is_string()).collect();
    let of = |event: &str| attempts.iter().find(|line| line["event"] == event).unwrap();
    let post = named(&spans, "POST")[0];
    assert_eq!(of("kept")["trace_id"], TRACE);
    assert_eq!(of("kept")["span_id"], post.id.as_str());
    assert_eq!(post.get("carillon.event.id"), "kept");
    let other = of("left-out")["trace_id"].as_str().unwrap();
    assert!(other.len() == 32 && other != TRACE, "{other}");
}

/// Delivers as much as makes more spans than may wait, with this collector; how long the end took.
async fn delivers_beside(collector: &Url) -> Duration {
    const EVENTS: usize = 2 * 750;
    let hooks = Hooks::start().await;
    let carillon = traced(collector, &[1]).await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("a"), json!({})).await;
    let all = events(EVENTS);
    for some in all.as_array().unwrap().chunks(EVENTS / 2) {
        publish(api, &json!(some), &sampled()).await;
    }
    api.settled().await;
    assert_eq!(hooks.seen("a").len(), EVENTS);
    poll_until("lost spans are counted", async || {
        let dropped = api.metric("carillon_trace_spans_dropped_total").await;
        (dropped > 0.0).then_some(())
    })
    .await;
    assert_eq!(api.ops("/readyz").await.0, 200);
    let begun = Instant::now();
    let (_, ended) = carillon.stop().await;
    assert!(ended);
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_costs_spans_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = url_of(&listener);
    drop(listener);
    let took = delivers_beside(&url).await;
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_costs_spans_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = url_of(&listener);
    let hangs = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap());
        }
    });
    let took = delivers_beside(&url).await;
    hangs.abort();
    assert!(took < Duration::from_secs(6), "{took:?}");
}
