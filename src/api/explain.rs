//! `POST /v1/explain`: which of a tenant's subscriptions want an event, and why not the others.

use axum::Json;
use axum::extract::State;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::Api;
use super::auth::Caller;
use super::events;
use super::extract::Document;
use super::openapi::{Operation, Schemas, parts};
use super::problem::{Code, Problem};
use super::subscriptions::page;
use crate::codec;
use crate::domain::event::{Event, EventFault, FaultReason};
use crate::domain::explain::{Rule, Verdict, explain};
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::pattern::{Budget, Selection};
use crate::domain::subscription::{DisabledReason, FieldFault, Scope, Subscription};
use crate::ports::StoredSubscription;

/// Most subscriptions that are explained in one answer.
const EXPLAINED_MAX: usize = 1000;
/// It takes as long as matching does, so it must not take all processors from that.
static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);

/// What a tenant's subscriptions say to an event.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    /// What each says.
    items: Vec<Explained>,
    /// How many of these want the event.
    matched: usize,
    /// What to ask for as `cursor` to go on; null when these were all.
    next: Option<String>,
}

/// What one subscription says to an event.
#[derive(Debug, Serialize, JsonSchema)]
struct Explained {
    /// Which of the event's alerts it gets, by their place, where it does not get all.
    #[serde(skip_serializing_if = "Option::is_none")]
    alerts: Option<Vec<usize>>,
    /// The subscription's description.
    description: String,
    /// Why it does not want the event; empty when it does.
    detail: String,
    /// What the event has at `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
    /// Whether it wants the event.
    matches: bool,
    /// Where the filter says no.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// The first rule that says no: the subscription's field.
    #[schemars(schema_with = "rules")]
    rule: Option<&'static str>,
    /// The subscription.
    #[schemars(schema_with = "parts::field::subscription_id")]
    subscription_id: String,
    /// Whose events it wants.
    tenant: String,
    /// Where it goes.
    url: String,
    /// What the filter wants at `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<String>,
}

fn rules(_: &mut Schemas) -> Schema {
    parts::field::maybe_word(Rule::CODES)
}

/// Explains an event to each subscription of its tenant, and of the tenant that is named, a
/// thousand at a time; `next` goes on. Nothing is sent and nothing kept.
///
/// # Errors
/// [`Problem`]: also what is wrong with the event.
pub async fn run(
    State(api): State<Api>,
    caller: Caller,
    document: Document,
) -> Result<Json<Explanation>, Problem> {
    let (mut event, mut tenant, mut after) = (None, None, None);
    for member in document.members() {
        match member.name {
            "event" => event = member.value.as_object().cloned(),
            "tenant" => {
                let parse = |text: &str| TenantId::parse(text).ok();
                tenant = member.parsed("a tenant", parse)?;
            }
            "cursor" => {
                let parse = |text: &str| SubscriptionId::parse(text).ok();
                after = member.parsed("the `next` of the answer before", parse)?;
            }
            _ => return Err(member.unknown().into()),
        }
    }
    let event = event.ok_or_else(|| FieldFault::new("event", "must be an event (an object)"))?;
    let event = read(&api, event, tenant.as_ref())?;
    let scope = Scope::One(tenant.unwrap_or_else(|| event.tenant.clone()));
    caller.check(&scope)?;
    let mut asked = Vec::new();
    if caller == Caller::Admin && after.is_none() {
        asked.extend(api.ports.subscriptions.of_scope(&Scope::Every).await?);
    }
    let (own, next) = page(&api, Some(&scope), after.as_ref(), EXPLAINED_MAX).await?;
    asked.extend(own);
    let items = explained(&asked, &event).await?;
    let matched = items.iter().filter(|item| item.matches).count();
    Ok(Json(Explanation {
        items,
        matched,
        next: next.map(|id| id.to_string()),
    }))
}

/// What each of `asked` says, within the steps that delivering the event to them would have.
async fn explained(asked: &[StoredSubscription], event: &Event) -> Result<Vec<Explained>, Problem> {
    // The semaphore is never closed.
    let _turn = ONE_AT_A_TIME.acquire().await.ok();
    let budget = Budget::of_event(asked.len());
    let mut items = Vec::with_capacity(asked.len());
    for stored in asked {
        items.push(shown(&stored.subscription, event, &budget));
        if budget.is_spent() {
            return Err(EventFault::too_costly(asked.len()).into());
        }
        tokio::task::yield_now().await;
    }
    Ok(items)
}

/// The event; what it needs for being one and nobody asks for here may be left out.
fn read(
    api: &Api,
    mut event: Map<String, Value>,
    tenant: Option<&TenantId>,
) -> Result<Event, Problem> {
    let mut absent = |name: &str, value: Value| {
        event.entry(name).or_insert(value);
    };
    absent("id", json!("explained"));
    absent("timestamp", json!(api.ports.clock.now().to_string()));
    if let Some(tenant) = tenant {
        absent("tenant", json!(tenant.as_str()));
    }
    let body = Value::from(event).to_string().into();
    Ok(codec::event::decode(&body, None, api.event_bytes_max)?)
}

/// What one subscription says, in words for a person beside those for a program.
fn shown(subscription: &Subscription, event: &Event, budget: &Budget) -> Explained {
    let verdict = explain(subscription, event, budget);
    let mut item = Explained {
        alerts: None,
        description: subscription.spec.description.clone(),
        detail: String::new(),
        found: None,
        matches: matches!(verdict, Verdict::Wanted(_)),
        path: None,
        rule: None,
        subscription_id: subscription.id.to_string(),
        tenant: subscription.tenant.as_str().to_owned(),
        url: subscription.spec.url.as_str().to_owned(),
        wanted: None,
    };
    match verdict {
        Verdict::Wanted(Selection::All) => {}
        Verdict::Wanted(Selection::Some(alerts)) => item.alerts = Some(alerts),
        Verdict::Refused(rule) => {
            item.rule = Some(rule.code());
            item.detail = sentence(&rule, subscription, event);
            if let Rule::Filter(mismatch) = rule {
                item.path = Some(mismatch.path);
                item.wanted = Some(mismatch.wanted);
                item.found = Some(mismatch.found);
            }
        }
    }
    item
}

fn sentence(rule: &Rule, subscription: &Subscription, event: &Event) -> String {
    match rule {
        Rule::Tenant => format!("the event is of the tenant {}", event.tenant),
        Rule::Enabled(DisabledReason::Manual) => "it is disabled".to_owned(),
        Rule::Enabled(DisabledReason::Gone) => {
            "it was disabled when its endpoint answered 410".to_owned()
        }
        Rule::Enabled(DisabledReason::Failing) => {
            "it was disabled after failing for too long".to_owned()
        }
        Rule::EventTypes => {
            let globs = subscription
                .spec
                .event_types
                .iter()
                .map(|glob| format!("`{}`", glob.as_str()));
            let globs = globs.collect::<Vec<_>>().join(", ");
            format!(
                "its event types are {globs}, and the event's is `{}`",
                event.kind
            )
        }
        Rule::Filter(mismatch) => format!(
            "its filter wants {} at `{}`, where the event has {}",
            mismatch.wanted, mismatch.path, mismatch.found
        ),
        Rule::Alerts => "its filter matches the event, but none of the alerts by itself".to_owned(),
    }
}

/// What [`run`] is.
pub fn describe_run(schemas: &mut Schemas) -> Operation {
    let mut event = events::event();
    // The others stand in for themselves.
    event["required"] = json!(["type", "data"]);
    let about =
        "The event; `id`, `timestamp` and, where it is named beside, `tenant` may be left out.";
    let mut document = parts::document(json!({
        "tenant": parts::about(parts::scope(), "Whose subscriptions, beside those of every tenant; the event's tenant's when absent."),
        "cursor": parts::about(parts::subscription_id(), "The `next` of the answer before."),
    }));
    document["required"] = json!(["event"]);
    document["properties"]["event"] = parts::about(event, about);
    let asked = json!({ "event": events::example() });
    let answered = json!({
        "items": [{
            "description": "",
            "detail": "its filter wants \"high\" at `data.level`, where the event has absent",
            "found": "absent",
            "matches": false,
            "path": "data.level",
            "rule": "filter",
            "subscription_id": parts::SUBSCRIPTION,
            "tenant": "acme",
            "url": "https://hooks.example.com/carillon",
            "wanted": "\"high\"",
        }],
        "matched": 0,
        "next": null,
    });
    Operation::new("events", "explain", "Explain which subscriptions want an event")
        .about("Says for each subscription of the tenant whether it wants the event and, if not, which rule says no. Nothing is sent and nothing kept.")
        .takes(document, true, &[("an event", asked)])
        .refuses(&Code::OF_EVENTS)
        .refuses(&[Code::Forbidden, Code::Event(FaultReason::TooCostly)])
        .answers(200, "What each subscription says.", parts::of::<Explanation>(schemas), answered)
}
