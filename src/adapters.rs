//! The outside, behind the ports: storage, network, time, chance.
//!
//! Each adapter implements traits of `ports` and knows no other adapter.

pub mod https;
pub mod rabbitmq;
pub mod redis;
pub mod sqlite;
pub mod system;
