//! `carillon doctor`, the program itself: what it finds in a file and on real servers, what it says
//! of it, and that it leaves everything as it was.

// A test that cannot go on is to end, in what it shares with others too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/process.rs"]
mod process;
#[path = "dispatcher/program.rs"]
mod program;
#[path = "support/services.rs"]
mod services;
#[path = "support/until.rs"]
mod until;

#[path = "doctor/file.rs"]
mod file;
#[path = "doctor/harness.rs"]
mod harness;
#[path = "doctor/servers.rs"]
mod servers;
