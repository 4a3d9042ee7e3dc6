//! Notices: what Carillon tells the platform around it, as JSON.

use serde_json::{Value, json};

use crate::domain::delivery::DeadLetter;
use crate::domain::id::{DeliveryId, SubscriptionId, TenantId};
use crate::domain::subscription::DisabledReason;
use crate::domain::timestamp::UnixMillis;
use crate::ports::Notice;

/// `delivery.dead_lettered`: which delivery was given up, and why.
pub fn dead_lettered(letter: &DeadLetter) -> Notice {
    let data = about(letter);
    notice("delivery.dead_lettered", letter.dead_at, &data)
}

/// `delivery.discarded`: which dead letter a person discarded, and why it was one. Of one that
/// could not be read there is only the id.
pub fn discarded(id: &DeliveryId, letter: Option<&DeadLetter>, at: UnixMillis) -> Notice {
    let data = match letter {
        Some(letter) => about(letter),
        None => json!({ "delivery": id.as_str() }),
    };
    notice("delivery.discarded", at, &data)
}

fn about(letter: &DeadLetter) -> Value {
    let delivery = &letter.delivery;
    let event = &delivery.event;
    json!({
        "delivery": delivery.id.as_str(),
        "subscription": delivery.subscription.as_str(),
        "tenant": event.tenant.as_str(),
        "event_id": event.id.as_str(),
        "event_type": event.kind.as_str(),
        "reason": letter.reason.code(),
        "attempts": delivery.attempts,
        "last_status": delivery.last.and_then(|last| last.status),
        "last_reason": delivery.last.map(|last| last.reason.code()),
    })
}

/// `subscription.disabled`: which one Carillon disabled, and why. `tenant` is that of the
/// event that showed it.
pub fn disabled(
    tenant: &TenantId,
    subscription: &SubscriptionId,
    reason: DisabledReason,
    at: UnixMillis,
) -> Notice {
    let data = json!({
        "subscription": subscription.as_str(),
        "tenant": tenant.as_str(),
        "reason": reason.name(),
    });
    notice("subscription.disabled", at, &data)
}

fn notice(kind: &'static str, at: UnixMillis, data: &Value) -> Notice {
    let body = json!({"type": kind, "timestamp": at.to_string(), "data": data});
    Notice {
        kind,
        body: body.to_string().into(),
    }
}
