//! `carillon subscriptions apply`: says what a file changes, does it, and shows what came of it.

use std::io::IsTerminal as _;
use std::ops::Range;
use std::path::PathBuf;

use comfy_table::Cell;
use serde_json::{Value, json};

use super::super::client::{ApiClient, ApiError, Repeat};
use super::super::each::{Outcome, each};
use super::super::output::{Look, text_of};
use super::super::{CliError, args, output};
use super::file::read_items;
use super::plan::{Plan, pruned};
use super::{confirmed, show};

/// Most subscriptions that the API takes at a time.
const PART_ITEMS_MAX: usize = 10_000;
/// Bytes in one request; well below what the API takes.
const PART_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What is applied, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The file, or `-` for standard input
    #[arg(long, short, value_name = "FILE|-")]
    pub file: PathBuf,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Delete what the file does not name, of the tenants that it names; needs an `id` on each.
    /// Nothing of a store that has lost what it held
    #[arg(long)]
    pub prune: bool,
    /// With --prune: of this tenant instead; may be repeated
    #[arg(long = "tenant", value_name = "TENANT", requires = "prune")]
    pub tenants: Vec<String>,
    /// Do not ask before something is deleted; needed where nobody can be asked
    #[arg(long, short)]
    pub yes: bool,
}

/// Declares what the file says, and takes away what it does not name if that is asked for.
///
/// # Errors
/// When the file cannot be read, or the API cannot be asked or says no.
pub async fn apply(client: &ApiClient, as_json: bool, args: &Args) -> Result<(), CliError> {
    let text = args::read_input(&args.file).await?;
    let items = read_items(&args.file, &text, args.prune)?;
    let pruned = pruned(args, &items)?;
    if items.is_empty() {
        output::note(&format!("{}: no subscriptions", args.file.display()));
    }
    let plan = Plan::make(client, &items, &pruned, !as_json).await?;
    if plan.store_lost {
        output::note(
            "the store has lost what it held, so it is not known what there is to delete: nothing \
             is. Whatever else comes back is told by the same command once more, afterwards.",
        );
    }
    if args.dry_run && as_json {
        return output::json(&json!({ "dry_run": true, "plan": plan.document() }));
    }
    let is_empty = items.is_empty() && plan.deleted.is_empty();
    if !as_json && !is_empty {
        plan.print(&items)?;
    }
    if args.dry_run {
        warn(&items, &plan.items);
        return Ok(());
    }
    if !plan.deleted.is_empty() && !args.yes {
        may_delete(as_json, plan.deleted.len())?;
    }
    let mut applied = Vec::with_capacity(items.len());
    if let Err(error) = declare(client, &items, &mut applied).await {
        if !applied.is_empty() {
            show_applied(as_json, &items, &applied, &plan, &Outcome::default())?;
        }
        let kept = match plan.deleted.is_empty() {
            true => "",
            false => " Nothing was deleted.",
        };
        return Err(CliError::Failed(format!("{error}{kept}")));
    }
    let deleted = delete(client, &plan.deleted).await;
    show_applied(as_json, &items, &applied, &plan, &deleted)?;
    match deleted.is_complete() {
        true => Ok(()),
        false => {
            deleted.complain();
            Err(CliError::Reported)
        }
    }
}

/// Asks whether so many may go.
fn may_delete(as_json: bool, count: usize) -> Result<(), CliError> {
    let what = output::count(count as u64, "subscription");
    let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if as_json || !is_terminal {
        return Err(CliError::Usage(format!(
            "this would delete {what}: look at them with --dry-run, then repeat with --yes. Nothing \
             was changed."
        )));
    }
    match confirmed(&format!("Delete {what}, and do the rest?"))? {
        true => Ok(()),
        false => Err(CliError::Failed("nothing was changed".to_owned())),
    }
}

/// Declares the items; `applied` has what the API said of those that were, also after a failure,
/// which is told as a sentence.
async fn declare(
    client: &ApiClient,
    items: &[Value],
    applied: &mut Vec<Value>,
) -> Result<(), String> {
    for part in parts(items) {
        let body = Value::from(&items[part.clone()]);
        // A second call would not show again the secrets that the first one made.
        let answer = client.put(&["subscriptions"], &[], &body, Repeat::Never);
        let mut answer = answer.await.map_err(|error| {
            let before = match (part.start, error.problem()) {
                (0, Some(_)) => "Nothing was changed.".to_owned(),
                (0, None) => "Whether anything was changed is not known.".to_owned(),
                (n, _) => format!("The first {n} were applied."),
            };
            format!("{} {before}", refusal(items, &part, &error))
        })?;
        let Value::Array(found) = answer["items"].take() else {
            return Err("the API answered without `items`".to_owned());
        };
        applied.extend(found);
    }
    Ok(())
}

async fn delete(client: &ApiClient, gone: &[Value]) -> Outcome {
    let ids: Vec<String> = gone.iter().map(|one| text_of(one, "id")).collect();
    let call = async |id: &str| match client.delete(&["subscriptions", id]).await {
        // Someone else was faster.
        Err(error) if error.problem().is_some_and(|problem| problem.status == 404) => {
            Ok(Value::Null)
        }
        answer => answer,
    };
    each(&ids, "subscriptions", call).await
}

/// Cuts the items into parts that fit a request each.
pub(super) fn parts(items: &[Value]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (n, item) in items.iter().enumerate() {
        let size = item.to_string().len() + 1;
        if n > start && (n - start >= PART_ITEMS_MAX || bytes + size > PART_BYTES_MAX) {
            parts.push(start..n);
            (start, bytes) = (n, 0);
        }
        bytes += size;
    }
    if start < items.len() {
        parts.push(start..items.len());
    }
    parts
}

/// Which item was refused, and why.
pub(super) fn refusal(items: &[Value], part: &Range<usize>, error: &ApiError) -> String {
    let index = error.problem().and_then(|problem| {
        let index = problem.document["index"].as_u64()?;
        usize::try_from(index).ok()
    });
    let which = index.map(|index| {
        let number = part.start + index + 1;
        let item = items.get(number - 1).unwrap_or(&Value::Null);
        let name = [text_of(item, "id"), text_of(item, "url")];
        let name = name.into_iter().find(|name| !name.is_empty());
        let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
        format!("subscription {number}{name}: ")
    });
    let error = error.to_string();
    let error = error.trim_end_matches('.');
    format!("{}{error}.", which.unwrap_or_default())
}

/// Prints what was done; as JSON, in the form of the API's answer, with the plan.
fn show_applied(
    as_json: bool,
    items: &[Value],
    applied: &[Value],
    plan: &Plan,
    deleted: &Outcome,
) -> Result<(), CliError> {
    let actions = ["created", "updated", "unchanged"];
    let count = |action: &str| applied.iter().filter(|one| one["action"] == action).count();
    if as_json {
        let [created, updated, unchanged] = actions.map(count);
        let mut document = deleted.document("deleted");
        document["created"] = created.into();
        document["updated"] = updated.into();
        document["unchanged"] = unchanged.into();
        document["items"] = applied.into();
        document["plan"] = plan.document();
        return output::json(&document);
    }
    if applied.is_empty() && plan.deleted.is_empty() {
        return Ok(());
    }
    let mut counts = actions
        .map(|action| format!("{} {action}", count(action)))
        .to_vec();
    if !plan.deleted.is_empty() {
        counts.push(format!("{} deleted", deleted.count()));
    }
    output::line(&format!("Done: {}", counts.join(", ")))?;
    let look = Look::detect();
    show_new_ids(look, items, applied)?;
    warn(items, applied);
    show::made_secrets(look, applied)
}

/// Says what the API warns of, and of which item.
fn warn(items: &[Value], told: &[Value]) {
    for (item, one) in items.iter().zip(told) {
        let names = [text_of(one, "id"), text_of(item, "url")];
        let name = names.into_iter().find(|name| !name.is_empty());
        show::warnings_of(&name.unwrap_or_default(), one);
    }
}

/// The ids that were made here: the file does not have them.
fn show_new_ids(look: Look, items: &[Value], applied: &[Value]) -> Result<(), CliError> {
    let made = items
        .iter()
        .zip(applied)
        .filter(|(item, _)| item["id"].is_null());
    let row = |(item, one): (&Value, &Value)| {
        let cells = [
            text_of(one, "id"),
            text_of(item, "tenant"),
            text_of(item, "url"),
        ];
        cells.map(Cell::new).to_vec()
    };
    let rows: Vec<_> = made.map(row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    output::line("")?;
    output::table(look, &["NEW ID", "TENANT", "URL"], rows)
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::super::super::asked::asked;
    use super::super::super::receiver::{Received, Reply};
    use super::*;

    fn reply(status: StatusCode, document: &Value) -> Reply {
        Reply {
            body: document.to_string().into(),
            ..Reply::status(status)
        }
    }

    /// Applies these by an API that says that they do this, and lists by `list`: what it was asked.
    async fn applied(
        items: &Value,
        flags: &str,
        action: &'static str,
        list: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Vec<String> {
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), items.to_string()).unwrap();
        let script = move |received: &Received| {
            if received.method != Method::PUT {
                return list(received);
            }
            let items: Value = serde_json::from_slice(&received.body).unwrap();
            let items = items.as_array().unwrap().iter();
            let told = |item: &Value| json!({"id": item["id"], "action": action, "changes": []});
            let items: Vec<Value> = items.map(told).collect();
            let dry_run = received.path.contains("dry_run=true");
            reply(StatusCode::OK, &json!({"items": items, "dry_run": dry_run}))
        };
        let line = format!("subscriptions apply -f {} {flags}", file.path().display());
        let (requests, ended) = asked(line.trim(), script).await;
        ended.unwrap();
        let told = |received: Received| format!("{} {}", received.method, received.path);
        requests.into_iter().map(told).collect()
    }

    #[tokio::test]
    async fn of_a_store_that_has_lost_everything_nothing_is_pruned() {
        let items = json!([{"id": "sub_1", "tenant": "acme"}]);
        let lost = |_: &Received| {
            let problem = json!({"code": "store_lost", "title": "gone"});
            reply(StatusCode::SERVICE_UNAVAILABLE, &problem)
        };
        for flags in ["--prune --yes", "--prune --yes --json"] {
            let requests = applied(&items, flags, "created", lost).await;
            let expected = [
                "PUT /v1/subscriptions?dry_run=true",
                "GET /v1/subscriptions?tenant=acme&limit=100",
                "PUT /v1/subscriptions",
            ];
            assert_eq!(requests, expected);
        }
    }

    /// Lost in the middle, what was listed before is not there to be deleted either.
    #[tokio::test]
    async fn of_a_store_that_is_lost_meanwhile_nothing_is_pruned() {
        let items = json!([{"id": "sub_1", "tenant": "acme"}]);
        let script = |received: &Received| match received.path.contains("tenant=acme") {
            true => reply(
                StatusCode::OK,
                &json!({"items": [{"id": "sub_2", "tenant": "acme"}], "next": null}),
            ),
            false => reply(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({"code": "store_lost", "title": "gone"}),
            ),
        };
        let flags = "--prune --tenant acme --tenant bluebell --yes";
        let requests = applied(&items, flags, "created", script).await;
        assert!(requests.iter().any(|one| one.contains("tenant=bluebell")));
        assert!(
            requests.iter().all(|one| !one.starts_with("DELETE")),
            "{requests:?}"
        );
    }

    #[tokio::test]
    async fn a_plan_looks_at_no_more_than_it_tells() {
        let one = |n: usize| json!({"id": format!("sub_{n}"), "tenant": "acme"});
        let list = |received: &Received| match received.path.contains('?') {
            true => reply(StatusCode::OK, &json!({"items": [], "next": null})),
            false => reply(StatusCode::OK, &json!({"id": "sub_0"})),
        };
        for (count, action, expected) in [
            (1, "unchanged", &[][..]),
            (1, "updated", &["GET /v1/subscriptions/sub_0"]),
            (
                30,
                "updated",
                &["GET /v1/subscriptions?tenant=acme&limit=100"],
            ),
        ] {
            let items: Value = (0..count).map(one).collect();
            let requests = applied(&items, "--dry-run", action, list).await;
            assert_eq!(requests[1..], *expected, "{count} {action}");
        }
    }

    #[test]
    fn parts_fit_a_request_and_leave_nothing_out() {
        assert!(parts(&[]).is_empty());
        let many = vec![json!({}); PART_ITEMS_MAX + 1];
        let cut = PART_ITEMS_MAX;
        assert_eq!(parts(&many), [0..cut, cut..cut + 1]);
        let big = vec![json!("x".repeat(PART_BYTES_MAX / 2)); 3];
        assert_eq!(parts(&big), [0..1, 1..2, 2..3]);
        assert_eq!(parts(&many[..3]), vec![0..3; 1]);
    }
}
