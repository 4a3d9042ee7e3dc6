//! `carillon quarantine`: what was not understood, and having it taken again.

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use comfy_table::Cell;
use serde_json::{Map, Value, json};

use super::client::{ApiClient, Repeat};
use super::each::each;
use super::output::{Look, Tone, short_time_of, text_of};
use super::steps::in_steps;
use super::{CliError, Globals, args, output};
use crate::domain::event::FaultReason;
use crate::domain::timestamp::UnixMillis;

/// The API lists no more at once.
const LIST_MAX: u64 = 1000;

/// What was not understood; have it taken again
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// List what was not understood, oldest first; reading changes nothing
    List(ListArgs),
    /// Have messages taken again as events
    ///
    /// For when what was wrong is mended: a limit is raised, a new version understands more. What
    /// is not understood this time either is put aside again, with a new id.
    Requeue(RequeueArgs),
}

/// How many.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon quarantine list
  carillon quarantine list --json | jq -r '.items[0].body'")]
pub struct ListArgs {
    /// At most so many (1 to 1000)
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=LIST_MAX))]
    pub limit: u64,
}

/// Which.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon quarantine requeue 17 18
  carillon quarantine requeue --all --reason too_large

What is put aside again while this runs is not taken a second time. Stopping half way loses
nothing: what was not taken stays where it is.")]
pub struct RequeueArgs {
    /// These messages, by their ids
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub ids: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    /// Only those put aside for this reason
    #[arg(long, value_name = "CODE", requires = "all", value_parser = reasons())]
    pub reason: Option<String>,
}

fn reasons() -> PossibleValuesParser {
    PossibleValuesParser::new(FaultReason::ALL.map(FaultReason::code))
}

/// Does it.
///
/// # Errors
/// When the API cannot be asked, or says no.
pub async fn run(args: Args, globals: &Globals) -> Result<(), CliError> {
    let client = ApiClient::new(globals)?;
    match args.action {
        Action::List(args) => list(&client, args.limit, globals.json).await,
        Action::Requeue(args) if args.all => requeue_all(&client, args.reason, globals.json).await,
        Action::Requeue(args) => requeue(&client, &args.ids, globals.json).await,
    }
}

async fn list(client: &ApiClient, limit: u64, as_json: bool) -> Result<(), CliError> {
    let query = [("limit", Some(limit.to_string()))];
    let page = client.get(&["quarantine"], &query).await?;
    if as_json {
        return output::json(&page);
    }
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    if items.is_empty() {
        output::note("nothing is in quarantine");
        return Ok(());
    }
    let (look, now) = (Look::detect(), args::now());
    let header = ["PUT ASIDE", "REASON", "WHY", "BEGINS WITH", "ID"];
    let rows = items.iter().map(|item| row(look, item, now)).collect();
    output::table(look, &header, rows)?;
    if items.len() as u64 >= limit {
        output::note("these are the oldest; there may be more");
    }
    Ok(())
}

fn row(look: Look, item: &Value, now: UnixMillis) -> Vec<Cell> {
    vec![
        Cell::new(short_time_of(item, "quarantined_at", now)),
        look.cell(Tone::Bad, text_of(item, "reason")),
        Cell::new(text_of(item, "error")),
        Cell::new(beginning(item)),
        Cell::new(text_of(item, "id")),
    ]
}

/// Enough of the body to know it by; nothing of one that is no text.
fn beginning(item: &Value) -> String {
    const CHARS_MAX: usize = 30;
    let body = text_of(item, "body");
    let mut words = body.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = words.char_indices().nth(CHARS_MAX) {
        words.truncate(at);
        words.push('…');
    }
    words
}

async fn requeue(client: &ApiClient, ids: &[String], as_json: bool) -> Result<(), CliError> {
    // Not repeated: the second answer would be 404.
    let requeue = async |id: &str| {
        let path = ["quarantine", id, "requeue"];
        client.post(&path, &json!({}), Repeat::Never).await
    };
    let outcome = each(ids, "messages", requeue).await;
    outcome.say(as_json, "requeued", taken_again)
}

async fn requeue_all(
    client: &ApiClient,
    reason: Option<String>,
    as_json: bool,
) -> Result<(), CliError> {
    let reason = reason.map(|reason| ("reason".to_owned(), reason.into()));
    let request: Map<String, Value> = reason.into_iter().collect();
    let progress = output::progress(None, "messages");
    let requeue = async |request: Value| {
        let path = ["quarantine", "requeue"];
        let answer = client.post(&path, &request, Repeat::Never).await?;
        Ok(answer["requeued"].as_u64().unwrap_or(0))
    };
    let meant = (None, args::now());
    let requeued = in_steps(request, meant, &progress, taken_again, requeue).await?;
    if as_json {
        return output::json(&json!({ "requeued": requeued }));
    }
    output::line(&taken_again(requeued))
}

fn taken_again(count: u64) -> String {
    format!("{} taken again", output::count(count, "message"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Cli;
    use super::super::asked::asked;
    use super::super::receiver::{Received, Reply};
    use super::super::steps::STEP;
    use super::*;

    /// What was asked by `line`, with the answers of `script`.
    async fn requests_of(
        line: &str,
        script: impl Fn() -> Value + Send + Sync + 'static,
    ) -> Vec<(String, Value)> {
        let reply = move |_: &Received| Reply {
            body: script().to_string().into(),
            ..Reply::default()
        };
        let (requests, ended) = asked(&format!("quarantine {line}"), reply).await;
        ended.unwrap();
        let body = |received: &Received| serde_json::from_slice(&received.body).unwrap_or_default();
        let read = |received: Received| (received.path.clone(), body(&received));
        requests.into_iter().map(read).collect()
    }

    #[tokio::test]
    async fn all_are_taken_in_steps_and_never_in_circles() {
        let left = std::sync::atomic::AtomicU64::new(2345);
        let answer = move || {
            let some = left.load(std::sync::atomic::Ordering::Relaxed).min(STEP);
            left.fetch_sub(some, std::sync::atomic::Ordering::Relaxed);
            json!({ "requeued": some })
        };
        let requests = requests_of("requeue --all --reason too_large", answer).await;
        assert_eq!(requests.len(), 3);
        for (path, body) in &requests {
            assert_eq!(path, "/v1/quarantine/requeue");
            assert_eq!(body["reason"], "too_large");
            assert_eq!(body["limit"], STEP);
        }
        assert!(requests[0].1["until"].is_null());
        assert!(requests[1].1["until"].is_string());
        assert_eq!(requests[1].1["until"], requests[2].1["until"]);
    }

    #[tokio::test]
    async fn some_are_taken_by_their_ids() {
        let requests = requests_of("requeue 17 a/b", || json!({ "requeued": 1 })).await;
        let paths: Vec<_> = requests.iter().map(|(path, _)| path.as_str()).collect();
        let expected = ["/v1/quarantine/17/requeue", "/v1/quarantine/a%2Fb/requeue"];
        assert_eq!(paths, expected);
    }

    #[tokio::test]
    async fn an_empty_quarantine_is_listed() {
        let requests = requests_of("list --limit 7", || json!({ "items": [], "next": null })).await;
        assert_eq!(requests.len(), 1);
        assert!(requests[0].0.starts_with("/v1/quarantine"));
    }

    #[test]
    fn what_cannot_be_meant_is_wrong_usage() {
        for bad in [
            "requeue",
            "requeue --reason malformed",
            "requeue --all 17",
            "requeue --all --reason tired",
            "list --limit 0",
            "list --limit 1001",
        ] {
            let line = format!("carillon quarantine {bad}");
            let refused = Cli::try_parse_from(line.split(' ')).err();
            assert_eq!(refused.map(|error| error.exit_code()), Some(2), "{bad}");
        }
    }

    #[test]
    fn a_body_is_known_by_its_beginning() {
        let shown = |body: Value| beginning(&json!({ "body": body }));
        assert_eq!(shown(json!("{\n  \"id\": 1}")), "{ \"id\": 1}");
        assert_eq!(shown(json!("é".repeat(31))), format!("{}…", "é".repeat(30)));
        assert_eq!(shown(Value::Null), "");
    }
}
