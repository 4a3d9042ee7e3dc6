//! RabbitMQ is short of memory and holds whoever publishes.

use super::arrivals::SUBSCRIPTIONS;
use super::dispatcher::{until, until_true};
use super::publisher::{Publisher, connect, events, ready_in};
use super::scene::{EVENTS, PREFETCH, Scene, start_redis, turn};
use crate::services::Broker;

/// A retry cannot be put to wait meanwhile, and holds its place in its endpoint's window until
/// it can. So few fail that no window fills up with them: about 20 of 32 places.
const FAILING: u64 = 250;
const BLOCKED: &str = "carillon_broker_blocked";

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_raised_and_cleared() {
    let _turn = turn().await;
    let (broker, redis) = tokio::join!(Broker::start(1), start_redis());
    let urls = broker.urls();
    let mut scene = Scene::new(&urls, &urls, &redis.url(), FAILING).await;
    let dispatcher = scene.begin().await;
    let again = Publisher::new(&urls).publish(&events(0..EVENTS)).await;
    let in_flight = dispatcher.metrics().await.in_flight();
    let watermark = |words: &'static [&'static str]| {
        let words = [&["set_vm_memory_high_watermark"], words].concat();
        let broker = &broker;
        async move { broker.ctl(1, &words).await }
    };
    watermark(&["absolute", "1"]).await;
    until("publishing to be held", async || {
        (dispatcher.metrics().await.value(BLOCKED) == 1).then_some(())
    })
    .await;

    // Deliveries go on, and are acknowledged: else no more than the prefetch would be taken.
    let connection = connect(&urls).await;
    let channel = connection.create_channel().await.unwrap();
    let waiting = ready_in(&channel, "carillon.events").await;
    let delivered = scene.endpoints.delivered();
    assert!(waiting > 4 * PREFETCH, "{waiting} events are left");
    let meanwhile = 2 * PREFETCH * SUBSCRIPTIONS;
    until_true("deliveries to go on", || {
        scene.endpoints.delivered() >= delivered + meanwhile
    })
    .await;
    until("events to be acknowledged", async || {
        let left = ready_in(&channel, "carillon.events").await;
        (left + 2 * PREFETCH <= waiting).then_some(())
    })
    .await;
    assert_eq!(dispatcher.metrics().await.value(BLOCKED), 1);

    let went_on = scene.endpoints.delivered() - delivered;
    watermark(&["0.6"]).await;
    until("publishing to go on", async || {
        (dispatcher.metrics().await.value(BLOCKED) == 0).then_some(())
    })
    .await;
    let count = scene.finish(dispatcher).await;
    let more = format!(
        "{again} published again; {went_on} delivered during the alarm; before it [{in_flight}]"
    );
    count.report("memory alarm", &more);
    // No connection is lost and nothing is unknown: nothing comes again.
    assert_eq!(count.duplicated, 0);
}
