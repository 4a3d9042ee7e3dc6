//! RabbitMQ is stopped, crashes, and loses the node that leads the queue of events.

use super::dispatcher::{Dispatcher, until};
use super::scene::{Count, FAILING, Scene, WINDOWS, start_redis, turn};
use crate::services::Broker;

/// What may arrive twice because a connection to RabbitMQ was lost, while the dispatcher and the
/// ledger live.
///
/// What was taken and not settled comes again, and so does what was being put to wait, for
/// whether it was taken is unknown. But an event waits for itself and then finds its
/// subscriptions in the ledger, and so does a due delivery. This leaves what the ledger could
/// not be told in time, which a busy machine brings about: what holds a permit then.
const PER_LOST_CONNECTION: usize = WINDOWS;

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_stopped_and_started() {
    let _turn = turn().await;
    let (broker, redis) = tokio::join!(Broker::start(1), start_redis());
    let mut scene = Scene::new(&broker.urls(), &broker.urls(), &redis.url(), FAILING).await;
    let dispatcher = scene.begin().await;
    let publishing = scene.publish();
    scene.delivered(0.3).await;
    let stopped = dispatcher.metrics().await.in_flight();
    broker.stop(1).await;
    is_down(&dispatcher).await;
    broker.start_node(1).await;
    scene.delivered(0.6).await;
    let killed = dispatcher.metrics().await.in_flight();
    broker.kill(1).await;
    is_down(&dispatcher).await;
    broker.start_node(1).await;
    let again = publishing.await.unwrap();
    let count = scene.finish(dispatcher).await;
    let more =
        format!("{again} published again; before the stop [{stopped}], the crash [{killed}]");
    count.report("RabbitMQ stopped, then killed", &more);
    assert_few(&count, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_a_cluster_killed() {
    let _turn = turn().await;
    let (broker, redis) = tokio::join!(Broker::start(3), start_redis());
    let mut scene = Scene::new(&broker.urls(), &broker.urls(), &redis.url(), FAILING).await;
    let dispatcher = scene.begin().await;
    let publishing = scene.publish();
    scene.delivered(0.3).await;
    broker.whole("carillon.events").await;
    let leader = broker.leader_of("carillon.events").await;
    let in_flight = dispatcher.metrics().await.in_flight();
    broker.kill(leader).await;
    // The two that are left do it all without it, also what was just being handed on.
    let again = publishing.await.unwrap();
    scene.delivered(1.0).await;
    broker.start_node(leader).await;
    let count = scene.finish(dispatcher).await;
    let more = format!("{again} published again; before the crash [{in_flight}]");
    count.report("leader of three killed", &more);
    // The connections to it are lost; one to another node may be closed when a queue that it
    // speaks to has no leader.
    assert_few(&count, 2);
}

async fn is_down(dispatcher: &Dispatcher) {
    let down = "carillon_dependency_up{name=\"rabbitmq\"}";
    until("the loss to be noticed", async || {
        (dispatcher.try_metrics().await?.value(down) == 0).then_some(())
    })
    .await;
    assert_eq!(dispatcher.readiness().await, Some(503));
}

fn assert_few(count: &Count, lost_connections: usize) {
    let most = lost_connections * PER_LOST_CONNECTION;
    assert!(count.duplicated <= most, "{} of {most}", count.duplicated);
}
