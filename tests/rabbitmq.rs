//! The RabbitMQ adapter on real servers: what is special about it, beside the contract that
//! every store keeps. The topology, what messages look like to others, losing queues and
//! connections, alarms, and reading through queues that have no index.

#[path = "support/services.rs"]
mod services;

#[path = "rabbitmq/alarm.rs"]
mod alarm;
#[path = "rabbitmq/cluster.rs"]
mod cluster;
#[path = "rabbitmq/connecting.rs"]
mod connecting;
#[path = "rabbitmq/harness.rs"]
mod harness;
#[path = "rabbitmq/messages.rs"]
mod messages;
#[path = "rabbitmq/outages.rs"]
mod outages;
#[path = "rabbitmq/plain.rs"]
mod plain;
#[path = "rabbitmq/quarantine.rs"]
mod quarantine;
#[path = "rabbitmq/reading.rs"]
mod reading;
#[path = "rabbitmq/refusals.rs"]
mod refusals;
#[path = "rabbitmq/sharing.rs"]
mod sharing;
#[path = "rabbitmq/silence.rs"]
mod silence;
#[path = "rabbitmq/topology.rs"]
mod topology;
#[path = "rabbitmq/waits.rs"]
mod waits;
