//! A delivery that decodes is encoded again to one that decodes equal, and whatever it holds, it
//! can be moved on: attempted, deferred, redriven, known to the ledger.
//!
//! Input: the bytes of a message `carillon.v1.Delivery`.
#![no_main]

use bytes::Bytes;
use carillon::codec::delivery::{decode, encode};
use carillon::domain::delivery::{Delivery, LastAttempt};
use carillon::domain::outcome::Failure;
use carillon::domain::timestamp::UnixMillis;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(delivery) = decode(&Bytes::copy_from_slice(input)) else {
        return;
    };
    comes_back_as_it_went(&delivery);
    let last = LastAttempt {
        status: Some(503),
        reason: Failure::Timeout.reason(),
    };
    let attempted = delivery.clone().attempted(UnixMillis(7), last);
    assert_ne!(attempted.wait_key(), delivery.wait_key());
    for moved in [attempted, delivery.clone().moved(), delivery.redriven()] {
        let _ = moved.settles();
        comes_back_as_it_went(&moved);
    }
});

fn comes_back_as_it_went(delivery: &Delivery) {
    let encoded = Bytes::from(encode(delivery));
    let back = decode(&encoded).expect("what was encoded decodes");
    assert_eq!(format!("{back:?}"), format!("{delivery:?}"));
    assert_eq!(encode(&back), encoded);
    assert_eq!(back.wait_key(), delivery.wait_key());
    assert_eq!(back.settles(), delivery.settles());
}
