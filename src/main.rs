//! The `carillon` command: arguments in, exit code out.

use std::path::Path;
use std::process::ExitCode;

use carillon::api;
use carillon::app;
use carillon::cli::{self, Cli, CliError, Command, output};
use carillon::config::{self, Config};
use clap::Parser as _;
use serde_json::json;

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
        Command::Init(_) => return finish(init(file, globals.json).await),
        Command::Serve(_) => return finish(app::serve::serve(file).await),
        Command::Demo(_) if globals.json => Err(cli::no_json("demo")),
        Command::Demo(args) => return finish(app::demo::demo(args.keep).await),
        Command::Openapi(_) => output::write(api::openapi::text().as_bytes()),
        Command::Metrics(_) => cli::metrics::run(globals),
        Command::Config(args) => show_config(args.action, globals),
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

async fn doctor(args: &cli::doctor::Args, globals: &cli::Globals) -> Result<(), CliError> {
    let waiting = cli::doctor::waiting();
    let checks = app::doctor::examine(globals, |done| waiting.inc(done)).await;
    waiting.finish_and_clear();
    cli::doctor::report(args, globals.json, &checks)
}

async fn init(file: Option<&Path>, as_json: bool) -> anyhow::Result<()> {
    let loaded = Config::load(file, config::environment())?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let done = app::init(&loaded.config).await?;
    match as_json {
        true => output::json(&json!({ "detail": done }))?,
        false => output::line(&done)?,
    }
    Ok(())
}

fn show_config(action: cli::config::Action, globals: &cli::Globals) -> Result<(), CliError> {
    use cli::config::Action;
    if matches!(action, Action::Reference) {
        return match globals.json {
            true => output::json(&json!({ "markdown": config::reference() })),
            false => output::write(config::reference().as_bytes()),
        };
    }
    let loaded = match Config::load(globals.config.as_deref(), config::environment()) {
        Ok(loaded) => loaded,
        Err(error) => {
            if globals.json && matches!(action, Action::Check) {
                let faults: Vec<String> = error.faults.iter().map(ToString::to_string).collect();
                output::json(&json!({ "valid": false, "faults": faults, "warnings": [] }))?;
                return Err(CliError::Reported);
            }
            return Err(CliError::Failed(error.to_string()));
        }
    };
    let warnings = loaded.warnings;
    if !globals.json {
        for warning in &warnings {
            output::note(&format!("warning: {warning}"));
        }
    }
    match (action, globals.json, &loaded.sources.file) {
        (Action::Print, true, _) => output::json(&config::print_json(&loaded.config)),
        (Action::Print, false, _) => output::write(config::print(&loaded.config).as_bytes()),
        (_, true, file) => {
            let file = file.as_ref().map(|file| file.display().to_string());
            let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            let found = json!({ "valid": true, "faults": [], "warnings": warnings, "file": file });
            output::json(&found)
        }
        (_, false, Some(file)) => {
            output::line(&format!("{} and the environment: valid", file.display()))
        }
        (_, false, None) => output::line("the environment and the defaults: valid"),
    }
}
