//! The dispatcher on RabbitMQ and Redis under faults: what was published is delivered, and
//! only what was in flight at a fault is delivered twice.
//!
//! Those of redriving and of the audit log are on a file too. Each test has servers of its own, runs the real
//! program, and counts at receivers in this process. Each prints what it counted.

// A test that cannot go on is to end, in what it shares with others too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/process.rs"]
mod process;
#[path = "support/services.rs"]
mod services;

mod faults {
    mod arrivals;
    mod dispatcher;
    mod publisher;
    mod scene;

    mod alarm;
    mod audit;
    mod broker;
    mod fan_out;
    mod kills;
    mod network;
    mod poison;
    mod redis;
    mod redrive;
    mod replicas;
}
