//! For tests of commands: what one asks the API.

use clap::Parser as _;

use super::receiver::{Behaviour, Received, Receiver, ReceiverSettings, Reply, channel};
use super::{Cli, CliError, Command};

/// Runs `carillon <line>` against an API that answers by `script`: what it was asked, and how the
/// command ended.
pub async fn asked(
    line: &str,
    script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
) -> (Vec<Received>, Result<(), CliError>) {
    // Whoever comes first installs it; it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (observer, mut seen) = channel();
    let api = Receiver::start(ReceiverSettings {
        behaviour: Behaviour::scripted(script),
        observer: Some(observer),
        ..ReceiverSettings::default()
    });
    let api = api.await.unwrap();
    let line = format!("carillon --api {} {line}", api.url());
    let Cli { globals, command } = Cli::try_parse_from(line.split(' ')).unwrap();
    let ended = match command {
        Command::DeadLetters(args) => super::dead_letters::run(args, &globals).await,
        Command::Deliveries(args) => super::deliveries::run(args, &globals).await,
        Command::Quarantine(args) => super::quarantine::run(args, &globals).await,
        Command::Subscriptions(args) => super::subscriptions::run(args, &globals).await,
        Command::Tokens(args) => super::tokens::run(args, &globals).await,
        other => panic!("another command: {other:?}"),
    };
    api.stop().await;
    let requests = std::iter::from_fn(|| seen.try_recv().ok());
    (requests.collect(), ended)
}
