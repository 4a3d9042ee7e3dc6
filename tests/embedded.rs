//! The running dispatcher, end to end: started in this process on a SQLite file of its own,
//! spoken to over its HTTP API, watched by receivers on loopback. One module per topic.

// A test that cannot go on is to end, in what it shares with others too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod embedded {
    mod harness;
    mod hooks;

    mod apply;
    mod declare;
    mod delivery;
    mod formats;
    mod intake;
    mod neighbours;
    mod ops;
    mod pacing;
    mod problems;
    mod quarantine;
    mod records;
    mod restart;
    mod rules;
    mod secrets;
    mod subscriptions;
    mod test_action;
}
