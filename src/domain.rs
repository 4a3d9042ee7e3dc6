//! The facts and rules of webhook delivery, pure: no async, no clock, no randomness, no I/O.
//!
//! Time and chance come in as arguments, so that every rule here is a table test.
//! Depends on nothing else of the crate.

pub mod accounts;
pub mod address;
pub mod attempt;
pub mod circuit;
pub mod decide;
pub mod delivery;
pub mod event;
pub mod explain;
pub mod id;
pub mod json;
pub mod keys;
pub mod lane;
pub mod outcome;
pub mod pattern;
pub mod payload;
pub mod recent;
pub mod redelivery;
pub mod retry;
pub mod shares;
pub mod signature;
pub mod subscription;
pub mod target;
pub mod timestamp;
pub mod trace;
pub mod window;
