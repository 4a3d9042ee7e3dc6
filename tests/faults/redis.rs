//! Redis is restarted, and loses everything.

use serde_json::{Value, json};

use super::arrivals::SUBSCRIPTIONS;
use super::dispatcher::{Dispatcher, until};
use super::scene::{FAILING, Scene, start_redis, turn};
use crate::services::Broker;

#[tokio::test(flavor = "multi_thread")]
async fn redis_restarted_then_flushed_and_restored() {
    let _turn = turn().await;
    let (broker, redis) = tokio::join!(Broker::start(1), start_redis());
    let mut scene = Scene::new(&broker.urls(), &broker.urls(), &redis.url(), FAILING).await;
    let dispatcher = scene.begin().await;
    let publishing = scene.publish();
    let mut told = Vec::new();
    scene.delivered(0.2).await;
    told.push(format!("[{}]", dispatcher.metrics().await.in_flight()));
    redis.restart().await;
    scene.delivered(0.4).await;
    let backup = backup(&scene, &dispatcher);
    told.push(format!("[{}]", dispatcher.metrics().await.in_flight()));
    assert_eq!(redis.cli(&["flushall"]).await, "OK");
    until("the loss to be noticed", async || {
        (dispatcher.readiness().await? == 503).then_some(())
    })
    .await;
    // Who is known goes on being served.
    scene.delivered(0.65).await;
    let status = dispatcher.terminate().await;
    assert!(status.success(), "the dispatcher ended with {status}");

    // One that knows nobody takes events and waits with them.
    let delivered = scene.endpoints.delivered();
    let dispatcher = scene.start();
    until("events to wait", async || {
        let taken = dispatcher.try_metrics().await?.in_flight().events;
        (taken > 0 && dispatcher.readiness().await? == 503).then_some(())
    })
    .await;
    assert_eq!(scene.endpoints.delivered(), delivered);
    assert!(!publishing.is_finished(), "events are published meanwhile");
    apply(&scene, &dispatcher, &backup);
    dispatcher.ready().await;
    let again = publishing.await.unwrap();
    let count = scene.finish(dispatcher).await;
    let more = format!(
        "{again} published again; before the restart and the flush {}",
        told.join(" ")
    );
    count.report("Redis restarted, flushed, restored", &more);
    // RabbitMQ was there all the time, so nothing came again that the ledger had forgotten.
    assert_eq!(count.duplicated, 0);
}

/// What `subscriptions list` says, with the secrets that only we know.
fn backup(scene: &Scene, dispatcher: &Dispatcher) -> Value {
    let args = ["subscriptions", "list", "--json"];
    let listed = carillon(scene, dispatcher, &args);
    let mut items = listed["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), SUBSCRIPTIONS);
    for item in &mut items {
        let declared = scene.endpoints.declared();
        let same = declared.iter().find(|one| one["id"] == item["id"]);
        item["secret"] = same.unwrap()["secret"].clone();
    }
    json!({ "items": items })
}

fn apply(scene: &Scene, dispatcher: &Dispatcher, backup: &Value) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), backup.to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    let args = ["subscriptions", "apply", "--json", "-f", path];
    let applied = carillon(scene, dispatcher, &args);
    assert_eq!(applied["created"], SUBSCRIPTIONS);
}

fn carillon(scene: &Scene, dispatcher: &Dispatcher, args: &[&str]) -> Value {
    let output = scene
        .command()
        .args(args)
        .args(["--api", dispatcher.api()])
        .output();
    let output = output.unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    serde_json::from_slice(&output.stdout).unwrap()
}
