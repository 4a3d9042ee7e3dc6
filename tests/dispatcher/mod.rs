//! What a dispatcher does, whatever it keeps everything in: started in this process, spoken
//! to over its HTTP API, watched by receivers on loopback. One module per topic.

pub mod collector;
pub mod harness;
pub mod hooks;

mod apply;
mod books;
mod conditional;
mod console;
mod declare;
mod deliveries;
mod delivery;
mod description;
mod dry_run;
mod explain;
mod formats;
mod hostile_input;
mod intake;
mod json;
mod lanes;
pub mod leaks;
mod neighbours;
mod ops;
pub mod pacing;
mod problems;
mod program;
pub mod quarantine;
mod records;
mod redeliver;
mod restart;
mod rotations;
mod rules;
mod secrets;
mod stores;
mod subscriptions;
mod tenants;
mod test_action;
mod traces;
