//! The `carillon` command: arguments in, exit code out.

use std::path::Path;
use std::process::ExitCode;

use carillon::app;
use carillon::cli::{self, Cli, Command};
use carillon::config::{self, Config};
use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // reqwest panics without a provider; a second install can only be of the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("carillon: the runtime cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(cli));
    // What still blocks a thread by now (a name look-up, say) holds nothing durable.
    runtime.shutdown_background();
    code
}

async fn run(cli: Cli) -> ExitCode {
    let globals = &cli.globals;
    let file = globals.config.as_deref();
    let result = match cli.command {
        Command::Init(_) => return finish(init(file).await),
        Command::Serve(_) => return finish(app::serve::serve(file).await),
        Command::Demo(args) => return finish(app::demo::demo(args.keep).await),
        Command::Config(args) => return finish(show_config(args.action, file)),
        Command::Listen(args) => cli::listen::run(args, globals).await,
        Command::Publish(args) => cli::publish::run(args, globals).await,
        Command::Subscriptions(args) => cli::subscriptions::run(args, globals).await,
        Command::Attempts(args) => cli::attempts::run(args, globals).await,
        Command::Deliveries(args) => cli::deliveries::run(args, globals).await,
        Command::Explain(args) => cli::explain::run(args, globals).await,
        Command::Quarantine(args) => cli::quarantine::run(args, globals).await,
        Command::DeadLetters(args) => cli::dead_letters::run(args, globals).await,
        Command::Secrets(args) => cli::secrets::run(args, globals).await,
        Command::Tokens(args) => cli::tokens::run(args, globals).await,
        Command::Verify(args) => cli::verify::run(args, globals).await,
        Command::Doctor(args) => doctor(&args, globals).await,
        Command::Completions(args) => cli::completions::run(args, globals).await,
    };
    cli::finish(result)
}

/// The chain of causes in one line, and the exit code.
fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn doctor(args: &cli::doctor::Args, globals: &cli::Globals) -> Result<(), cli::CliError> {
    let waiting = cli::doctor::waiting();
    let checks = app::doctor::examine(globals, |done| waiting.inc(done)).await;
    waiting.finish_and_clear();
    cli::doctor::report(args, globals.json, &checks)
}

async fn init(file: Option<&Path>) -> anyhow::Result<()> {
    let loaded = Config::load(file, config::environment())?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{}", app::init(&loaded.config).await?);
    Ok(())
}

fn show_config(action: cli::config::Action, file: Option<&Path>) -> anyhow::Result<()> {
    use cli::config::Action;
    if matches!(action, Action::Reference) {
        print!("{}", config::reference());
        return Ok(());
    }
    let loaded = Config::load(file, config::environment())?;
    let idle = app::not_in_effect(&loaded.config);
    for warning in loaded.warnings.iter().chain(&idle) {
        eprintln!("warning: {warning}");
    }
    match (action, &loaded.sources.file) {
        (Action::Print, _) => print!("{}", config::print(&loaded.config)),
        (_, Some(file)) => println!("{} and the environment: valid", file.display()),
        (_, None) => println!("the environment and the defaults: valid"),
    }
    Ok(())
}
