//! The messages of `proto/carillon/v1`, generated at build time.

#![allow(missing_docs, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/carillon.v1.rs"));
