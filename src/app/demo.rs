//! `carillon demo`: the main job at work on one machine, with receivers of its own.
//!
//! Starts an embedded Carillon in a temporary directory, receivers that behave well and
//! badly, and one subscription for each; publishes events of every type, shows what
//! happens as it happens, checks every signature on arrival, and ends with sums that
//! must add up: what Carillon counted against what the receivers saw.

mod cast;
mod events;
mod screen;
mod sums;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::Carillon;
use crate::cli::receiver::{Behaviour, Observer, Receiver, ReceiverSettings, TlsIdentity};
use crate::config::Config;
use crate::domain::signature::VerificationKey;

use cast::{Cast, PARTS, Part};
use screen::Screen;
use sums::Sums;

/// When the demo gives up waiting for everything to settle.
const SETTLED_WITHIN: Duration = Duration::from_secs(25);
/// How often it looks whether everything is settled.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The account of the demo.
pub const TENANT: &str = "acme";

/// Runs the demo; with `keep` it goes on serving until Ctrl-C.
///
/// # Errors
/// What could not be started, or which sum does not add up.
pub async fn demo(keep: bool) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("carillon-demo-")
        .tempdir()
        .context("a temporary directory is needed")?;
    let (tls, authority) = TlsIdentity::self_signed(["127.0.0.1"])?;
    let ca_file = folder.path().join("demo-ca.pem");
    std::fs::write(&ca_file, crate::cli::listen::pem(&authority))
        .context("the demo's certificate")?;

    let cast = Arc::new(Cast::default());
    let screen = Screen::start();
    let (plain, secure) = receivers(&cast, &screen, tls).await?;
    let carillon = Carillon::start(&config(folder.path(), &ca_file, keep)).await?;
    let api = Api::new(&carillon);
    screen.say(&format!(
        "Carillon runs embedded, its API at {}. {} receivers listen.",
        api.base,
        PARTS.len()
    ));
    subscribe(&api, &cast, &screen, &plain.url(), &secure.url()).await?;
    show_test_actions(&api, &cast, &screen).await?;
    let published = publish(&api, &screen).await?;
    wait_until_settled(&api, published).await?;
    screen.finish();
    let sums = Sums::collect(&api, &cast, published).await?;
    print!("{sums}");
    sums.check()?;
    if keep {
        look_around(&api, &carillon).await?;
    }
    carillon.stop().await;
    plain.stop().await;
    secure.stop().await;
    Ok(())
}

fn config(folder: &Path, ca_file: &Path, keep: bool) -> Config {
    let mut config = Config::default();
    config.embedded.path = folder.join("carillon.db");
    config.egress.allow = vec![ipnet::IpNet::from(std::net::IpAddr::from([127, 0, 0, 1]))];
    config.egress.ca_file = Some(ca_file.to_owned());
    config.audit.per_subscription = 1000;
    // Where it goes on serving, it is found at the usual place; else any free port does.
    if !keep {
        config.http.listen.set_port(0);
    }
    config.ops.listen.set_port(0);
    config
}

/// One receiver for plain HTTP and one for HTTPS; paths tell the parts apart.
async fn receivers(
    cast: &Arc<Cast>,
    screen: &Screen,
    tls: TlsIdentity,
) -> anyhow::Result<(Receiver, Receiver)> {
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let observer: Observer = Arc::new(move |received, reply| {
        // Nobody looks any more only after the end.
        let _ = sender.send((received, reply.status));
    });
    let settings = |tls| {
        let cast = Arc::clone(cast);
        ReceiverSettings {
            tls,
            behaviour: Behaviour::scripted(move |received| cast.answer(received)),
            observer: Some(observer.clone()),
            ..ReceiverSettings::default()
        }
    };
    let plain = Receiver::start(settings(None)).await?;
    let secure = Receiver::start(settings(Some(tls))).await?;
    let (cast, screen) = (Arc::clone(cast), screen.clone());
    tokio::spawn(async move {
        while let Some((received, answer)) = seen.recv().await {
            if let Some(line) = cast.note(&received, answer) {
                screen.received(&line, &cast.table());
            }
        }
    });
    Ok((plain, secure))
}

async fn subscribe(
    api: &Api,
    cast: &Cast,
    screen: &Screen,
    plain: &str,
    secure: &str,
) -> anyhow::Result<()> {
    for part in PARTS {
        let base = if part.https() { secure } else { plain };
        let mut document = part.document();
        document["tenant"] = TENANT.into();
        document["url"] = format!("{base}/{}", part.name()).into();
        document["description"] = part.what().into();
        let created = api.post("/v1/subscriptions", &document).await?;
        let text = |pointer: &str| created.pointer(pointer).and_then(Value::as_str);
        let id = text("/id").context("a subscription has an id")?;
        let secret = text("/secret/whsec").or_else(|| text("/secret/public_key"));
        let key = secret.and_then(VerificationKey::parse);
        cast.subscribed(*part, id, key.context("a subscription has a secret")?);
        screen.say(&format!(
            "  subscription {:<9} {}",
            part.name(),
            part.what()
        ));
    }
    Ok(())
}

/// Two Test actions: one that arrives, and one at an address that is refused.
async fn show_test_actions(api: &Api, cast: &Cast, screen: &Screen) -> anyhow::Result<()> {
    let id = cast.id_of(Part::Steady).context("steady is subscribed")?;
    let tested = api
        .post(&format!("/v1/subscriptions/{id}/test"), &json!({}))
        .await?;
    ensure!(
        tested["outcome"] == "delivered",
        "the Test action failed: {tested}"
    );
    let private = json!({
        "tenant": TENANT, "url": "http://10.0.0.1/hook", "event_types": ["never"],
        "description": "a private address, to show that it is refused",
    });
    let created = api.post("/v1/subscriptions", &private).await?;
    let id = created["id"].as_str().unwrap_or_default().to_owned();
    let refused = api
        .post(&format!("/v1/subscriptions/{id}/test"), &json!({}))
        .await?;
    ensure!(
        refused["reason"] == "blocked_address",
        "a private address was not refused: {refused}"
    );
    screen
        .say("  Test action on steady: delivered; on http://10.0.0.1/: refused (blocked_address)");
    Ok(())
}

/// Publishes everything; returns how many events were accepted.
async fn publish(api: &Api, screen: &Screen) -> anyhow::Result<u64> {
    let mut published = 0;
    let batches = events::batches();
    for batch in &batches {
        let answer = api.post("/v1/events", &json!(batch)).await?;
        published += answer["accepted"].as_u64().unwrap_or(0);
    }
    let refused = api.try_post("/v1/events", &events::invalid()).await?;
    ensure!(
        refused.0 == 422,
        "an invalid event was not refused: {}",
        refused.1
    );
    screen.say(&format!(
        "Published {published} events; one more was refused: {}",
        refused.1["detail"].as_str().unwrap_or_default()
    ));
    Ok(published)
}

async fn wait_until_settled(api: &Api, published: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        if sums::is_settled(&api.metrics().await?, published) {
            return Ok(());
        }
        if begun.elapsed() > SETTLED_WITHIN {
            bail!("not everything was settled within {SETTLED_WITHIN:?}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look_around(api: &Api, carillon: &Carillon) -> anyhow::Result<()> {
    let base = &api.base;
    println!(
        "
Carillon goes on serving. Open {base}/ in a browser, or in another terminal:
  carillon subscriptions list
  carillon attempts list --outcome failed
  carillon dead-letters list
  curl {base}/v1/attempts?limit=1
  curl http://{}/metrics
Ctrl-C ends it.",
        carillon.ops_addr()
    );
    tokio::signal::ctrl_c()
        .await
        .context("signals cannot be received")
}

/// The demo talks to Carillon as everybody does: by HTTP.
pub struct Api {
    base: String,
    ops: String,
    client: reqwest::Client,
}

impl Api {
    fn new(carillon: &Carillon) -> Self {
        Self {
            base: format!("http://{}", carillon.api_addr()),
            ops: format!("http://{}", carillon.ops_addr()),
            client: reqwest::Client::new(),
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self
            .client
            .get(format!("{}{path}", self.base))
            .send()
            .await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    async fn post(&self, path: &str, document: &Value) -> anyhow::Result<Value> {
        let (status, answer) = self.try_post(path, document).await?;
        ensure!(
            (200..300).contains(&status),
            "{path} answered {status}: {answer}"
        );
        Ok(answer)
    }

    async fn try_post(&self, path: &str, document: &Value) -> anyhow::Result<(u16, Value)> {
        let url = format!("{}{path}", self.base);
        let answer = self.client.post(url).json(document).send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    async fn metrics(&self) -> anyhow::Result<String> {
        let url = format!("{}/metrics", self.ops);
        Ok(self.client.get(url).send().await?.text().await?)
    }
}
