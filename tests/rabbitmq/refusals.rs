//! RabbitMQ refuses what is put: it is tried again by another channel, in case this one is at
//! fault.

use std::time::Duration;

use carillon::ports::{Outbox as _, StoreError};

use crate::harness::{PATIENCE, Place, delivery, due_now, until};
use crate::services::Broker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_long_goes_by_another_connection() {
    let broker = Broker::start(1).await;
    let place = Place::at(&broker.url(1));
    let rabbit = place.open().await;
    rabbit.put(vec![due_now(delivery(0))]).await.unwrap();
    let before = connections(&broker).await;
    let full = format!("{}-full", place.prefix);
    let pattern = format!("^{}$", place.name("deliveries"));
    let one = r#"{"max-length": 1, "overflow": "reject-publish"}"#;
    let words = ["set_policy", "--apply-to", "queues", &full, &pattern, one];
    broker.ctl(1, &words).await;
    let mut refused = 0;
    until("another connection", PATIENCE, async || {
        let put = rabbit.put(vec![due_now(delivery(1))]).await;
        refused += u32::from(matches!(put, Err(StoreError::Unavailable(_))));
        tokio::time::sleep(Duration::from_millis(200)).await;
        refused > 0
            && connections(&broker)
                .await
                .iter()
                .any(|one| !before.contains(one))
    })
    .await;
    broker.ctl(1, &["clear_policy", &full]).await;
    until("it is taken again", PATIENCE, async || {
        rabbit.put(vec![due_now(delivery(2))]).await.is_ok()
    })
    .await;
}

/// The client's side of each connection.
async fn connections(broker: &Broker) -> Vec<String> {
    let listed = broker.ctl(1, &["list_connections", "peer_port"]).await;
    listed.lines().map(str::to_owned).collect()
}
