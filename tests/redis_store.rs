//! The Redis adapter on real servers: what is special about it, beside the contract that
//! every store keeps. Losing data, losing connections, hearing of what others change.

#[path = "support/services.rs"]
mod services;

#[path = "redis_store/changes.rs"]
mod changes;
#[path = "redis_store/forms.rs"]
mod forms;
#[path = "redis_store/harness.rs"]
mod harness;
#[path = "redis_store/load.rs"]
mod load;
#[path = "redis_store/losses.rs"]
mod losses;
#[path = "redis_store/marker.rs"]
mod marker;
#[path = "redis_store/outages.rs"]
mod outages;
#[path = "redis_store/rates.rs"]
mod rates;
