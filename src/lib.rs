//! Carillon: security events in, signed webhooks out.
#![warn(missing_docs)]

pub mod adapters;
pub mod api;
pub mod app;
pub mod cli;
pub mod codec;
pub mod config;
pub mod domain;
pub mod pipeline;
pub mod ports;
pub mod telemetry;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
