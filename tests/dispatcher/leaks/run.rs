//! One run of the program, and everything that is heard and seen of it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use carillon::domain::signature::Secret;
use http::Method;
use serde_json::Value;
use tempfile::TempDir;

use super::Piece;
use super::search::Needle;
use crate::dispatcher::collector::Collector;
use crate::dispatcher::harness::{Answer, Api, Subscribed, poll_until};
use crate::dispatcher::hooks::{Hooks, slowly, status};
use crate::dispatcher::program;
use crate::process::{self, Process, Variables};
use crate::store::Store;

/// Texts that are planted, to prove that the search finds what is there.
pub struct Canaries;

impl Canaries {
    /// Begins the id of every event.
    pub const EVENT: &str = "an event's id";
    /// In the custom header of a subscription.
    pub const HEADER: &str = "a custom header";
    /// In the data of an event, in every form.
    pub const DATA: &str = "an event's data";
    /// In what is not understood.
    pub const PUT_ASIDE: &str = "what is put aside";
    /// The name of a metric.
    pub const METRIC: &str = "a metric";
    const METRIC_TEXT: &str = "carillon_build_info";
    const PLANTED: [&str; 4] = [Self::EVENT, Self::HEADER, Self::DATA, Self::PUT_ASIDE];

    fn make() -> Vec<Needle> {
        // With what each form writes in its own way.
        let beginning = |name| if name == Self::DATA { "c???é" } else { "c" };
        let text = |name| format!("{}{}", beginning(name), random());
        let planted = Self::PLANTED.map(|name| Needle::new(name, text(name)));
        let metric = Needle::new(Self::METRIC, Self::METRIC_TEXT);
        planted.into_iter().chain([metric]).collect()
    }
}

/// The program, running.
pub struct Run {
    pub api: Api,
    pub hooks: Hooks,
    pub secure: Hooks,
    pub collector: Collector,
    pub token: String,
    /// Those of `secrets.keys`, in the form of that setting, in the order of their use.
    pub keys: [String; 2],
    pub store: Store,
    folder: TempDir,
    variables: Variables,
    process: Option<Process>,
    logs: Vec<PathBuf>,
    left: Left,
}

/// What a run left behind, and what is to be found in it or not.
#[derive(Default)]
pub struct Left {
    pub pieces: Vec<Piece>,
    /// Must not be found.
    pub needles: Vec<Needle>,
    /// Must be found.
    pub canaries: Vec<Needle>,
}

/// 24 letters and digits.
fn random() -> String {
    let mut random = [0; 12];
    getrandom::fill(&mut random).unwrap();
    hex::encode(random)
}

impl Run {
    /// Starts it, with or without keys.
    pub async fn begin(encrypts: bool) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let hooks = Hooks::answering(|received, _| match received.path.as_str() {
            "/fails" => status(500),
            "/gone" => status(410),
            "/slow" => slowly(200, std::time::Duration::from_secs(2)),
            _ => status(200),
        });
        let (secure, authority) = Hooks::secure(|_, _| status(200)).await;
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, authority).unwrap();
        let store = Store::start().await;
        let collector = Collector::start().await;
        let token = format!("t{}", random());
        let mut variables = store.variables();
        variables.extend([
            ("CARILLON_HTTP__ADMIN_TOKEN", token.clone()),
            ("CARILLON_EGRESS__ALLOW", r#"["127.0.0.1/32"]"#.to_owned()),
            ("CARILLON_EGRESS__CA_FILE", ca_file.display().to_string()),
            ("CARILLON_DELIVERY__RATE_LIMIT__PER_SECOND", "0".to_owned()),
            ("CARILLON_RETRY__SCHEDULE", r#"["10ms"]"#.to_owned()),
            ("CARILLON_TELEMETRY__LOG", "json".to_owned()),
            ("CARILLON_TELEMETRY__OTLP_ENDPOINT", collector.url().into()),
        ]);
        let made = [(); 2].map(|()| {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).unwrap();
            Secret::new(bytes)
        });
        // What must not be found: a new kind of secret is one line more.
        let mut needles = vec![Needle::new("admin token", &token)];
        needles.extend(store.needles());
        for (n, key) in made.iter().enumerate() {
            needles.extend(Needle::of_secret(&format!("key {n}"), key));
        }
        let mut run = Self {
            api: Api::at("", "", None),
            hooks: hooks.await,
            secure,
            collector,
            token,
            keys: [0, 1].map(|n| format!("k{n}:{}", BASE64.encode(made[n].bytes()))),
            store,
            folder,
            variables,
            process: None,
            logs: Vec::new(),
            left: Left {
                pieces: Vec::new(),
                needles,
                canaries: Canaries::make(),
            },
        };
        let first = run.keys[0].clone();
        if encrypts {
            run.set_keys(&[&first]);
        }
        run.command_line(&["init"]).await;
        run.start().await;
        run.store.listen().await;
        run
    }

    /// The text of a canary.
    pub fn canary(&self, name: &str) -> &Needle {
        let all = &self.left.canaries;
        all.iter().find(|canary| canary.name == name).unwrap()
    }

    /// The same, as text.
    pub fn canary_text(&self, name: &str) -> String {
        String::from_utf8(self.canary(name).bytes.clone()).unwrap()
    }

    /// What was said at a place is to be searched.
    pub fn keep(&mut self, place: &str, bytes: impl Into<Vec<u8>>) {
        self.left.pieces.push(Piece::new(place, bytes));
    }

    /// A signing secret of the form of the API, which was shown or given.
    pub fn knows(&mut self, shown: &str) {
        let secret = Secret::parse(shown).unwrap();
        let name = format!("secret {}", self.left.needles.len());
        self.left.needles.extend(Needle::of_secret(&name, &secret));
    }

    /// A tenant's token: what makes it one is behind the dot.
    pub fn knows_tenant_token(&mut self, token: &str) {
        let tag = token.rsplit_once('.').unwrap().1;
        self.left.needles.push(Needle::new("tenant token", tag));
    }

    /// With which keys it starts.
    pub fn set_keys(&mut self, keys: &[&str]) {
        const NAME: &str = "CARILLON_SECRETS__KEYS";
        self.variables.retain(|(name, _)| *name != NAME);
        if !keys.is_empty() {
            self.variables
                .push((NAME, serde_json::to_string(keys).unwrap()));
        }
    }

    /// The configuration of which it was told.
    pub fn config(&self) -> carillon::config::Config {
        let variables = self.variables.iter();
        let owned = variables.map(|(name, value)| ((*name).to_owned(), value.clone()));
        carillon::config::Config::load(None, owned).unwrap().config
    }

    /// Starts it, and waits until it is ready.
    pub async fn start(&mut self) {
        let log = self.file(&format!("{}.log", self.logs.len()));
        let file = File::create(&log).unwrap();
        self.logs.push(log);
        let mut command = self.command();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let process = self.process.insert(Process::start(command));
        self.api = Api::at(process.api(), process.ops(), Some(self.token.clone()));
        let client = reqwest::Client::new();
        let url = format!("{}/readyz", process.ops());
        poll_until("it is ready", async || {
            let answer = client.get(&url).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Tells it to end, and waits for that.
    pub async fn stop(&mut self) {
        let (status, metrics) = self.api.ops("/metrics").await;
        assert_eq!(status, 200);
        self.keep("metrics", metrics);
        let mut process = self.process.take().unwrap();
        process.tell_to_end();
        let ended = poll_until("its end", async || process.ended()).await;
        assert!(ended.success(), "{ended}");
    }

    /// What the process logged that was started last.
    pub fn last_log(&self) -> String {
        std::fs::read_to_string(self.logs.last().unwrap()).unwrap()
    }

    fn command(&self) -> Command {
        let mut command = process::command(self.folder.path(), &self.variables);
        command.env("RUST_LOG", "trace");
        command
    }

    /// Runs the program as a person does, with what `change` does to its environment.
    pub async fn command_line_with(
        &mut self,
        args: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> program::Ran {
        let mut command = self.command();
        command.args(args).env("CARILLON_API", self.api.base());
        command.env("CARILLON_TOKEN", &self.token);
        change(&mut command);
        let ran = program::run(command, String::new()).await;
        self.keep("command line", format!("{}{}", ran.1, ran.2));
        ran
    }

    /// The same, when it has to do as told.
    pub async fn command_line(&mut self, args: &[&str]) {
        let (code, out, err) = self.command_line_with(args, |_| {}).await;
        assert_eq!(code, 0, "{args:?}: {out}{err}");
    }

    /// An answer that shows no secret: to be searched.
    pub async fn ask(&mut self, request: reqwest::RequestBuilder) -> Answer {
        let answer = self.api.send(request).await;
        self.keep("answers", format!("{:?}{}", answer.headers, answer.body));
        answer
    }

    /// `GET`, to be searched as `place`.
    pub async fn look(&mut self, place: &str, path: &str) -> Value {
        let answer = self.api.get(path).await;
        self.keep(place, format!("{:?}{}", answer.headers, answer.body));
        answer.expect(200)
    }

    /// A request with a document whose answer shows no secret.
    pub async fn tell(&mut self, method: Method, path: &str, document: &Value) -> Answer {
        let request = self.api.request(method, path).json(document);
        self.ask(request).await
    }

    /// Creates a subscription; the answer shows its secret, and is not searched.
    pub async fn subscribe(&mut self, url: &str, more: Value) -> Subscribed {
        let made = self.api.subscribe(url, more).await;
        self.was_shown(&made.document);
        made
    }

    /// The secret that a document shows by contract.
    pub fn was_shown(&mut self, document: &Value) {
        let secret = &document["secret"];
        // Of a pair the public key alone is shown.
        if let Some(whsec) = secret["whsec"].as_str() {
            self.knows(whsec);
        } else {
            assert!(secret["public_key"].is_string(), "{document}");
        }
    }

    /// Ends it, and gathers what it left behind.
    pub async fn end(mut self) -> Left {
        self.stop().await;
        for log in std::mem::take(&mut self.logs) {
            let text = std::fs::read(log).unwrap();
            self.keep("log", text);
        }
        let spans = self.collector.bytes();
        self.keep("spans", spans);
        let stored = self.store.pieces().await;
        self.left.pieces.extend(stored);
        self.left
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// All files below a folder, to be searched as `place`.
pub fn files_below(folder: &Path, place: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pieces.extend(files_below(&path, place));
        } else if path.is_file()
            && let Ok(bytes) = std::fs::read(&path)
        {
            pieces.push(Piece::new(place, bytes));
        }
    }
    pieces
}

/// A kept value, and what it is when it is unpacked, if it is an attempt: as it is in a file, or
/// behind its head in Redis.
pub fn with_unpacked(place: &str, value: Vec<u8>) -> Vec<Piece> {
    const HEAD_BYTES: usize = 41;
    const BYTES_MAX: usize = 1 << 20;
    let mut pieces = Vec::new();
    for at in [0, HEAD_BYTES] {
        let record = value.get(at..).unwrap_or_default();
        if let Ok((size, packed)) = lz4_flex::block::uncompressed_size(record)
            && size <= BYTES_MAX
            && let Ok(unpacked) = lz4_flex::decompress(packed, size)
        {
            pieces.push(Piece::new(format!("{place}, unpacked"), unpacked));
        }
    }
    pieces.push(Piece::new(place, value));
    pieces
}
