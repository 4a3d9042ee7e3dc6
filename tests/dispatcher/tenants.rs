//! Two tenants: for the token of one, what belongs to the other does not exist.
//!
//! The walks are made from the route table: a route that nobody thought of here fails them.

use carillon::api::auth::Access;
use carillon::api::routes;
use http::Method;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::harness::{Answer, Api, Dispatcher, event, poll_until};
use super::hooks::{Hooks, status};

const ADMIN: &str = "correct-horse-battery-staple";
/// In everything that is not acme's: no answer to acme may have it.
const MARK: &str = "bluebell";
const OTHER: &str = "bluebell-corp";
/// Where nobody listens: nothing leaves this machine.
const ENDPOINT: &str = "http://127.0.0.1:9/";

/// What there is of someone: for acme and for the others the same.
#[derive(Clone, Debug)]
struct Things {
    tenant: String,
    subscription: String,
    /// A delivery of it that was given up.
    delivery: String,
    event: String,
}

/// Acme, another tenant, and a subscription of every tenant, each with an endpoint that takes
/// nothing any more and a dead letter.
struct House {
    _hooks: Hooks,
    carillon: Dispatcher,
    acme: Things,
    others: [Things; 2],
}

impl House {
    async fn build() -> Self {
        let hooks = Hooks::answering(|_, _| status(500)).await;
        let carillon = Dispatcher::with(|config| {
            config.http.admin_token = Some(SecretString::from(ADMIN));
            config.retry.max_attempts = 1;
        });
        let mut carillon = carillon.await;
        carillon.api.token = Some(ADMIN.to_owned());
        let api = &carillon.api;
        let subscribe = async |tenant: &str, url: &str| {
            let made = json!({ "tenant": tenant, "url": hooks.url(url) });
            let made = api.post("/v1/subscriptions", &made).await.expect(201);
            made["id"].as_str().unwrap().to_owned()
        };
        let own = subscribe("acme", "own").await;
        let foreign = subscribe(OTHER, MARK).await;
        let shared = subscribe("*", MARK).await;
        let events = json!([event_of("acme", "mine"), event_of(OTHER, MARK)]);
        api.publish(&events).await;
        let letters = api.items_when("/v1/dead-letters", 4).await;
        let things = |tenant: &str, subscription: String, event: &str| {
            let is_it = |letter: &&Value| {
                letter["subscription_id"] == *subscription && letter["event_id"] == event
            };
            let letter = letters.iter().find(is_it).unwrap();
            Things {
                tenant: tenant.to_owned(),
                delivery: letter["id"].as_str().unwrap().to_owned(),
                event: event.to_owned(),
                subscription,
            }
        };
        api.items_when("/v1/attempts", 4).await;
        Self {
            acme: things("acme", own, "mine"),
            others: [
                things(OTHER, foreign, MARK),
                // An event of acme's own, for somebody else.
                things("*", shared, "mine"),
            ],
            _hooks: hooks,
            carillon,
        }
    }

    fn admin(&self) -> &Api {
        &self.carillon.api
    }

    /// Speaks for a tenant.
    async fn speak_for(&self, tenant: &str) -> Api {
        let path = format!("/v1/tenants/{tenant}/tokens");
        let made = self.admin().post(&path, &json!({ "ttl": "1h" })).await;
        let mut api = self.admin().clone();
        api.token = Some(made.expect(201)["token"].as_str().unwrap().to_owned());
        api
    }

    /// All that is there, but acme's own.
    async fn all_of_others(&self) -> Vec<Value> {
        let mut found = Vec::new();
        for list in ["subscriptions", "attempts", "dead-letters"] {
            let items = self.admin().items(&format!("/v1/{list}?limit=1000")).await;
            let is_acmes = |item: &Value| {
                let subscription = item.get("subscription_id").unwrap_or(&item["id"]);
                *subscription == *self.acme.subscription
            };
            found.extend(items.into_iter().filter(|item| !is_acmes(item)));
        }
        found
    }
}

fn event_of(tenant: &str, id: &str) -> Value {
    let mut made = event(id);
    made["tenant"] = json!(tenant);
    made
}

/// Things of nobody.
fn nothing() -> Things {
    Things {
        tenant: "nobody".to_owned(),
        subscription: "sub_0000".to_owned(),
        delivery: "msg_0000".to_owned(),
        event: "none".to_owned(),
    }
}

/// Every way to name `things` to a route: paths with queries, and bodies.
fn namings(method: &Method, path: &str, things: &Things) -> Vec<(String, Value)> {
    let Things {
        tenant,
        subscription,
        delivery,
        event,
    } = things;
    let filled = path
        .replace(
            "/subscriptions/{id}",
            &format!("/subscriptions/{subscription}"),
        )
        .replace("/deliveries/{id}", &format!("/deliveries/{delivery}"))
        .replace("/dead-letters/{id}", &format!("/dead-letters/{delivery}"))
        .replace("/quarantine/{id}", "/quarantine/1")
        .replace("{tenant}", tenant);
    assert!(!filled.contains('{'), "what does {path} name? say it here");
    let document = json!({ "tenant": tenant, "url": ENDPOINT });
    let with = |body: Value| vec![(filled.clone(), body)];
    let queries = |names: &[(&str, &str)]| {
        let query =
            |(name, value): &(&str, &str)| (format!("{filled}?{name}={value}"), Value::Null);
        names.iter().map(query).collect::<Vec<_>>()
    };
    match (method.as_str(), path) {
        ("POST", "/v1/events") => {
            // Of every tenant there are subscriptions, but no events.
            let publisher = if tenant == "*" { OTHER } else { tenant };
            let alone = event_of(publisher, "new");
            let both = json!([event_of("acme", "new"), &alone]);
            [alone, both].map(|body| (filled.clone(), body)).into()
        }
        ("GET", "/v1/subscriptions") => queries(&[("tenant", tenant), ("limit", "1000")]),
        ("POST" | "PUT", "/v1/subscriptions") => with(document),
        ("PUT", "/v1/subscriptions/{id}") => with(document),
        ("PATCH", "/v1/subscriptions/{id}") => with(json!({ "enabled": false })),
        ("GET", "/v1/attempts") => queries(&[
            ("tenant", tenant),
            ("subscription", subscription),
            ("delivery", delivery),
            ("event", event),
            ("limit", "1000"),
        ]),
        ("GET", "/v1/dead-letters") => queries(&[
            ("tenant", tenant),
            ("subscription", subscription),
            ("limit", "1000"),
        ]),
        ("POST", "/v1/dead-letters/redrive") => [
            json!({ "tenant": tenant }),
            json!({ "subscription": subscription }),
            json!({ "subscription": subscription, "dry_run": true }),
        ]
        .map(|body| (filled.clone(), body))
        .into(),
        ("POST", "/v1/explain") => [
            json!({ "event": event_of(if tenant == "*" { OTHER } else { tenant }, "e") }),
            json!({ "event": event_of("acme", "e"), "tenant": tenant }),
        ]
        .map(|body| (filled.clone(), body))
        .into(),
        ("GET", _) => with(Value::Null),
        // Named in the path alone.
        _ if path.contains('{') => with(json!({})),
        ("POST", "/v1/quarantine/requeue" | "/v1/secrets/rotate") => with(json!({})),
        _ => panic!("how does {method} {path} name what belongs to someone? say it here"),
    }
}

async fn asked(api: &Api, method: &Method, (path, body): &(String, Value)) -> Answer {
    let request = api.request(method.clone(), path);
    let request = match body {
        Value::Null => request,
        body => request.json(body),
    };
    api.send(request).await
}

/// An answer that names a tenant names whom the token is for: the same for all.
fn same_answer(one: &Answer, other: &Answer) -> bool {
    one.status == other.status && one.body == other.body
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_others_is_not_there() {
    let house = House::build().await;
    let acme = house.speak_for("acme").await;
    let before = house.all_of_others().await;
    assert!(before.len() >= 8, "{before:#?}");
    let mut asked_for = 0;
    for route in routes::table() {
        let (method, path) = (&route.method, route.path);
        for other in &house.others {
            let named = namings(method, path, other);
            for (naming, of_nobody) in named.iter().zip(namings(method, path, &nothing())) {
                // Of what the request itself names, events and lists of all have own ones.
                let answer = asked(&acme, method, naming).await;
                let text = answer.body.to_string();
                assert!(!text.contains(MARK), "{method} {naming:?}: {text}");
                for id in [&other.subscription, &other.delivery] {
                    assert!(!text.contains(id), "{method} {naming:?}: {text}");
                }
                let is_own = naming.0.ends_with("event=mine") || naming.0.ends_with("limit=1000");
                if is_own {
                    let items = answer.expect(200)["items"].as_array().unwrap().len();
                    assert_eq!(items, 1, "{method} {naming:?}: {text}");
                } else {
                    let nobodys = asked(&acme, method, &of_nobody).await;
                    assert!(
                        same_answer(&answer, &nobodys),
                        "{method} {naming:?}: {answer:?}, but {nobodys:?}"
                    );
                }
                asked_for += 1;
            }
        }
    }
    assert!(asked_for >= 50, "{asked_for}");
    assert_eq!(
        house.all_of_others().await,
        before,
        "nothing happened to it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_admin_may_do_what_the_table_says() {
    let house = House::build().await;
    let acme = house.speak_for("acme").await;
    for route in routes::table() {
        let (method, path) = (&route.method, route.path);
        let is_last = path == "/v1/subscriptions/{id}" && *method == Method::DELETE;
        let is_tenants = path.starts_with("/v1/tenants");
        for naming in namings(method, path, &house.acme) {
            // Each finds what it needs: what those before it took away is made again.
            let answer = asked(&acme, method, &naming).await;
            match route.access {
                Access::Admin => {
                    let problem = answer.refused(403, "forbidden");
                    let detail = problem["detail"].as_str().unwrap();
                    assert!(detail.contains("admin token"), "{detail}");
                    if is_tenants {
                        asked(house.admin(), method, &naming).await.expect(201);
                    }
                }
                Access::Tenants if is_last => assert_eq!(answer.status, 204),
                Access::Anyone | Access::Tenants => {
                    let is_done = (200..300).contains(&answer.status);
                    // Redriven just before.
                    let is_away = answer.status == 404 && path == "/v1/dead-letters/{id}";
                    assert!(is_done || is_away, "{method} {naming:?}: {answer:?}");
                }
            }
            if *method == Method::PATCH {
                let enabled = json!({ "enabled": true });
                acme.patch(&naming.0, &enabled).await.expect(200);
            }
            if is_last {
                let restored = json!({ "tenant": "acme", "url": ENDPOINT });
                house.admin().put(&naming.0, &restored).await.expect(201);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_writes_for_itself_alone() {
    let house = House::build().await;
    let acme = house.speak_for("acme").await;
    for tenant in [OTHER, "*", "nobody"] {
        let document = json!({ "tenant": tenant, "url": ENDPOINT });
        let answer = acme.post("/v1/subscriptions", &document).await;
        answer.refused(403, "forbidden");
    }
    let path = format!("/v1/subscriptions/{}", house.acme.subscription);
    for tenant in [OTHER, "*"] {
        let answer = acme.patch(&path, &json!({ "tenant": tenant })).await;
        answer.refused(422, "invalid_field");
    }
    // An id is the admin's to choose: whoever could would learn which ones there are.
    let document = json!({ "tenant": "acme", "url": ENDPOINT });
    for id in ["sub_new", house.others[0].subscription.as_str()] {
        let answer = acme
            .put(&format!("/v1/subscriptions/{id}"), &document)
            .await;
        answer.refused(404, "not_found");
    }
    let events = json!([event("one"), event_of(OTHER, "two")]);
    let problem = acme
        .post("/v1/events", &events)
        .await
        .refused(403, "forbidden");
    assert_eq!(problem["index"], 1);
    acme.publish(&event("three")).await;
    let sent = poll_until("it is sent", async || {
        let sent = acme.items("/v1/attempts?event=three").await;
        (!sent.is_empty()).then_some(sent)
    });
    assert_eq!(sent.await.len(), 1);
    assert!(
        acme.items("/v1/attempts?event=one").await.is_empty(),
        "all or none"
    );
}

/// An id that acme's subscription had is given to one of every tenant: what acme knows of the
/// first opens nothing of the second.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_given_to_another_opens_nothing() {
    let house = House::build().await;
    let acme = house.speak_for("acme").await;
    let path = format!("/v1/subscriptions/{}", house.acme.subscription);
    acme.delete(&path).await.expect(204);
    let every = json!({ "tenant": "*", "url": ENDPOINT });
    house.admin().put(&path, &every).await.expect(201);
    acme.get(&path).await.refused(404, "not_found");
    let again = format!("/v1/deliveries/{}/redeliver", house.acme.delivery);
    let refused = acme.post(&again, &json!({})).await;
    refused.refused(409, "subscription_deleted");
    // A dead letter of before, sent again, is none of acme's business from then on.
    let redrive = json!({ "subscription": house.acme.subscription });
    let redriven = acme.post("/v1/dead-letters/redrive", &redrive).await;
    assert_eq!(redriven.expect(200)["redriven"], 1);
    house.admin().settled().await;
    let kept = format!("/v1/attempts?delivery={}", house.acme.delivery);
    let all = house.admin().items_when(&kept, 2).await.len();
    assert!(
        acme.items(&kept).await.len() < all,
        "only its own of before"
    );
    assert!(acme.items("/v1/dead-letters").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_of_one_tenant() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let refused = api.post("/v1/events", &event_of("*", "e")).await;
    assert_eq!(refused.refused(422, "invalid_field")["field"], "tenant");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_made_for_one_tenant_and_a_time() {
    let carillon = Dispatcher::with(|config| {
        config.http.admin_token = Some(SecretString::from(ADMIN));
    });
    let carillon = carillon.await;
    let mut api = carillon.api.clone();
    api.token = Some(ADMIN.to_owned());
    let answer = api
        .post("/v1/tenants/acme%2Feu%22/tokens", &json!({}))
        .await;
    let made = answer.expect(201);
    assert_eq!(made["tenant"], "acme/eu\"");
    for (tenant, body, field) in [
        ("*", json!({}), "tenant"),
        ("%2A", json!({}), "tenant"),
        ("%20", json!({}), "tenant"),
        ("acme", json!({ "ttl": "0s" }), "ttl"),
        ("acme", json!({ "ttl": "31d" }), "ttl"),
        ("acme", json!({ "ttl": 60 }), "ttl"),
        ("acme", json!({ "tll": "1h" }), "tll"),
    ] {
        let answer = api
            .post(&format!("/v1/tenants/{tenant}/tokens"), &body)
            .await;
        assert_eq!(answer.refused(422, "invalid_field")["field"], field);
    }
    for ttl in ["1h", "1s"] {
        let made = api
            .post("/v1/tenants/acme/tokens", &json!({ "ttl": ttl }))
            .await;
        let made = made.expect(201);
        let mut acme = api.clone();
        acme.token = Some(made["token"].as_str().unwrap().to_owned());
        if ttl == "1h" {
            acme.get("/v1/subscriptions").await.expect(200);
            continue;
        }
        let expired = poll_until("it expires", async || {
            let answer = acme.get("/v1/subscriptions").await;
            (answer.status != 200).then_some(answer)
        });
        expired.await.refused(401, "token_expired");
    }
}
