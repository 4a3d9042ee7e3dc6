//! Notices: what Carillon tells the platform around it, as JSON.

use serde_json::{Value, json};

use crate::domain::delivery::DeadLetter;
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::subscription::DisabledReason;
use crate::domain::timestamp::UnixMillis;
use crate::ports::Notice;

/// `delivery.dead_lettered`: which delivery was given up, and why.
pub fn dead_lettered(letter: &DeadLetter) -> Notice {
    let delivery = &letter.delivery;
    let event = &delivery.event;
    let data = json!({
        "delivery": delivery.id.as_str(),
        "subscription": delivery.subscription.as_str(),
        "tenant": event.tenant.as_str(),
        "event_id": event.id.as_str(),
        "event_type": event.kind.as_str(),
        "reason": letter.reason.code(),
        "attempts": delivery.attempts,
        "last_status": delivery.last.and_then(|last| last.status),
        "last_reason": delivery.last.map(|last| last.reason.code()),
    });
    notice("delivery.dead_lettered", letter.dead_at, &data)
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
