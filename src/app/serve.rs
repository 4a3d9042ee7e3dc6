//! `carillon serve`: runs until it is told to stop, then drains.

use std::path::Path;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Carillon;
use crate::config::{self, Config, LogForm};
use crate::telemetry::log::{self, LogFormat};

/// Runs the dispatcher that the file and the environment describe.
///
/// # Errors
/// What is wrong with the configuration, or what could not be started.
pub async fn serve(file: Option<&Path>) -> anyhow::Result<()> {
    let loaded = Config::load(file, config::environment())?;
    start_log(&loaded.config);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let mut terminate = listen_for(SignalKind::terminate())?;
    let carillon = Carillon::start(&loaded.config).await?;
    tracing::info!(
        api = %format!("http://{}", carillon.api_addr()),
        ops = %format!("http://{}", carillon.ops_addr()),
        store = %store(&loaded.config),
        version = env!("CARGO_PKG_VERSION"),
        "carillon is serving"
    );
    wait(&mut interrupt, &mut terminate).await;
    tracing::info!(
        grace_s = loaded.config.shutdown.grace.as_secs(),
        "draining: requests in flight end, the rest stays in its queue"
    );
    tokio::select! {
        ended = carillon.stop() => {
            if ended {
                tracing::info!("drained");
            } else {
                tracing::warn!("some requests did not end in time; they are sent again after the next start");
            }
            Ok(())
        }
        () = wait(&mut interrupt, &mut terminate) => {
            anyhow::bail!("stopped at once by a second signal; what was in flight is sent again after the next start")
        }
    }
}

/// Where everything is kept, for the log.
fn store(config: &Config) -> String {
    if config.is_embedded() {
        return config.embedded.path.display().to_string();
    }
    let (broker, redis) = (&config.broker.prefix, &config.redis.prefix);
    format!("RabbitMQ (prefix {broker}) and Redis (prefix {redis})")
}

fn start_log(config: &Config) {
    let format = match config.telemetry.log {
        Some(LogForm::Text) => LogFormat::Text,
        Some(LogForm::Json) => LogFormat::Json,
        None => LogFormat::for_stderr(),
    };
    log::start(format, "info,hyper=warn,h2=warn,lapin=off");
}

fn listen_for(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("signals cannot be received")
}

async fn wait(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
