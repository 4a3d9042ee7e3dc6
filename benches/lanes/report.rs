//! What is printed: tables of plain text, and in the end a summary in markdown.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};

use crate::args::Scenario;

/// What a scenario has shown.
pub struct Report {
    /// Its tables.
    pub text: String,
    /// What goes into the summary, a line each.
    pub notes: Vec<String>,
}

/// The notes of all scenarios.
pub struct Summary {
    text: String,
}

impl Summary {
    /// Begins one; `on` says what it was measured on.
    pub fn new(on: &str) -> Self {
        let build = match cfg!(debug_assertions) {
            true => "debug build",
            false => "release build",
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let text = format!("### Lanes, {on} ({build}, {cores} cores)\n");
        Self { text }
    }

    /// Adds the notes of a scenario.
    pub fn add(&mut self, scenario: Scenario, notes: Vec<String>) {
        self.text += &format!("\n**{scenario}**\n\n");
        for note in notes {
            self.text += &format!("- {note}\n");
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A table of names and what there is to say about each.
pub fn facts(title: &str, rows: impl IntoIterator<Item = (&'static str, String)>) -> Table {
    let rows = rows.into_iter().map(|(name, fact)| [name.to_owned(), fact]);
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([title, ""]);
    table.add_rows(rows);
    table
}

/// A table: the first column is text, the others are numbers.
pub fn grid<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
