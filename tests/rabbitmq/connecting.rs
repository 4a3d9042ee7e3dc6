//! Connecting: TLS with an authority of one's own, and sentences that help when it fails.

use std::time::{Duration, Instant};

use carillon::adapters::rabbitmq::{RabbitError, RabbitSettings, TopologyError};
use carillon::ports::Backend as _;

use crate::harness::{Place, put_events, take_events};
use crate::services::Broker;

/// Opens where it cannot work; returns what `ready` says.
async fn why_not_ready(place: &Place, settings: RabbitSettings) -> String {
    let begun = Instant::now();
    let rabbit = place.open_with(settings).await;
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    rabbit.ready().await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_needs_the_authority() {
    let (broker, authority) = Broker::start_tls().await;
    let place = Place::at(&broker.url(1));
    let trusting = RabbitSettings {
        ca_file: Some(authority),
        ..place.settings_by(&broker.tls_url())
    };
    let rabbit = place.open_with(trusting).await;
    rabbit.ready().await.unwrap();
    put_events(&rabbit, 0..10).await;
    assert_eq!(take_events(&rabbit, 10).await.len(), 10);

    let why = why_not_ready(&place, place.settings_by(&broker.tls_url())).await;
    assert!(why.contains("certificate"), "{why}");
    assert!(why.contains("broker.ca_file"), "what to do? {why}");

    // Without a permission: what is missing is said at once.
    broker
        .ctl(1, &["add_user", "narrow", "secret-of-narrow"])
        .await;
    let url = broker
        .url(1)
        .replace("guest:guest", "narrow:secret-of-narrow");
    let why = why_not_ready(&place, place.settings_by(&url)).await;
    assert!(why.contains("permissions"), "{why}");
    broker
        .ctl(1, &["set_permissions", "narrow", "^nothing$", ".*", ".*"])
        .await;
    let refused = place.try_open(place.settings_by(&url)).await.map(|_| ());
    let error = refused.unwrap_err();
    let told = error.to_string();
    assert!(told.contains("configure"), "{told}");
    let is_refusal = matches!(error, RabbitError::Topology(TopologyError::Refused { .. }));
    assert!(is_refusal, "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told() {
    let place = Place::shared().await;
    let url = place.url.replacen(":guest@", ":not-this-one@", 1);
    let why = why_not_ready(&place, place.settings_by(&url)).await;
    assert!(
        why.contains("check the user and the password in `broker.url`"),
        "{why}"
    );
    assert!(!why.contains("not-this-one"), "{why}");
    let up = &place.telemetry.metrics().dependency_up;
    assert_eq!(up.with_label_values(&["rabbitmq"]).get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_virtual_host_is_told() {
    let place = Place::shared().await;
    let url = place.url.replace("/%2f", "/nowhere");
    let why = why_not_ready(&place, place.settings_by(&url)).await;
    assert!(why.contains("virtual host"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_is_none_is_refused_without_its_password() {
    let place = Place::shared().await;
    for url in [
        "http://me:pass-word@host",
        "amqp://me:pass-word@host:port",
        "nonsense",
    ] {
        let refused = place.try_open(place.settings_by(url)).await.map(|_| ());
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("broker.url"), "{told}");
        assert!(!told.contains("pass-word"), "{told}");
    }
    let missing = RabbitSettings {
        ca_file: Some("/no/such/file.pem".into()),
        ..place.settings()
    };
    let refused = place.try_open(missing).await.map(|_| ());
    assert!(matches!(refused, Err(RabbitError::CaFile { .. })));
}

/// The next node is tried when one does not answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_nodes_one_that_answers_is_found() {
    let place = Place::shared().await;
    let urls = format!("amqp://guest:guest@127.0.0.1:1/%2f,{}", place.url);
    for _ in 0..4 {
        let rabbit = place.open_by(&urls).await;
        rabbit.ready().await.unwrap();
    }
}
