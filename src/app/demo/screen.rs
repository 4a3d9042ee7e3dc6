//! What the demo shows while it runs: a live table on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::cast::PARTS;

/// Where the demo tells what happens; cheap to clone.
#[derive(Clone)]
pub struct Screen {
    begun: Instant,
    rows: Option<(MultiProgress, Vec<ProgressBar>)>,
}

impl Screen {
    /// An empty screen.
    pub fn start() -> Self {
        let rows = std::io::stdout().is_terminal().then(|| {
            let table = MultiProgress::new();
            // The template is constant and tried by every run on a terminal.
            let style = ProgressStyle::with_template("{prefix:>9}  {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let row = |part: &super::Part| {
                let row = table.add(ProgressBar::new_spinner().with_style(style.clone()));
                row.set_prefix(part.name());
                row
            };
            let rows = PARTS.iter().map(row).collect();
            (table, rows)
        });
        Self {
            begun: Instant::now(),
            rows,
        }
    }

    /// Tells something.
    pub fn say(&self, line: &str) {
        match &self.rows {
            // Without a terminal to write to there is nobody to tell.
            Some((table, _)) => drop(table.println(line)),
            None => println!("{line}"),
        }
    }

    /// A request came in: shows its line, or the table as it is now.
    pub fn received(&self, line: &str, table: &[(&str, String)]) {
        match &self.rows {
            Some((_, rows)) => {
                for (row, (_, text)) in rows.iter().zip(table) {
                    row.set_message(text.clone());
                }
            }
            None => println!("{:7.3}s  {line}", self.begun.elapsed().as_secs_f64()),
        }
    }

    /// The table stays as it is.
    pub fn finish(&self) {
        for row in self.rows.iter().flat_map(|(_, rows)| rows) {
            row.abandon();
        }
    }
}
