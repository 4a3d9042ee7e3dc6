//! Connecting: TLS with an authority of one's own, and sentences that help when it fails.

use std::time::{Duration, Instant};

use carillon::adapters::rabbitmq::{RabbitError, RabbitSettings, TopologyError};
use carillon::ports::Backend as _;
use carillon::telemetry::labels::Dependency;

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

    // Without it, and as a user with no permission, or too few.
    for name in ["nobody", "narrow"] {
        broker.ctl(1, &["add_user", name, "secret-of-mine"]).await;
    }
    let as_user = |name: &str| {
        let user = format!("{name}:secret-of-mine");
        place.settings_by(&broker.url(1).replace("guest:guest", &user))
    };
    let narrow = ["set_permissions", "narrow", "^nothing$", ".*", ".*"];
    broker.ctl(1, &narrow).await;
    let (no_authority, no_permission, refused) = tokio::join!(
        why_not_ready(&place, place.settings_by(&broker.tls_url())),
        why_not_ready(&place, as_user("nobody")),
        place.try_open(as_user("narrow")),
    );
    let (why, hint) = (no_authority, "broker.ca_file");
    assert!(why.contains("certificate") && why.contains(hint), "{why}");
    assert!(no_permission.contains("permissions"), "{no_permission}");
    // This one does not pass by waiting.
    let error = refused.map(|_| ()).unwrap_err();
    let told = error.to_string();
    let is_refusal = matches!(error, RabbitError::Topology(TopologyError::Refused { .. }));
    assert!(is_refusal && told.contains("configure"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_a_missing_virtual_host_are_told() {
    let place = Place::shared().await;
    let wrong = place.url.replacen(":guest@", ":not-this-one@", 1);
    let nowhere = place.url.replace("/%2f", "/nowhere");
    let (password, host) = tokio::join!(
        why_not_ready(&place, place.settings_by(&wrong)),
        why_not_ready(&place, place.settings_by(&nowhere)),
    );
    let hint = "check the user and the password in `broker.url`";
    assert!(password.contains(hint), "{password}");
    assert!(!password.contains("not-this-one"), "{password}");
    assert!(host.contains("virtual host in `broker.url`"), "{host}");
    let up = &place.telemetry.metrics().dependency_up;
    assert_eq!(up.get(Dependency::RabbitMq), 0);
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
