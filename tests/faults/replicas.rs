//! A second replica joins, and the first one leaves: no fault at all.

use super::dispatcher::until;
use super::scene::{FAILING, Scene, start_redis, turn};
use crate::services::Broker;

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_joins_and_the_first_one_leaves() {
    let _turn = turn().await;
    let (broker, redis) = tokio::join!(Broker::start(1), start_redis());
    let mut scene = Scene::new(&broker.urls(), &broker.urls(), &redis.url(), FAILING).await;
    let first = scene.begin().await;
    let publishing = scene.publish();
    scene.delivered(0.25).await;
    let second = scene.dispatcher().await;
    until("the second to take its part", async || {
        let in_flight = second.metrics().await.in_flight();
        (in_flight.requests > 0).then_some(())
    })
    .await;
    scene.delivered(0.6).await;
    let (ours, theirs) = (first.metrics().await, second.metrics().await);
    let status = first.terminate().await;
    assert!(status.success(), "the first one ended with {status}");
    let again = publishing.await.unwrap();
    scene.balanced(&second).await;
    let count = scene.finish(second).await;
    let more = format!(
        "{again} published again; before the SIGTERM [{}], beside it [{}]",
        ours.in_flight(),
        theirs.in_flight()
    );
    count.report("a replica joins, the first leaves", &more);
    assert_eq!(count.duplicated, 0);
}
