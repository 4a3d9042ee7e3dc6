//! Input that means harm, as it looks from outside: an event that is refused goes to quarantine
//! with the place and the reason, and the one behind it is delivered; what is taken arrives as
//! it was written. How each is read is tested beside the code.

use carillon::codec::proto;
use carillon::ports::{EventMessage, Parcel};
use http::Method;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::harness::{Api, Dispatcher, event, ms};
use super::hooks::{Hooks, event_ids};

const CLOUD: Option<&str> = Some("application/cloudevents+json");
const PROTO: Option<&str> = Some("application/x-protobuf");
/// Largest event, with room for its own fields.
const DATA_BYTES_MAX: usize = 1024 * 1024 - 200;

/// An event whose `data` is this text, and which has this text beside its fields.
fn written(id: &str, data: &str, beside: &str) -> Vec<u8> {
    format!(
        r#"{{"id":"{id}","type":"demo.happened","tenant":"acme","timestamp":"2026-03-01T12:30:00Z","data":{data}{beside}}}"#
    )
    .into_bytes()
}

fn with_data(data: &str) -> Vec<u8> {
    written("bad", data, "")
}

fn arrays(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

fn objects(depth: usize) -> String {
    "{\"a\":".repeat(depth) + "0" + &"}".repeat(depth)
}

/// A body, its content type, the reason and the field that its refusal names.
type Hostile = (
    Vec<u8>,
    Option<&'static str>,
    &'static str,
    Option<&'static str>,
);

fn hostile_events() -> Vec<Hostile> {
    let mut all: Vec<Hostile> = Vec::new();
    let mut add = |body: Vec<u8>, kind, code, field| all.push((body, kind, code, field));
    let malformed = "malformed";
    for depth in [127, 128, 129, 100_000] {
        add(with_data(&objects(depth)), None, malformed, Some("data"));
        let inside = format!(r#"{{"x":{}}}"#, arrays(depth - 1));
        add(with_data(&inside), None, malformed, Some("data"));
    }
    add(objects(100_000).into(), None, "missing_field", Some("id"));
    add(r#"{"id":"#.repeat(100_000).into(), None, malformed, None);
    let deep_id = written("bad", "{}", "").into_iter().collect::<Vec<u8>>();
    let deep_id = String::from_utf8(deep_id).unwrap();
    let deep_id = deep_id.replace(r#""bad""#, &arrays(100_000));
    add(deep_id.into(), None, "invalid_field", Some("id"));

    // What a filter sees must be what a receiver sees.
    let twice = [
        (r#"{"domain":"a.test","domain":"b.test"}"#, "data.domain"),
        (r#"{"domain":"a.test","dom\u0061in":"b"}"#, "data.domain"),
        (r#"{"x":[{},{"y":1,"z":2,"y":1}]}"#, "data.x[1].y"),
    ];
    for (data, field) in twice {
        add(with_data(data), None, malformed, Some(field));
    }
    for (beside, field) in [
        (r#","id":"other""#, "id"),
        (r#","tenant":"other""#, "tenant"),
        (r#","typ\u0065":"other""#, "type"),
        (r#","data":{"x":1}"#, "data"),
        (r#","timestamp":null"#, "timestamp"),
    ] {
        add(written("bad", "{}", beside), None, malformed, Some(field));
    }
    let cloud = r#"{"specversion":"1.0","source":"/t","id":"bad","type":"demo.happened","tenant":"acme","time":"2026-03-01T12:30:00Z","time":"2027-03-01T12:30:00Z","data":{}}"#;
    add(cloud.into(), CLOUD, malformed, Some("time"));
    let deep_cloud = cloud.replace(r#","time":"2027-03-01T12:30:00Z","data":{}"#, "");
    let deep_cloud = deep_cloud.replace('}', &format!(r#","data":{}}}"#, objects(100_000)));
    add(deep_cloud.into(), CLOUD, malformed, Some("data"));
    for (data, field) in [
        (objects(100_000).into_bytes(), "data"),
        (br#"{"a":1,"a":2}"#.to_vec(), "data.a"),
        (b"{\"a\":\"\xed\xa0\x80\"}".to_vec(), "data"),
    ] {
        let message = proto::Event {
            id: "bad".into(),
            r#type: "demo.happened".into(),
            tenant: "acme".into(),
            timestamp: "2026-03-01T12:30:00Z".into(),
            data: data.into(),
        };
        add(message.encode_to_vec(), PROTO, malformed, Some(field));
    }

    for (value, field) in [
        (r#""\ud800""#, "data.x"),
        (r#"["\udfff\ud800"]"#, "data.x[0]"),
        ("1e999999", "data.x"),
        ("-1e999999", "data.x"),
        (&"9".repeat(400), "data.x"),
    ] {
        let data = format!(r#"{{"x":{value}}}"#);
        add(with_data(&data), None, malformed, Some(field));
    }
    add(with_data("{\"x\":\"\u{1}\"}"), None, malformed, None);
    add(with_data("{\"x\":\"\0\"}"), None, malformed, None);
    for bytes in [
        &b"\xff"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf5\x80\x80\x80",
    ] {
        let text = format!(r#"{{"x":"{}"}}"#, "?");
        let mut body = with_data(&text);
        let at = body.iter().position(|b| *b == b'?').unwrap();
        body.splice(at..=at, bytes.iter().copied());
        add(body, None, malformed, None);
        let mut ignored = written("bad", "{}", r#","ignored":"?""#);
        let at = ignored.iter().position(|b| *b == b'?').unwrap();
        ignored.splice(at..=at, bytes.iter().copied());
        add(ignored, None, malformed, None);
    }
    let mark = [&b"\xef\xbb\xbf"[..], &with_data("{}")].concat();
    add(mark, None, malformed, None);
    for id in [r"a\u0000b", r"\ud800", r"a\nb", "é", r"\u0007"] {
        add(written(id, "{}", ""), None, "invalid_field", Some("id"));
    }
    all
}

/// Data that are unusual, and an event's like any other.
fn strange_data() -> Vec<String> {
    vec![
        objects(126),
        format!(r#"{{"x":{}}}"#, arrays(125)),
        r#"{"x":"\u0000","\u0000":"\ud83d\ude00","":{"":[[],{},"",null]}}"#.to_owned(),
        format!(r#"{{"x":[-0,-0.0,1e-999999,1E+2,0.{}]}}"#, "1".repeat(400)),
        r#"{"A":1,"a":2,"é":3,"e\u0301":4,"data":{"data":{}},"__proto__":{"x":1}}"#.to_owned(),
        format!(r#"{{"x":"{}"}}"#, "*a".repeat(50_000)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_events_are_put_aside_and_those_behind_them_delivered() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(1)])).await;
    carillon.api.subscribe(&hooks.url("all"), json!({})).await;
    let setup = carillon.stop().await.0;
    let hostile = hostile_events();
    let mut parcels = Vec::new();
    let mut put = |body: Vec<u8>, content_type: Option<&str>| {
        parcels.push(Parcel::Event(EventMessage {
            body: body.into(),
            content_type: content_type.map(Into::into),
            ..EventMessage::default()
        }));
    };
    for (n, (body, content_type, ..)) in hostile.iter().enumerate() {
        put(body.clone(), *content_type);
        put(event(&format!("good{n}")).to_string().into(), None);
    }
    setup.put(parcels).await;
    let carillon = setup.start().await;
    let api = &carillon.api;
    api.settled().await;
    let mut ids = event_ids(&hooks.seen("all"));
    ids.dedup();
    assert_eq!(ids.len(), hostile.len());
    let items = api.items("/v1/quarantine?limit=1000").await;
    assert_eq!(items.len(), hostile.len());
    for (item, (body, _, code, field)) in items.iter().zip(&hostile) {
        let start = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let told = format!("{start}: {} {}", item["field"], item["error"]);
        assert_eq!(item["reason"], *code, "{told}");
        assert_eq!(item["field"].as_str(), *field, "{told}");
        assert!(item["error"].as_str().unwrap().len() < 700, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_events_are_refused_by_the_api_and_strange_ones_arrive_as_written() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("all"), json!({})).await;
    for (body, content_type, code, field) in hostile_events() {
        let start = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let answer = api.publish_raw(body, content_type).await;
        let problem = answer.refused(422, code);
        assert_eq!(problem["field"].as_str(), field, "{start}: {problem}");
    }
    for batch in [
        arrays(100_000),
        format!("[{}]", "0,".repeat(1 << 20) + "0"),
        "[".repeat(1 << 20),
        format!("[{}]", objects(100_000)),
    ] {
        assert_eq!(api.publish_raw(batch, None).await.status, 422);
    }

    let strange = strange_data();
    for (n, data) in strange.iter().enumerate() {
        let body = written(&format!("s{n}"), data, "");
        api.publish_raw(body, None).await.expect(202);
    }
    // What is not read may be anything that is JSON.
    let beside = format!(
        r#","x":{},"x":[1e999999,"\ud800"],"y":{}"#,
        arrays(100_000),
        objects(100_000)
    );
    let ignored = written("ignored", r#"{"n":1}"#, &beside);
    api.publish_raw(ignored, None).await.expect(202);
    let arrived = hooks.arrived("all", strange.len() + 1).await;
    let bodies: Vec<&str> = arrived
        .iter()
        .map(|received| std::str::from_utf8(&received.body).unwrap())
        .collect();
    for data in strange.iter().map(String::as_str).chain([r#"{"n":1}"#]) {
        let whole = format!(
            r#"{{"type":"demo.happened","timestamp":"2026-03-01T12:30:00Z","data":{data}}}"#
        );
        assert!(
            bodies.contains(&whole.as_str()),
            "{}",
            &data[..40.min(data.len())]
        );
    }
    api.settled().await;
    assert_eq!(api.items("/v1/quarantine").await, [] as [Value; 0]);
}

/// The largest events that can be made of many small values.
fn crowded() -> Vec<String> {
    let fill = |piece: &dyn Fn(usize) -> String| {
        let mut text = String::with_capacity(DATA_BYTES_MAX);
        for n in 0.. {
            let piece = piece(n);
            if text.len() + piece.len() + 20 > DATA_BYTES_MAX {
                break;
            }
            if n > 0 {
                text.push(',');
            }
            text.push_str(&piece);
        }
        text
    };
    vec![
        format!(r#"{{"x":[{}]}}"#, fill(&|_| "0".to_owned())),
        format!(r#"{{"x":[{}]}}"#, fill(&|_| "[]".to_owned())),
        format!(r#"{{"x":[{}]}}"#, fill(&|_| r#"{"":0}"#.to_owned())),
        format!("{{{}}}", fill(&|n| format!(r#""{n:x}":0"#))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn crowded_events_are_matched_and_delivered() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let crowded = crowded();
    for filter in [
        json!({ "data": { "x": ["nothing", { "exists": false }] } }),
        json!({ "data": { "x": [0] } }),
    ] {
        let filter = json!({ "filter": filter });
        api.subscribe(&hooks.url("filtered"), filter).await;
    }
    for (n, data) in crowded.iter().enumerate() {
        let body = written(&format!("crowded{n}"), data, "");
        api.publish_raw(body, None).await.expect(202);
    }
    // `[0, …]` meets the second; arrays of nothing, of objects, and no `x` at all the first.
    let arrived = hooks.arrived("filtered", crowded.len()).await;
    assert!(
        arrived
            .iter()
            .all(|received| received.body.len() > 1_000_000)
    );
    api.settled().await;
    assert_eq!(hooks.seen("filtered").len(), crowded.len());
    assert_eq!(api.items("/v1/quarantine").await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_costs_too_much_to_match_is_put_aside_until_filters_are_simpler() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    // Met by nothing, after all branches are tried on all elements.
    let branches: Vec<Value> = (1..500)
        .map(|n| json!({ "data": { "x": [{ "prefix": n.to_string() }] } }))
        .collect();
    let costly = json!({ "data": { "x": [{ "prefix": "0" }] }, "$or": branches });
    let costly = api
        .subscribe(&hooks.url("costly"), json!({ "filter": costly }))
        .await;
    api.subscribe(&hooks.url("all"), json!({})).await;
    let zeros = r#""0","#.repeat(200_000);
    let data = format!(r#"{{"x":[{}"0"]}}"#, zeros);
    let body = written("costly", &data, "");
    api.publish_raw(body, None).await.expect(202);
    api.publish(&event("behind")).await;
    assert_eq!(event_ids(&hooks.arrived("all", 1).await), ["behind"]);
    let item = api.items_when("/v1/quarantine", 1).await.remove(0);
    assert_eq!(item["reason"], "too_costly", "{}", item["error"]);

    api.delete(&costly.path()).await.expect(204);
    let requeue = json!({ "reason": "too_costly" });
    let answer = api.post("/v1/quarantine/requeue", &requeue).await;
    assert_eq!(answer.expect(202)["requeued"], 1);
    let arrived = hooks.arrived("all", 2).await;
    assert!(arrived[1].body.ends_with(format!("{data}}}").as_bytes()));
    assert_eq!(hooks.seen("costly").len(), 0);
}

async fn send_raw(api: &Api, method: Method, path: &str, body: String) -> super::harness::Answer {
    let request = api.request(method, path).body(body);
    let kind = ("content-type", "application/json");
    api.send(request.header(kind.0, kind.1)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_documents_are_refused_with_their_place() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let made = api.subscribe("https://example.com/", json!({})).await;
    let document = |more: &str| {
        format!(r#"{{"tenant":"acme","url":"https://example.com/","description":"d"{more}}}"#)
    };
    let deep = objects(30_000);
    for (more, field) in [
        (format!(r#","filter":{deep}"#), None),
        (format!(r#","x":{}"#, arrays(100_000)), None),
        (r#","url":"https://other.example/""#.to_owned(), Some("url")),
        (
            r#","filter":{"data":{"x":[1],"x":[2]}}"#.to_owned(),
            Some("filter.data.x"),
        ),
        (
            r#","headers":{"x-a":"1","x-\u0061":"2"}"#.to_owned(),
            Some(r"headers.x-a"),
        ),
        (r#","x":"\ud800""#.to_owned(), Some("x")),
        (r#","x":1e999999"#.to_owned(), Some("x")),
    ] {
        let created = send_raw(api, Method::POST, "/v1/subscriptions", document(&more)).await;
        let problem = created.refused(400, "malformed");
        assert_eq!(problem["field"].as_str(), field, "{problem}");
        let patch = format!("{{{}}}", more.trim_start_matches(','));
        let patched = send_raw(api, Method::PATCH, &made.path(), patch).await;
        // A patch has the URL once.
        if field != Some("url") {
            patched.refused(400, "malformed");
        }
        let declared = format!("[{}]", document(&more));
        let declared = send_raw(api, Method::PUT, "/v1/subscriptions", declared).await;
        declared.refused(400, "malformed");
    }
    for (more, field) in [
        (r#","tenant_":"\u0000""#, "tenant_"),
        (
            r#","filter":{"data":{"x":[{"wildcard":"a**"}]}}"#,
            "filter.data.x[0].wildcard",
        ),
        (r#","headers":{"x-a":"a\r\nb: c"}"#, "headers.x-a"),
        (r#","headers":{"x-a\r\nb":"c"}"#, r"headers.x-a\r\nb"),
        (
            r#","headers":{"transfer-encoding":"chunked"}"#,
            "headers.transfer-encoding",
        ),
        (r#","headers":{"webhook_id":"msg_1"}"#, "headers.webhook_id"),
        (r#","headers":{":path":"/"}"#, "headers.:path"),
        (r#","headers":{"X-A":"1","x_a":"2"}"#, "headers.x_a"),
    ] {
        let created = send_raw(api, Method::POST, "/v1/subscriptions", document(more)).await;
        assert_eq!(created.refused(422, "invalid_field")["field"], field);
    }
    let description = document("").replace(r#":"d""#, r#":"\u001b[2J""#);
    let created = send_raw(api, Method::POST, "/v1/subscriptions", description).await;
    assert_eq!(
        created.refused(422, "invalid_field")["field"],
        "description"
    );
    assert_eq!(api.items("/v1/subscriptions").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_parameters_name_nothing_they_should_not() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let made = api.subscribe("https://example.com/", json!({})).await;
    for id in [
        "%00",
        "%ff",
        "%2e%2e",
        "..%2f..",
        "sub_%2f",
        "sub_1%00",
        "%F0%9F%94%94",
        "*",
        &"a".repeat(10_000),
    ] {
        let path = format!("/v1/subscriptions/{id}");
        api.get(&path).await.refused(404, "not_found");
        for (method, path) in [
            (Method::POST, format!("/v1/quarantine/{id}/requeue")),
            (Method::DELETE, format!("/v1/dead-letters/{id}")),
            (Method::DELETE, format!("/v1/subscriptions/{id}")),
        ] {
            let answer = api.send(api.request(method, &path)).await;
            assert_eq!(answer.status, 404, "{path}: {}", answer.body);
        }
    }
    for query in [
        "tenant=%00",
        "tenant=%ff",
        "tenant=a%20b",
        "tenant=a&tenant=b",
        "tenant=%C3%A9",
    ] {
        let path = format!("/v1/subscriptions?{query}");
        let problem = api.get(&path).await.refused(422, "invalid_parameter");
        assert_eq!(problem["field"], "tenant", "{query}");
    }
    let many = "&limit=".repeat(5_000) + "&x=1".repeat(2_000).as_str();
    let path = format!("/v1/subscriptions?{many}");
    api.get(&path).await.refused(422, "invalid_parameter");
    assert_eq!(api.get(&made.path()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_is_refused_at_its_limit() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let address = api.base().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /v1/subscriptions HTTP/1.1\r\nhost: {address}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let endless = async {
        let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
        while writing.write_all(chunk.as_bytes()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let mut status = [0; 12];
    tokio::select! {
        read = reading.read_exact(&mut status) => drop(read.unwrap()),
        () = endless => {}
    }
    assert_eq!(std::str::from_utf8(&status).unwrap(), "HTTP/1.1 413");
    api.get("/v1/subscriptions").await.expect(200);
}
