//! The transport against real sockets: endpoints that behave, and all the ways in which
//! they do not. Everything listens on loopback, which the rules permit where a test says
//! so; a test waits only as long as a limit that it set itself.

// A test that cannot go on is to end, in what it shares with others too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/memory.rs"]
mod memory;
#[path = "support/until.rs"]
mod until;

#[path = "transport/answers.rs"]
mod answers;
#[path = "transport/blocked.rs"]
mod blocked;
#[path = "transport/bodies.rs"]
mod bodies;
#[path = "transport/certificates.rs"]
mod certificates;
#[path = "transport/detours.rs"]
mod detours;
#[path = "transport/endpoints.rs"]
mod endpoints;
#[path = "transport/frames.rs"]
mod frames;
#[path = "transport/harness.rs"]
mod harness;
#[path = "transport/heads.rs"]
mod heads;
#[path = "transport/http2.rs"]
mod http2;
#[path = "transport/name_server.rs"]
mod name_server;
#[path = "transport/names.rs"]
mod names;
#[path = "transport/rebinding.rs"]
mod rebinding;
#[path = "transport/tls.rs"]
mod tls;
#[path = "transport/watched.rs"]
mod watched;
