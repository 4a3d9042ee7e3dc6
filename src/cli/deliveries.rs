//! `carillon deliveries`: what was sent, sent again.

use clap::Subcommand;
use serde_json::json;

use super::client::{ApiClient, Repeat};
use super::each::each;
use super::{CliError, Globals};

/// Send what was sent once more
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Send deliveries again: the same webhook-id and body, attempts from the first on
    ///
    /// Any delivery of which an attempt is recorded, whether it was delivered or not. A dead
    /// letter of it stays where it is: `dead-letters redrive` sends that again and takes it out.
    Redeliver(RedeliverArgs),
}

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
    let Action::Redeliver(RedeliverArgs { ids }) = args.action;
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
