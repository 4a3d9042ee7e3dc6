//! `carillon deliveries`: what became of what was sent; sent again.

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{ApiClient, Repeat};
use super::each::each;
use super::output::{Look, Tone, text_of, time_of};
use super::{CliError, Globals, args, attempts, output};

/// What became of a delivery; send it once more
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Show one: its state, and what each attempt led to
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// The delivery (msg_…): the `webhook-id` of its requests
        id: String,
    },
    /// Send deliveries again: the same webhook-id and body, attempts from the first on
    ///
    /// Any delivery of which an attempt is recorded, whether it was delivered or not. A dead
    /// letter of it stays where it is: `dead-letters redrive` sends that again and takes it out.
    Redeliver(RedeliverArgs),
}

const SHOW_EXAMPLES: &str = "\
Examples:
  carillon deliveries show msg_…
  carillon deliveries show msg_… --json | jq '.attempts[] | {at, outcome, reason}'";

/// Which deliveries.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon deliveries redeliver msg_…
  carillon attempts list --subscription sub_… --since 1h --json |
    jq -r '.items[].delivery_id' | sort -u | xargs carillon deliveries redeliver

Exit code 1 when one could not be sent again, and says which; the others are.")]
pub struct RedeliverArgs {
    /// The deliveries (msg_…)
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// Does it.
///
/// # Errors
/// When the API cannot be asked; [`CliError::Reported`] when it says no to one.
pub async fn run(args: Args, globals: &Globals) -> Result<(), CliError> {
    let client = ApiClient::new(globals)?;
    let ids = match args.action {
        Action::Show { id } => return show(&client, &id, globals.json).await,
        Action::Redeliver(RedeliverArgs { ids }) => ids,
    };
    // Never repeated: it would be sent twice.
    let redeliver = async |id: &str| {
        let path = ["deliveries", id, "redeliver"];
        client.post(&path, &json!({}), Repeat::Never).await
    };
    let outcome = each(&ids, "deliveries", redeliver).await;
    outcome.say(globals.json, "redelivered", |count| match count {
        1 => "1 delivery is sent again".to_owned(),
        count => format!("{count} deliveries are sent again"),
    })
}

async fn show(client: &ApiClient, id: &str, as_json: bool) -> Result<(), CliError> {
    let told = client.get(&["deliveries", id], &[]).await?;
    if as_json {
        return output::json(&told);
    }
    let (look, now) = (Look::detect(), args::now());
    let state = match told["state"].as_str().unwrap_or_default() {
        "waiting" => format!("waiting, due {}", time_of(&told, "next_at", now)),
        "dead_lettered" => {
            let letter = &told["dead_letter"];
            let (why, when) = (text_of(letter, "reason"), time_of(letter, "dead_at", now));
            format!("given up ({why}) {when}")
        }
        other => other.replace('_', " "),
    };
    let items = told["attempts"].as_array().map_or(&[][..], Vec::as_slice);
    let detail = items
        .first()
        .map_or(String::new(), |last| text_of(last, "detail"));
    let pairs = [
        ("delivery", output::visible(id)),
        ("state", look.paint(tone(&told), &state)),
        ("event", text_of(&told, "event_id")),
        ("event type", text_of(&told, "event_type")),
        ("tenant", text_of(&told, "tenant")),
        ("subscription", text_of(&told, "subscription_id")),
        ("last attempt", detail),
    ];
    output::fields(look, &pairs)?;
    if items.is_empty() {
        output::note("no attempt is recorded any more");
        return Ok(());
    }
    output::line("")?;
    attempts::print_table(look, items, now)
}

fn tone(told: &Value) -> Tone {
    match told["state"].as_str() {
        Some("delivered") => Tone::Good,
        Some("dead_lettered") => Tone::Bad,
        _ => Tone::Notable,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use http::StatusCode;

    use super::super::Cli;
    use super::super::asked::asked;
    use super::super::receiver::{Received, Reply};
    use super::*;

    #[tokio::test]
    async fn each_is_sent_again_once_and_a_refusal_is_exit_code_1() {
        let script = |received: &Received| {
            let (status, body) = match received.path.contains("msg_2") {
                true => (StatusCode::CONFLICT, json!({ "code": "body_not_kept" })),
                false => (StatusCode::ACCEPTED, json!({ "redelivered": true })),
            };
            Reply {
                body: body.to_string().into(),
                ..Reply::status(status)
            }
        };
        let (requests, ended) = asked("deliveries redeliver msg_1 msg_2 msg_3", script).await;
        assert_eq!(ended.unwrap_err().exit_code(), 1);
        let paths: Vec<_> = requests.into_iter().map(|received| received.path).collect();
        let expected = [1, 2, 3].map(|n| format!("/v1/deliveries/msg_{n}/redeliver"));
        assert_eq!(paths, expected);
        let none = Cli::try_parse_from(["carillon", "deliveries", "redeliver"]);
        assert_eq!(none.unwrap_err().exit_code(), 2);
    }
}
