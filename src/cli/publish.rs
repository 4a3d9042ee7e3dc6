//! `carillon publish`: events from a file or standard input, in batches.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde_json::json;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::client::{ApiClient, ApiError, Repeat};
use super::{CliError, Globals, output};

mod batch;

use batch::{Batcher, Event};

/// Lines of refused events that are printed; the rest is only counted.
const REFUSALS_SHOWN: u64 = 50;

/// Publish events from a file or standard input
///
/// One event per line (JSON lines), or one JSON array of events. Events go out in batches
/// that are accepted as a whole or not at all. An event's id is its idempotency key:
/// publishing a file again within `dedup.window` delivers nothing twice.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon publish events.jsonl
  jq -c '.[]' export.json | carillon publish
  carillon publish --skip-invalid events.jsonl

An event:
  {\"id\":\"evt-1\",\"type\":\"lookup.done\",\"tenant\":\"acme\",
   \"timestamp\":\"2026-03-01T12:30:00Z\",\"data\":{}}    (on one line)")]
pub struct Args {
    /// The file; `-` for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// Events in one request (1 to 1000)
    #[arg(long, value_name = "N", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub batch: u16,
    /// Leave out what is refused, and go on
    #[arg(long)]
    pub skip_invalid: bool,
}

/// Publishes and prints how many.
///
/// # Errors
/// When an event was refused, or the API cannot be asked.
pub async fn run(args: Args, globals: &Globals) -> Result<(), CliError> {
    let (mut input, size) = open(&args.file).await?;
    let mut publisher = Publisher::new(&args, ApiClient::new(globals)?, size);
    let result = publisher.publish_all(&mut input).await;
    publisher.progress.finish_and_clear();
    publisher.summary(globals.json)?;
    result?;
    if publisher.refused > 0 {
        return Err(CliError::Reported);
    }
    Ok(())
}

type Input = Box<dyn AsyncBufRead + Unpin + Send>;

async fn open(path: &Path) -> Result<(Input, Option<u64>), CliError> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::new(tokio::io::stdin())), None));
    }
    let wrong = |error: std::io::Error| CliError::io(&path.display().to_string(), &error);
    let file = tokio::fs::File::open(path).await.map_err(wrong)?;
    let about = file.metadata().await.map_err(wrong)?;
    let size = about.is_file().then_some(about.len());
    Ok((Box::new(BufReader::with_capacity(256 * 1024, file)), size))
}

struct Publisher {
    client: ApiClient,
    skip_invalid: bool,
    batcher: Batcher,
    progress: ProgressBar,
    by_bytes: bool,
    /// What events are numbered by.
    noun: &'static str,
    published: u64,
    refused: u64,
}

impl Publisher {
    fn new(args: &Args, client: ApiClient, size: Option<u64>) -> Self {
        let unit = if size.is_some() { "bytes" } else { "events" };
        Self {
            client,
            skip_invalid: args.skip_invalid,
            batcher: Batcher::new(args.batch.into()),
            progress: output::progress(size, unit),
            by_bytes: size.is_some(),
            noun: "line",
            published: 0,
            refused: 0,
        }
    }

    async fn publish_all(&mut self, input: &mut Input) -> Result<(), CliError> {
        let unreadable = |error: std::io::Error| CliError::io("the input", &error);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = input.read_until(b'\n', &mut line).await;
            let read = read.map_err(unreadable)?;
            if read == 0 {
                break;
            }
            if line.trim_ascii_start().starts_with(b"[") && self.is_first() {
                let rest = input.read_to_end(&mut line).await;
                rest.map_err(unreadable)?;
                return self.publish_array(&line).await;
            }
            match batch::read_line(&line) {
                Ok(None) => {}
                Ok(Some(text)) => self.push(Event { number, text }).await?,
                Err(problem) => {
                    self.flush().await?;
                    self.refuse(number, &problem)?;
                }
            }
            if self.by_bytes {
                self.progress.inc(read as u64);
            }
        }
        self.flush().await
    }

    fn is_first(&self) -> bool {
        self.published == 0 && self.refused == 0 && self.batcher.is_empty()
    }

    async fn publish_array(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.noun = "element";
        let events = batch::read_array(bytes).map_err(CliError::Failed)?;
        for event in events {
            self.push(event).await?;
        }
        self.flush().await
    }

    async fn push(&mut self, event: Event) -> Result<(), CliError> {
        match self.batcher.push(event) {
            Some(batch) => self.send(batch).await,
            None => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), CliError> {
        let batch = self.batcher.take();
        self.send(batch).await
    }

    /// Sends a batch; leaves out what is refused, if that is wanted, by what the answer
    /// says or else by halving.
    async fn send(&mut self, batch: Vec<Event>) -> Result<(), CliError> {
        let mut open = VecDeque::from([batch]);
        while let Some(mut batch) = open.pop_front() {
            if batch.is_empty() {
                continue;
            }
            let error = match self.send_once(&batch).await {
                Ok(()) => continue,
                Err(error) => error,
            };
            let Some(problem) = error.problem().filter(|p| batch::is_refusal(p)) else {
                return Err(error.into());
            };
            let refused = batch::refused(problem, batch.len());
            let too_large = problem.status == 413 && refused.is_empty();
            if let [only] = batch.as_slice() {
                let reason = refused
                    .first()
                    .map_or(problem.to_string(), |(_, r)| r.clone());
                self.refuse(only.number, &reason)?;
            } else if !refused.is_empty() {
                self.refuse_some(&mut batch, &refused)?;
                open.push_front(batch);
            } else if too_large || self.skip_invalid {
                let rest = batch.split_off(batch.len() / 2);
                open.push_front(rest);
                open.push_front(batch);
            } else {
                return Err(self.refuse_batch(&batch, &problem.to_string()));
            }
        }
        Ok(())
    }

    async fn send_once(&mut self, batch: &[Event]) -> Result<(), ApiError> {
        let body = batch::encode(batch);
        // An event's id makes a second publish of it harmless.
        self.client
            .post_raw(&["events"], body, Repeat::Safe)
            .await?;
        self.published += batch.len() as u64;
        if self.by_bytes {
            let published = output::count(self.published, "event");
            self.progress.set_message(published);
        } else {
            self.progress.set_position(self.published);
        }
        Ok(())
    }

    /// Takes the refused events out of a batch, of which nothing was accepted.
    fn refuse_some(
        &mut self,
        batch: &mut Vec<Event>,
        refused: &[(usize, String)],
    ) -> Result<(), CliError> {
        if !self.skip_invalid {
            // A refusal names at least one.
            let (index, reason) = &refused[0];
            let number = batch[*index].number;
            let reason = format!("{} {number}: {reason}", self.noun);
            return Err(self.refuse_batch(batch, &reason));
        }
        for (index, reason) in refused {
            self.refuse(batch[*index].number, reason)?;
        }
        let mut index = 0;
        batch.retain(|_| {
            index += 1;
            !refused.iter().any(|(gone, _)| gone + 1 == index)
        });
        Ok(())
    }

    fn refuse_batch(&mut self, batch: &[Event], reason: &str) -> CliError {
        self.refused += 1;
        let first = batch.first().map_or(0, |event| event.number);
        let last = batch.last().map_or(0, |event| event.number);
        CliError::Failed(format!(
            "{reason}\nNothing from {noun} {first} to {last} was published. Correct it and \
             publish again (what was published is recognised by its id), or leave out what is \
             refused with --skip-invalid.",
            noun = self.noun
        ))
    }

    /// One event is refused: the end, or said and counted.
    fn refuse(&mut self, number: u64, reason: &str) -> Result<(), CliError> {
        self.refused += 1;
        let text = format!("{} {number}: {reason}", self.noun);
        if !self.skip_invalid {
            let advice = "Leave out what is refused with --skip-invalid.";
            return Err(CliError::Failed(format!("{text}\n{advice}")));
        }
        if self.refused <= REFUSALS_SHOWN {
            self.progress.suspend(|| output::note(&text));
        }
        Ok(())
    }

    fn summary(&self, as_json: bool) -> Result<(), CliError> {
        if as_json {
            return output::json(&json!({"published": self.published, "refused": self.refused}));
        }
        let mut text = format!("published {}", output::count(self.published, "event"));
        if self.refused > 0 {
            text.push_str(&format!(", refused {}", self.refused));
        }
        output::line(&text)
    }
}

#[cfg(test)]
mod tests;
