//! A cluster of three: a queue's leader goes away, and consuming goes on.

use std::collections::BTreeSet;

use carillon::ports::{Inbox as _, Outbox as _, Parcel};

use crate::harness::{PATIENCE, Place, event, number_of, until};
use crate::services::Broker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_on_when_their_leader_is_lost() {
    let broker = Broker::start(3).await;
    let place = Place::at(&broker.url(1));
    let rabbit = place.open_by(&broker.urls()).await;
    let mut seen = BTreeSet::new();
    for round in 0..2u32 {
        let numbers = round * 50..round * 50 + 50;
        let parcels: Vec<Parcel> = numbers.map(|n| Parcel::Event(event(n))).collect();
        // A confirm that the leader took with it is given up after a while.
        until("it is put", 4 * PATIENCE, async || {
            let put = rabbit.put(parcels.clone()).await;
            put.inspect_err(|error| eprintln!("round {round}: {error}"))
                .is_ok()
        })
        .await;
        let take = async {
            while seen.len() < 50 * (round as usize + 1) {
                for taken in rabbit.events(50).await.unwrap() {
                    seen.insert(number_of(&taken));
                    taken.receipt.ack();
                }
            }
        };
        let in_time = tokio::time::timeout(2 * PATIENCE, take).await.is_ok();
        assert!(in_time, "{} came", seen.len());
        if round == 0 {
            broker.whole(&place.name("events")).await;
            let leader = broker.leader_of(&place.name("events")).await;
            broker.kill(leader).await;
        }
    }
}
