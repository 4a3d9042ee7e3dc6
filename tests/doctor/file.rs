//! Embedded: the file, its folder, and what the settings alone tell.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use crate::harness::{Patient, TOKEN, key};
use crate::program::run;

/// What is in a folder, with the size of each.
fn listing(folder: &Path) -> Vec<(String, u64)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, entry.metadata().unwrap().len())
        })
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn safe_settings_pass_before_the_first_start_and_after_it() {
    let patient = Patient::new();
    let found = patient.look().await;
    assert_eq!(found.code, 0, "{}", found.text);
    assert_eq!(found.names("failed"), [""; 0]);
    for name in [
        "configuration",
        "admin token",
        "encryption",
        "egress",
        "folder",
    ] {
        assert_eq!(found.of(name).0, "ok", "{name}: {}", found.text);
    }
    found.expect("file", "ok", "is not there yet");
    found.expect("dns", "skipped", "no name");
    found.expect("api", "skipped", "does not run");
    found.expect("ready", "skipped", "does not run");
    assert!(listing(patient.folder.path()).is_empty(), "nothing is made");

    let (patient, process) = patient.serve().await;
    patient.subscribe(&process).await;
    let found = patient.look().await;
    assert_eq!(found.code, 0, "{}", found.text);
    for (name, part) in [
        ("file", "its owner's alone"),
        ("tables", "version"),
        ("stored secrets", "1 subscription"),
        ("api", "takes the token"),
        ("ready", "takes events"),
    ] {
        found.expect(name, "ok", part);
    }
    let found = patient.look_with(&["--token", "another"]).await;
    assert_eq!(found.code, 1);
    found.expect("api", "failed", "--token");

    // Nobody has the file open: looking at it leaves nothing beside it.
    process.tell_to_end();
    let mut process = process;
    crate::until::until("it ends", std::time::Duration::from_secs(40), async || {
        process.ended()
    })
    .await;
    let before = listing(patient.folder.path());
    let found = patient.look().await;
    assert_eq!(found.code, 0, "{}", found.text);
    found.expect("stored secrets", "ok", "1 subscription");
    assert_eq!(listing(patient.folder.path()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_lost_is_named() {
    let (patient, process) = Patient::new().serve().await;
    patient.subscribe(&process).await;
    let keys = |patient: Patient, keys: &[&str]| {
        let keys: Vec<String> = keys.iter().map(|id| key(id)).collect();
        patient.with("CARILLON_SECRETS__KEYS", &json!(keys).to_string())
    };
    // While it runs as well as after a crash.
    let patient = keys(patient, &["b"]);
    for process in [Some(process), None] {
        let found = patient.look().await;
        assert_eq!(found.code, 1);
        found.expect("stored secrets", "failed", "1 subscription has");
        found.expect("stored secrets", "failed", "`a`");
        if let Some(process) = process {
            process.kill();
        }
    }
    let patient = keys(patient, &["b", "a"]);
    let found = patient.look().await;
    found.expect("stored secrets", "ok", "1 subscription");
    assert_eq!(found.code, 0, "{}", found.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_may_read_is_a_warning() {
    let patient = Patient::new().with("CARILLON_EMBEDDED__PATH", "mine.db");
    let file = patient.folder.path().join("mine.db");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let found = patient.look().await;
    assert_eq!(found.code, 0, "{}", found.text);
    found.expect("file", "warning", "0644");
    found.expect("file", "warning", "chmod 600");
    found.expect("tables", "ok", "empty");
    assert_eq!(patient.look_with(&["--strict"]).await.code, 1);
    fs::write(
        &file,
        "not a database, and longer than the head of one is: ".repeat(9),
    )
    .unwrap();
    let found = patient.look().await;
    found.expect("tables", "failed", "no Carillon database");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_fails() {
    let patient = Patient::new().with("CARILLON_EMBEDDED__PATH", "missing/carillon.db");
    let found = patient.look().await;
    assert_eq!(found.code, 1);
    found.expect("folder", "failed", "missing");
    assert!(!patient.folder.path().join("missing").exists());

    let patient = Patient::new().with("CARILLON_EGRESS__CA_FILE", "ca.pem");
    let found = patient.look().await;
    assert_eq!(found.code, 1);
    found.expect("tls roots", "failed", "ca.pem");
    fs::write(patient.folder.path().join("ca.pem"), "no certificate").unwrap();
    patient
        .look()
        .await
        .expect("tls roots", "failed", "holds no certificate");
    let made = rcgen::generate_simple_self_signed(["x.example".to_owned()]).unwrap();
    fs::write(patient.folder.path().join("ca.pem"), made.cert.pem()).unwrap();
    patient.look().await.expect("tls roots", "ok", "1 of");

    let patient = Patient::new().with("CARILLON_DELIVERY__TIMEOUT", "soon");
    let found = patient.look().await;
    assert_eq!(found.code, 1);
    found.expect("configuration", "failed", "CARILLON_DELIVERY__TIMEOUT");
    let (code, _, _) = run(patient.command(&["doctor", "--thorough"]), String::new()).await;
    assert_eq!(code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_is_told() {
    let patient = Patient::new()
        .with("CARILLON_HTTP__ADMIN_TOKEN", "short-token-of-27-letters-x")
        .with("CARILLON_EGRESS__ALLOW", "[\"10.0.0.0/8\", \"8.8.8.8/24\"]")
        .with("CARILLON_EGRESS__REQUIRE_HTTPS", "false")
        .with("CARILLON_SECRETS__KEYS", "[]");
    let found = patient.look().await;
    assert_eq!(found.code, 0, "{}", found.text);
    found.expect("configuration", "warning", "8.8.8.0/24");
    found.expect("admin token", "warning", "27 characters");
    found.expect("encryption", "warning", "secrets rotate");
    found.expect("egress", "warning", "10.0.0.0/8");
    found.expect("egress", "warning", "require_https");
    assert!(!found.of("egress").1.contains("8.8.8.8"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_reads_it_without_colours_and_no_secret_is_in_it() {
    let patient = Patient::new();
    let (code, out, err) = run(patient.command(&["doctor"]), String::new()).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for part in ["✓ ok", "– skipped", "admin token", " failed, "] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let key = key("a");
    let (_, key) = key.split_once(':').unwrap();
    for hidden in ["\u{1b}", TOKEN, key] {
        assert!(!out.contains(hidden), "{out}");
    }
}
