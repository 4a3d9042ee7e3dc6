//! `carillon dead-letters`: what was given up, sending it again, and discarding it.

use std::time::Duration;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use comfy_table::Cell;
use serde_json::{Map, Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::args::Since;
use super::client::{ApiClient, ApiError, Repeat};
use super::each::each;
use super::output::{Look, Tone, short_time_of, text_of};
use super::steps::in_steps;
use super::{CliError, Globals, args, output};
use crate::domain::delivery::DeadReason;
use crate::domain::timestamp::UnixMillis;

/// No sooner than this comes the next step, which is the pace at which the API spreads what one
/// call redrives: many are no storm.
const STEP_EVERY: Duration = Duration::from_secs(1);
/// The API lists no more at once.
const LIST_MAX: u64 = 1000;

/// What was given up; send it again, or discard it
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// List dead letters, oldest first; reading changes nothing
    List(ListArgs),
    /// Send dead letters again
    Redrive(RedriveArgs),
    /// Discard dead letters; the server's log and a notice tell of each
    Discard(DiscardArgs),
}

/// Which dead letters.
#[derive(Clone, Debug, clap::Args)]
pub struct Filter {
    /// Only for this tenant's events
    #[arg(long)]
    pub tenant: Option<String>,
    /// Only for this subscription
    #[arg(long, value_name = "ID")]
    pub subscription: Option<String>,
    /// Only those given up for this reason
    #[arg(long, value_parser = reasons())]
    pub reason: Option<String>,
    /// Only those given up since this time, or so long ago: 2026-03-01T12:30:00Z, 1h
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    pub since: Option<Since>,
}

fn reasons() -> PossibleValuesParser {
    PossibleValuesParser::new(DeadReason::ALL.map(DeadReason::code))
}

/// Which dead letters, and how many.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon dead-letters list --since 24h
  carillon dead-letters list --subscription sub_… --reason exhausted")]
pub struct ListArgs {
    /// Which.
    #[command(flatten)]
    pub filter: Filter,
    /// At most so many (1 to 1000)
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=LIST_MAX))]
    pub limit: u64,
}

/// Which dead letters, and how many.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon dead-letters redrive --subscription sub_… --dry-run
  carillon dead-letters redrive --reason exhausted --since 24h

At most 1000 a second are sent again. What fails again while this runs is not redriven a
second time. Stopping half way loses nothing: what was not redriven stays where it is.")]
pub struct RedriveArgs {
    /// Which.
    #[command(flatten)]
    pub filter: Filter,
    /// Only those given up before this time, or so long ago
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    pub until: Option<Since>,
    /// At most so many [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Only say how many match
    #[arg(long)]
    pub dry_run: bool,
}

/// Which dead letters.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon dead-letters discard msg_…

Asks nothing. Exit code 1 when one was not there, and says which; the others are discarded.")]
pub struct DiscardArgs {
    /// The dead letters (msg_…)
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// Does it.
///
/// # Errors
/// When the API cannot be asked, or says no.
pub async fn run(args: Args, globals: &Globals) -> Result<(), CliError> {
    let client = ApiClient::new(globals)?;
    match args.action {
        Action::List(args) => list(&client, args, globals.json).await,
        Action::Redrive(args) => redrive(&client, args, globals.json).await,
        Action::Discard(args) => discard(&client, &args.ids, globals.json).await,
    }
}

async fn list(client: &ApiClient, args: ListArgs, as_json: bool) -> Result<(), CliError> {
    let now = args::now();
    let Filter {
        tenant,
        subscription,
        reason,
        since,
    } = args.filter;
    let query = [
        ("tenant", tenant),
        ("subscription", subscription),
        ("reason", reason),
        ("since", since.map(|since| since.resolve(now).to_string())),
        ("limit", Some(args.limit.to_string())),
    ];
    let page = client.get(&["dead-letters"], &query).await?;
    if as_json {
        return output::json(&page);
    }
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    if items.is_empty() {
        output::note("no dead letters match");
        return Ok(());
    }
    let look = Look::detect();
    let header = [
        "GIVEN UP",
        "REASON",
        "LAST",
        "TRIES",
        "EVENT TYPE",
        "EVENT",
        "SUBSCRIPTION",
        "ID",
    ];
    let rows = items.iter().map(|item| row(look, item, now)).collect();
    output::table(look, &header, rows)?;
    if items.len() as u64 >= args.limit {
        output::note("these are the oldest; there may be more");
    }
    Ok(())
}

fn row(look: Look, item: &Value, now: UnixMillis) -> Vec<Cell> {
    let last = format!(
        "{} {}",
        text_of(item, "last_status"),
        text_of(item, "last_reason")
    );
    vec![
        Cell::new(short_time_of(item, "dead_at", now)),
        look.cell(Tone::Bad, text_of(item, "reason")),
        Cell::new(last.trim()),
        Cell::new(text_of(item, "attempts")),
        Cell::new(text_of(item, "event_type")),
        Cell::new(text_of(item, "event_id")),
        Cell::new(text_of(item, "subscription_id")),
        Cell::new(text_of(item, "id")),
    ]
}

/// The members of a redrive request but `limit` and `dry_run`.
fn selection(args: &RedriveArgs, now: UnixMillis) -> Map<String, Value> {
    let time = |time: Option<Since>| time.map(|time| time.resolve(now).to_string());
    let filter = &args.filter;
    let members = [
        ("tenant", filter.tenant.clone()),
        ("subscription", filter.subscription.clone()),
        ("reason", filter.reason.clone()),
        ("since", time(filter.since)),
        ("until", time(args.until)),
    ];
    members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
        .collect()
}

async fn redrive(client: &ApiClient, args: RedriveArgs, as_json: bool) -> Result<(), CliError> {
    let began = args::now();
    let mut request = selection(&args, began);
    if args.dry_run {
        if let Some(limit) = args.limit {
            request.insert("limit".to_owned(), limit.into());
        }
        let answer = ask(client, request.into(), true).await?;
        return say(as_json, &answer, &|matched, _| {
            format!(
                "{} would be sent again",
                output::count(matched, "dead letter")
            )
        });
    }
    let progress = output::progress(args.limit, "dead letters");
    let mut matched = 0;
    let mut steps = interval(STEP_EVERY);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let redrive = async |request: Value| {
        steps.tick().await;
        let answer = ask(client, request, false).await?;
        let count = |name: &str| answer[name].as_u64().unwrap_or(0);
        // Each answer counts what it found, up to its limit or beyond.
        matched = count("matched").max(matched);
        Ok(count("redriven"))
    };
    let meant = (args.limit, began);
    let redriven = in_steps(request, meant, &progress, sent_again, redrive).await?;
    let matched = matched.max(redriven);
    let total = json!({"matched": matched, "redriven": redriven});
    say(as_json, &total, &|_, redriven| sent_again(redriven))
}

async fn discard(client: &ApiClient, ids: &[String], as_json: bool) -> Result<(), CliError> {
    let discard = async |id: &str| client.delete(&["dead-letters", id]).await;
    let outcome = each(ids, "dead letters", discard).await;
    outcome.say(as_json, "discarded", |count| {
        format!("{} discarded", output::count(count, "dead letter"))
    })
}

async fn ask(client: &ApiClient, mut request: Value, dry_run: bool) -> Result<Value, ApiError> {
    request["dry_run"] = dry_run.into();
    let repeat = if dry_run { Repeat::Safe } else { Repeat::Never };
    let path = ["dead-letters", "redrive"];
    client.post(&path, &request, repeat).await
}

fn sent_again(count: u64) -> String {
    format!("{} sent again", output::count(count, "dead letter"))
}

fn say(
    as_json: bool,
    answer: &Value,
    sentence: &dyn Fn(u64, u64) -> String,
) -> Result<(), CliError> {
    if as_json {
        return output::json(answer);
    }
    let number = |name: &str| answer[name].as_u64().unwrap_or(0);
    output::line(&sentence(number("matched"), number("redriven")))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http::StatusCode;

    use super::super::asked::asked;
    use super::super::receiver::{Received, Reply};
    use super::*;

    #[test]
    fn what_is_not_asked_for_does_not_restrict() {
        let now = UnixMillis::parse_rfc3339("2026-03-01T12:00:00Z").unwrap();
        let mut args = RedriveArgs {
            filter: Filter {
                tenant: None,
                subscription: None,
                reason: None,
                since: None,
            },
            until: None,
            limit: None,
            dry_run: false,
        };
        assert!(selection(&args, now).is_empty());
        args.filter.reason = Some("gone".to_owned());
        args.until = Some(Since::Ago(Duration::from_secs(3600)));
        assert_eq!(
            Value::from(selection(&args, now)),
            json!({"reason": "gone", "until": "2026-03-01T11:00:00.000Z"})
        );
    }

    #[tokio::test]
    async fn redriving_goes_on_in_steps_and_never_in_circles() {
        let script = |received: &Received| {
            let request: Value = serde_json::from_slice(&received.body).unwrap();
            let redriven = request["limit"].as_u64().unwrap();
            let answer = json!({"matched": 9999, "redriven": redriven});
            Reply {
                body: answer.to_string().into(),
                ..Reply::default()
            }
        };
        let began = Instant::now();
        let (requests, ended) = asked("dead-letters redrive --limit 2500", script).await;
        ended.unwrap();
        assert!(began.elapsed() >= 2 * STEP_EVERY, "no faster than it may");
        let bodies = requests.iter().map(|received| &received.body);
        let requests: Vec<Value> = bodies
            .map(|body| serde_json::from_slice(body).unwrap())
            .collect();
        let limits: Vec<_> = requests.iter().map(|r| r["limit"].as_u64()).collect();
        assert_eq!(limits, [Some(1000), Some(1000), Some(500)]);
        assert!(requests[0]["until"].is_null());
        assert!(requests[1]["until"].is_string());
        assert_eq!(requests[1]["until"], requests[2]["until"]);
    }

    #[tokio::test]
    async fn each_is_discarded_and_one_that_is_not_there_is_exit_code_1() {
        let mut paths = Vec::new();
        for (ids, exit_code) in [("msg_1 msg_3", 0), ("msg_2 msg_4", 1)] {
            let script = |received: &Received| {
                let (status, body) = match received.path.ends_with("msg_2") {
                    true => (StatusCode::NOT_FOUND, r#"{"code":"not_found"}"#),
                    false => (StatusCode::NO_CONTENT, ""),
                };
                Reply {
                    body: body.into(),
                    ..Reply::status(status)
                }
            };
            let line = format!("dead-letters discard {ids}");
            let (requests, ended) = asked(&line, script).await;
            assert_eq!(ended.err().map_or(0, |error| error.exit_code()), exit_code);
            paths.extend(requests.into_iter().map(|received| received.path));
        }
        assert_eq!(
            paths,
            [1, 3, 2, 4].map(|n| format!("/v1/dead-letters/msg_{n}"))
        );
    }
}
