//! One `guard.sh`: servers that end when this process ends, or before.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// Ends each word of a command, so that words may hold blanks or be empty.
const WORD_END: char = '\u{1f}';

/// What the scripts take from the environment.
#[derive(Default)]
pub struct Settings(Vec<(&'static str, String)>);

impl Settings {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.push((name, value.into()));
        self
    }
}

pub struct Guard {
    child: Option<Child>,
    /// Closing it ends the servers; the system does so when this process ends.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Where the servers are, in their order.
    pub urls: Vec<String>,
}

impl Guard {
    /// Starts servers and waits until they are up. An error says why they are not.
    pub fn start(what: &[&str], settings: Settings) -> Result<Self, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/guard.sh");
        let mut child = Command::new(script)
            .args(what)
            .envs(settings.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C ends the tests; the guard sees that and tidies up in peace.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("guard.sh cannot be run: {error}"))?;
        let commands = child.stdin.take();
        let mut guard = Self {
            commands,
            answers: BufReader::new(child.stdout.take().unwrap()),
            child: Some(child),
            urls: Vec::new(),
        };
        let answer = guard.line()?;
        let urls = answer.strip_prefix("ready ").ok_or_else(|| {
            let problem = answer.strip_prefix("failed ").unwrap_or(&answer);
            format!("{}: {problem}", what.join(" "))
        })?;
        guard.urls = urls.split_whitespace().map(str::to_owned).collect();
        Ok(guard)
    }

    /// Has the guard carry out one command; returns what it printed.
    pub fn ask(&mut self, words: &[String]) -> Result<String, String> {
        let mut command = String::new();
        for word in words {
            assert!(
                !word.contains(['\n', WORD_END]),
                "not in a command: {word:?}"
            );
            command.push_str(word);
            command.push(WORD_END);
        }
        let sent = writeln!(self.commands.as_mut().unwrap(), "{command}");
        sent.map_err(|error| format!("the guard is gone: {error}"))?;
        let mut output = Vec::new();
        loop {
            let line = self.line()?;
            if let Some(line) = line.strip_prefix("| ") {
                output.push(line.to_owned());
            } else if line == "ok" {
                return Ok(output.join("\n"));
            } else {
                let problem = line.strip_prefix("failed ").unwrap_or(&line);
                return Err(format!("{}: {problem}", words.join(" ")));
            }
        }
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err("the guard ended; standard error says more".to_owned()),
            Ok(_) => Ok(line.trim_end_matches('\n').to_owned()),
            Err(error) => Err(format!("the guard says nothing: {error}")),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.commands.take());
        // It goes on by itself. The thread is there to take note of its end.
        if let Some(mut child) = self.child.take() {
            thread::spawn(move || child.wait());
        }
    }
}

/// Servers under a guard, for asynchronous tests: the waiting is done on other threads.
pub struct Servers {
    guard: Arc<Mutex<Guard>>,
    pub urls: Vec<String>,
}

impl Servers {
    /// # Panics
    /// When the servers are not installed or do not come up.
    pub async fn start(what: &[&str], settings: Settings) -> Self {
        let what: Vec<String> = what.iter().map(|&word| word.to_owned()).collect();
        let started = off_thread(move || {
            let what: Vec<&str> = what.iter().map(String::as_str).collect();
            Guard::start(&what, settings)
        });
        let guard = started.await.unwrap_or_else(|problem| panic!("{problem}"));
        Self {
            urls: guard.urls.clone(),
            guard: Arc::new(Mutex::new(guard)),
        }
    }

    pub async fn try_ask(&self, words: &[&str]) -> Result<String, String> {
        let guard = Arc::clone(&self.guard);
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        off_thread(move || guard.lock().unwrap().ask(&words)).await
    }

    /// # Panics
    /// When the command fails.
    pub async fn ask(&self, words: &[&str]) -> String {
        let answer = self.try_ask(words).await;
        answer.unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// A command about the node or server of that number.
    pub async fn tell(&self, verb: &str, number: usize, words: &[&str]) -> String {
        let number = number.to_string();
        self.ask(&[&[verb, &number], words].concat()).await
    }
}

/// Waits for what blocks, without blocking the runtime.
pub async fn off_thread<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(what).await.unwrap()
}
