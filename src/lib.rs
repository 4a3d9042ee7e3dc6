//! Carillon: security events in, signed webhooks out.
#![warn(missing_docs)]

pub mod codec;
pub mod domain;
pub mod pipeline;
pub mod ports;
pub mod telemetry;
