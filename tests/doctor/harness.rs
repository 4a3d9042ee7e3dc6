//! A configuration to be looked at, and what is found.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{self, Process, Variables};
use crate::program::run;
use crate::until::until;

/// A token that nobody guesses.
pub const TOKEN: &str = "c0ffee0123456789abcdef0123456789XYZ";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(40);

/// Settings that are safe, in a folder of their own, on ports where nobody listens.
pub struct Patient {
    pub folder: TempDir,
    variables: Variables,
}

/// What a look found.
#[derive(Debug)]
pub struct Found {
    pub code: i32,
    document: Value,
    /// Everything that was printed.
    pub text: String,
}

/// A key for `secrets.keys`.
pub fn key(id: &str) -> String {
    let byte = format!("{:A<43}=", id.to_uppercase());
    format!("{id}:{byte}")
}

impl Patient {
    pub fn new() -> Self {
        // Whoever comes second finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let safe = Self {
            folder: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
        };
        safe.with("CARILLON_HTTP__LISTEN", &free_address())
            .with("CARILLON_OPS__LISTEN", &free_address())
            .with("CARILLON_HTTP__ADMIN_TOKEN", TOKEN)
            .with("CARILLON_EGRESS__REQUIRE_HTTPS", "true")
            .with("CARILLON_SECRETS__KEYS", &json!([key("a")]).to_string())
    }

    /// With a setting; the last one counts.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    /// The program with these settings.
    pub fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = process::command(self.folder.path(), &self.variables);
        command.args(args);
        command
    }

    /// What `carillon doctor` finds.
    pub async fn look(&self) -> Found {
        self.look_with(&[]).await
    }

    pub async fn look_with(&self, args: &[&str]) -> Found {
        let args = [&["doctor", "--json"], args].concat();
        let (code, out, err) = run(self.command(&args), String::new()).await;
        let document = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
        Found {
            code,
            document,
            text: out + &err,
        }
    }

    /// Runs `carillon serve` until it is ready; with it, the address of its API and of its operations
    /// listener are set.
    pub async fn serve(self) -> (Self, Process) {
        let process = Process::start(process::command(self.folder.path(), &self.variables));
        let (api, ops) = (process.api().to_owned(), process.ops().to_owned());
        let client = reqwest::Client::new();
        let ready = format!("{ops}/readyz");
        until("it is ready", PATIENCE, async || {
            let answer = client.get(&ready).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        let bare = |url: &str| url.trim_start_matches("http://").to_owned();
        let patient = self
            .with("CARILLON_HTTP__LISTEN", &bare(&api))
            .with("CARILLON_OPS__LISTEN", &bare(&ops));
        (patient, process)
    }

    /// Has the running one make a subscription.
    pub async fn subscribe(&self, process: &Process) {
        let args = [
            "subscriptions",
            "create",
            "--tenant",
            "acme",
            "--url",
            "https://192.0.2.1/hook",
            "--api",
            process.api(),
            "--token",
            TOKEN,
        ];
        let (code, _, err) = run(self.command(&args), String::new()).await;
        assert_eq!(code, 0, "{err}");
    }
}

impl Found {
    /// The verdict on `name`, and what was found with the advice.
    #[track_caller]
    pub fn of(&self, name: &str) -> (&str, String) {
        let checks = self.document["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == name);
        let check = check.unwrap_or_else(|| panic!("no {name}: {}", self.text));
        let text = |member: &str| check[member].as_str().unwrap_or_default();
        let told = format!("{} → {}", text("detail"), text("advice"));
        (text("verdict"), told)
    }

    #[track_caller]
    pub fn expect(&self, name: &str, verdict: &str, part: &str) {
        let (found, told) = self.of(name);
        assert_eq!(found, verdict, "{name}: {told}");
        assert!(told.contains(part), "{name}: {told}");
    }

    /// The names of those with this verdict.
    pub fn names(&self, verdict: &str) -> Vec<&str> {
        let checks = self.document["checks"].as_array().unwrap();
        let of = checks.iter().filter(|check| check["verdict"] == verdict);
        of.filter_map(|check| check["name"].as_str()).collect()
    }
}

/// Nobody listens there.
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
