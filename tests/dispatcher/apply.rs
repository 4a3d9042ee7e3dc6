//! `carillon subscriptions apply` and `carillon init`, through the program itself.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::harness::{Api, Dispatcher, TENANT, event};
use super::hooks::Hooks;
use super::program::{Ran, run};

const ALL: &str = "/v1/subscriptions";
const URL: &str = "https://hooks.example.com/in";

/// Runs the program with `input`, beside the dispatcher that it asks.
async fn carillon(api: &Api, args: &[&str], input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
    command.args(args).args(["--api", api.base()]);
    command.env_remove("CARILLON_TOKEN");
    run(command, input.to_owned()).await
}

fn json_of(ran: &Ran) -> Value {
    assert_eq!(ran.0, 0, "{}", ran.2);
    serde_json::from_str(&ran.1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_listed_is_applied_as_it_is() {
    let hooks = Hooks::start().await;
    let one = Dispatcher::start().await;
    for n in 0..120 {
        let more = json!({ "description": format!("number {n}"), "enabled": n % 2 == 0 });
        one.api.subscribe(URL, more).await;
    }
    let special = json!({ "signing": "ed25519", "headers": { "x-a": "1" }, "tenant": "*" });
    let special = one.api.subscribe(&hooks.url("special"), special).await;
    let listed = carillon(&one.api, &["subscriptions", "list", "--json"], "").await;
    let backup = json_of(&listed);
    assert_eq!(backup["items"].as_array().unwrap().len(), 121);
    let args = ["subscriptions", "apply", "--json", "-f", "-"];
    let applied = json_of(&carillon(&one.api, &args, &listed.1).await);
    assert_eq!(applied["unchanged"], 121);

    // After a loss: the same under the same ids, with secrets of their own.
    let other = Dispatcher::start().await;
    let applied = json_of(&carillon(&other.api, &args, &listed.1).await);
    assert_eq!(applied["created"], 121);
    let plain = |item: &Value| {
        let mut item = item.clone();
        for name in ["created_at", "updated_at", "public_key"] {
            item.as_object_mut().unwrap().remove(name);
        }
        item
    };
    let restored = other
        .api
        .get(&format!("{ALL}?limit=1000"))
        .await
        .expect(200);
    let plain_all = |list: &Value| -> Vec<Value> {
        let items = list["items"].as_array().unwrap();
        items.iter().map(plain).collect()
    };
    assert_eq!(plain_all(&restored), plain_all(&backup));
    let path = special.path();
    let before = one.api.get(&path).await.expect(200);
    let after = other.api.get(&path).await.expect(200);
    assert_ne!(before["public_key"], after["public_key"]);
    other.api.publish(&event("after")).await;
    hooks.arrived("special", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_reads_what_happened_and_each_secret_once() {
    let dispatcher = Dispatcher::start().await;
    let api = &dispatcher.api;
    let line = |id: &str, more: &str| {
        format!("{{\"id\":\"{id}\",\"tenant\":\"{TENANT}\",\"url\":\"{URL}\"{more}}}\n")
    };
    let secret = "07".repeat(32);
    let given = format!(",\"secret\":\"{secret}\"");
    let lines = line("sub_given", &given) + &line("sub_made", "");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("subs.jsonl");
    std::fs::write(&file, &lines).unwrap();
    let file = file.to_str().unwrap();
    let args = ["subscriptions", "apply", "--file", file];
    let (code, out, err) = carillon(api, &args, "").await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for part in [
        "sub_given",
        "sub_made",
        "created",
        URL,
        TENANT,
        "shown this once",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(out.contains("2 created, 0 updated, 0 unchanged"), "{out}");
    assert_eq!(out.matches("whsec_").count(), 1, "{out}");
    assert!(!out.contains(&secret), "{out}");

    let lines = line("sub_given", "") + &line("sub_made", ",\"description\":\"d\"");
    let args = ["subscriptions", "apply", "-f", "-"];
    let (code, out, _) = carillon(api, &args, &lines).await;
    assert_eq!(code, 0);
    assert!(out.contains("0 created, 1 updated, 1 unchanged"), "{out}");
    assert!(!out.contains("whsec_"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_named_and_changes_nothing() {
    let dispatcher = Dispatcher::start().await;
    let api = &dispatcher.api;
    let args = ["subscriptions", "apply", "--file", "-"];
    let items = json!([
        { "tenant": TENANT, "url": URL },
        { "id": "sub_bad", "tenant": TENANT, "url": "nowhere" },
    ]);
    let (code, out, err) = carillon(api, &args, &items.to_string()).await;
    assert_eq!((code, out.as_str()), (1, ""));
    for part in ["subscription 2 (sub_bad)", "`url`", "Nothing was changed."] {
        assert!(err.contains(part), "{part}: {err}");
    }
    for input in ["{", "5", r#"{"items": 5}"#] {
        let (code, _, err) = carillon(api, &args, input).await;
        assert_eq!(code, 2, "{err}");
    }
    let missing = ["subscriptions", "apply", "--file", "/nonexistent"];
    let (code, _, err) = carillon(api, &missing, "").await;
    assert_eq!(code, 1);
    assert!(err.contains("/nonexistent"), "{err}");
    let (code, _, err) = carillon(api, &args, "[]").await;
    assert_eq!(code, 0);
    assert!(err.contains("no subscriptions"), "{err}");
    assert_eq!(api.items(ALL).await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_there_is_nothing_to_mark() {
    let folder = tempfile::tempdir().unwrap();
    let init = |folder: &Path, config: &str| {
        std::fs::write(folder.join("carillon.toml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
        command.arg("init").current_dir(folder).env_clear();
        run(command, String::new())
    };
    let config = "[embedded]\npath = \"mine.db\"\n";
    let (code, out, err) = init(folder.path(), config).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("nothing to mark: embedded"), "{out}");
    assert!(!folder.path().join("mine.db").exists(), "nothing is made");
    let (code, _, err) = init(folder.path(), "[embedded]\npaht = 1\n").await;
    assert_eq!(code, 1);
    assert!(err.contains("path"), "{err}");
}

/// A folder with a YAML file of these subscriptions in it.
fn yaml(items: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("subs.yaml");
    std::fs::write(&file, items).unwrap();
    (folder, file.to_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_told_and_nothing_is_done() {
    let dispatcher = Dispatcher::start().await;
    let api = &dispatcher.api;
    let more = json!({ "timeout_ms": 500, "description": "old" });
    let old = api.subscribe(URL, more).await;
    let same = api.subscribe(URL, json!({})).await;
    let unnamed = api.subscribe(URL, json!({})).await;
    let before = api.items(ALL).await;
    let (_folder, file) = yaml(&format!(
        "---
id: {}
tenant: {TENANT}
url: {URL}
description: new
secret: '{}'
---
- {{ id: {}, tenant: {TENANT}, url: '{URL}' }}
- tenant: {TENANT}
  url: {URL}/more
",
        old.id,
        "07".repeat(32),
        same.id
    ));
    let args = ["subscriptions", "apply", "-f", &file, "--dry-run"];
    let (code, out, err) = carillon(api, &args, "").await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for part in [
        &format!("~ {}  {TENANT}  {URL}\n", old.id),
        "    description: \"old\" → \"new\"\n",
        "    timeout_ms: 500 → the default\n",
        "    secret: another one\n",
        &format!("+ (a new id)  {TENANT}  {URL}/more\n"),
        "Plan: 1 to create, 1 to update, 0 to delete, 1 unchanged\n",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    for hidden in [&same.id, &unnamed.id, "0707", "\u{1b}"] {
        assert!(!out.contains(hidden), "{hidden}: {out}");
    }
    assert_eq!(api.items(ALL).await, before, "nothing is changed");
    let listed = [&args[..], &["--json"]].concat();
    let document = json_of(&carillon(api, &listed, "").await);
    assert_eq!(document["dry_run"], true);
    let plan = &document["plan"];
    assert_eq!(plan["created"], 1);
    assert_eq!(
        plan["items"][0]["changes"],
        json!(["description", "timeout_ms", "secret"])
    );
    assert_eq!(plan["items"][2]["id"], Value::Null);
    assert!(!document.to_string().contains("0707"), "{document}");
    assert_eq!(api.items(ALL).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_file_does_not_name_is_pruned_when_that_is_meant() {
    let dispatcher = Dispatcher::start().await;
    let api = &dispatcher.api;
    let kept = api.subscribe(URL, json!({})).await;
    let gone = api.subscribe(URL, json!({})).await;
    let shared = api.subscribe(URL, json!({ "tenant": "*" })).await;
    let other = api.subscribe(URL, json!({ "tenant": "other" })).await;
    let before = api.items(ALL).await;
    let (_folder, file) = yaml(&format!(
        "items:
  - {{ id: {}, tenant: {TENANT}, url: '{URL}' }}
  - {{ id: sub_new, tenant: {TENANT}, url: '{URL}' }}
",
        kept.id
    ));
    let args = ["subscriptions", "apply", "-f", &file, "--prune"];
    // Nobody can be asked here.
    let (code, out, err) = carillon(api, &args, "y\n").await;
    assert_eq!(code, 2, "{err}");
    assert!(out.contains(&format!("- {}  ", gone.id)), "{out}");
    assert!(
        err.contains("--yes") && err.contains("Nothing was changed."),
        "{err}"
    );
    let strangers = [&args[..], &["--tenant", "other", "--dry-run"]].concat();
    let (code, out, err) = carillon(api, &strangers, "").await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&other.id) && !out.contains(&gone.id), "{out}");
    assert_eq!(api.items(ALL).await, before);

    let yes = [&args[..], &["--yes", "--json"]].concat();
    let document = json_of(&carillon(api, &yes, "").await);
    assert_eq!(document["deleted"], json!([gone.id]));
    assert_eq!(document["plan"]["deleted"][0]["id"], gone.id);
    assert_eq!(
        [&document["created"], &document["unchanged"]],
        [1, 1],
        "{document}"
    );
    api.get(&gone.path()).await.refused(404, "not_found");
    for there in [&kept, &shared, &other] {
        api.get(&there.path()).await.expect(200);
    }
    let (code, out, _) = carillon(api, &args, "").await;
    assert_eq!(code, 0, "there is nothing left to ask about");
    assert!(out.contains("0 created, 0 updated, 2 unchanged"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pruned_may_be_on_any_page() {
    let dispatcher = Dispatcher::start().await;
    let api = &dispatcher.api;
    let named = |name: &str, n: usize| json!({ "id": format!("sub_{name}{n:03}"), "tenant": TENANT, "url": URL });
    // The list has a hundred on a page: some go from each.
    let kept: Vec<Value> = (0..230).map(|n| named("kept", n)).collect();
    let gone = ["a", "kept100x", "z"].map(|name| named(name, 1));
    let all = [&kept[..], &gone].concat();
    api.put(ALL, &json!(all)).await.expect(200);
    let args = [
        "subscriptions",
        "apply",
        "-f",
        "-",
        "--prune",
        "--yes",
        "--json",
    ];
    let done = json_of(&carillon(api, &args, &json!(kept).to_string()).await);
    let ids = gone.map(|one| one["id"].clone());
    assert_eq!(
        (&done["deleted"], &done["unchanged"]),
        (&json!(ids), &json!(230))
    );
    let left = api.items(&format!("{ALL}?limit=1000")).await;
    assert_eq!(left.len(), kept.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_without_ids_is_refused() {
    let dispatcher = Dispatcher::start().await;
    let api = &dispatcher.api;
    api.subscribe(URL, json!({})).await;
    let before = api.items(ALL).await;
    let args = ["subscriptions", "apply", "-f", "-", "--prune", "--yes"];
    let input = format!("- tenant: {TENANT}\n  url: {URL}\n");
    let (code, out, err) = carillon(api, &args, &input).await;
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.contains("needs an `id`") && err.contains("Nothing was changed."),
        "{err}"
    );
    let lone = ["subscriptions", "apply", "-f", "-", "--tenant", TENANT];
    assert_eq!(carillon(api, &lone, "").await.0, 2);
    // What it warns of is named.
    let inside = json!([{ "id": "sub_in", "tenant": "other", "url": "http://10.0.0.1/in" }]);
    let look = ["subscriptions", "apply", "-f", "-", "--dry-run"];
    let (code, _, err) = carillon(api, &look, &inside.to_string()).await;
    assert_eq!(code, 0);
    assert!(err.starts_with("warning: sub_in: url: 10.0.0.1"), "{err}");
    // An item that is refused ends it before anything goes.
    let bad = json!([{ "id": "sub_bad", "tenant": TENANT, "url": "nowhere" }]);
    let (code, out, err) = carillon(api, &args, &bad.to_string()).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("Nothing was changed."), "{err}");
    assert_eq!(api.items(ALL).await, before);
}
