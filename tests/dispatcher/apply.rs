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
