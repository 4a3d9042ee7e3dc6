//! What commands print: tables, JSON documents, times, and text that others wrote.
//!
//! Colours only on a terminal, and not with `NO_COLOR`. What came over the network is
//! printed without its control characters: it must not drive the reader's terminal.

use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal as _, Write as _};

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, Width};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::CliError;
use crate::domain::timestamp::UnixMillis;

/// A colour with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// Look here.
    Notable,
    /// Look elsewhere.
    Faint,
    /// A heading.
    Strong,
}

/// How standard output may be used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// With colours.
    pub colour: bool,
}

impl Look {
    /// By what standard output is, and the environment.
    pub fn detect() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = std::io::stdout().is_terminal() && !no_color && !dumb;
        Self { colour }
    }

    /// `text` in a colour, if colours may be used.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Notable => "33",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// A cell of a table in a colour, if colours may be used.
    pub fn cell(self, tone: Tone, text: impl ToString) -> Cell {
        let cell = Cell::new(text);
        match tone {
            _ if !self.colour => cell,
            Tone::Good => cell.fg(Color::Green),
            Tone::Bad => cell.fg(Color::Red),
            Tone::Notable => cell.fg(Color::Yellow),
            Tone::Faint => cell.add_attribute(Attribute::Dim),
            Tone::Strong => cell.add_attribute(Attribute::Bold),
        }
    }
}

/// Writes bytes to standard output.
///
/// # Errors
/// [`CliError::OutputClosed`] when nobody reads any more, else the failure.
pub fn write(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(CliError::OutputClosed),
        Err(error) => Err(CliError::io("standard output", &error)),
    }
}

/// Prints a line.
///
/// # Errors
/// As [`write()`].
pub fn line(text: &str) -> Result<(), CliError> {
    write(format!("{text}\n").as_bytes())
}

/// Prints a JSON document, spread over lines.
///
/// # Errors
/// As [`write()`].
pub fn json(document: &Value) -> Result<(), CliError> {
    line(&format!("{document:#}"))
}

/// Says something on standard error. Nothing is done when it is closed: there is
/// nowhere left to say so.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Longer words may be broken, so that one URL does not decide the form of a table. Ids are shorter.
const WORD_CHARS_MAX: usize = 40;
/// Between two columns.
const GAP: u16 = 2;

/// Prints a table that fits the terminal, or where it is too narrow for whole words, each row as
/// names and values below each other; one line per row, unwrapped, elsewhere.
///
/// # Errors
/// As [`write()`].
pub fn table(look: Look, header: &[&str], rows: Vec<Vec<Cell>>) -> Result<(), CliError> {
    line(&render_table(look, header, rows, Table::new().width()))
}

/// `width`: of the terminal; `None` where there is none.
fn render_table(look: Look, header: &[&str], rows: Vec<Vec<Cell>>, width: Option<u16>) -> String {
    let word = |text: &str| {
        text.split_whitespace()
            .map(|word| word.chars().count())
            .max()
    };
    let of_column = |(n, name): (usize, &&str)| {
        let cells = rows.iter().filter_map(|row| word(&row.get(n)?.content()));
        let longest = cells.chain(word(name)).max().unwrap_or(0);
        u16::try_from(longest.min(WORD_CHARS_MAX)).unwrap_or(u16::MAX) + GAP
    };
    let narrowest: Vec<u16> = header.iter().enumerate().map(of_column).collect();
    if width.is_some_and(|width| narrowest.iter().sum::<u16>() > width) {
        return render_records(look, header, rows, width);
    }
    let head = header.iter().map(|name| look.cell(Tone::Strong, name));
    let mut table = plain_table(width);
    table.set_header(head).add_rows(rows);
    for (column, narrowest) in table.column_iter_mut().zip(narrowest) {
        column.set_padding((0, GAP));
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(narrowest)));
    }
    table.trim_fmt()
}

/// Each row by itself, without what is empty in it.
fn render_records(look: Look, header: &[&str], rows: Vec<Vec<Cell>>, width: Option<u16>) -> String {
    let longest = header.iter().map(|name| name.chars().count()).max();
    let names = u16::try_from(longest.unwrap_or(0)).unwrap_or(u16::MAX) + GAP;
    let record = |row: Vec<Cell>| {
        let mut table = plain_table(width);
        for (name, cell) in header.iter().zip(row) {
            if !cell.content().is_empty() {
                table.add_row(vec![look.cell(Tone::Strong, name), cell]);
            }
        }
        if let Some(column) = table.column_mut(0) {
            column.set_padding((0, GAP));
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(names)));
        }
        if let Some(column) = table.column_mut(1) {
            column.set_padding((0, 0));
        }
        table.trim_fmt()
    };
    let records: Vec<String> = rows.into_iter().map(record).collect();
    records.join("\n\n")
}

fn plain_table(width: Option<u16>) -> Table {
    let mut table = Table::new();
    table
        .load_preset(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width {
        table.set_width(width);
    }
    table
}

/// Prints names and values below each other; values that are empty are left out.
///
/// # Errors
/// As [`write()`].
pub fn fields(look: Look, pairs: &[(&str, String)]) -> Result<(), CliError> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let name = look.paint(Tone::Faint, &format!("{name:<width$}"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}  {value}");
    }
    write(text.as_bytes())
}

/// `text` without control characters other than line breaks and tabs.
pub fn visible(text: &str) -> String {
    let hidden = |c: char| (c.is_control() && c != '\n' && c != '\t') || is_bidi_control(c);
    text.chars()
        .map(|c| if hidden(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Characters that make text read in another order than it is stored.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text of a member; empty when it is absent or null.
pub fn text_of(item: &Value, name: &str) -> String {
    match &item[name] {
        Value::Null => String::new(),
        Value::String(text) => visible(text),
        other => other.to_string(),
    }
}

/// A member that is a time: `2026-03-01 12:30:00 (5m ago)`; as it is when it is no time.
pub fn time_of(item: &Value, name: &str, now: UnixMillis) -> String {
    let text = text_of(item, name);
    match UnixMillis::parse_rfc3339(&text) {
        Some(at) => moment(at, now),
        None => text,
    }
}

/// The same, short, for a table: `12:30:00Z (5m ago)` today, else `2026-03-01 12:30Z`.
pub fn short_time_of(item: &Value, name: &str, now: UnixMillis) -> String {
    let text = text_of(item, name);
    let Some(at) = UnixMillis::parse_rfc3339(&text) else {
        return text;
    };
    // The text has a fixed form: the date, `T`, the time to the second, a fraction.
    let (text, today) = (at.to_string(), now.to_string());
    match (text.get(..10), text.get(11..16), text.get(11..19)) {
        (date, _, Some(time)) if date == today.get(..10) => {
            format!("{time}Z ({})", at.beside(now))
        }
        (Some(date), Some(time), _) => format!("{date} {time}Z"),
        _ => text,
    }
}

/// `2026-03-01 12:30:00Z (5m ago)`
pub fn moment(at: UnixMillis, now: UnixMillis) -> String {
    let text = at.to_string();
    // The text has a fixed form: the date, `T`, the time to the second, a fraction.
    let short = text.get(..19).unwrap_or(&text).replace('T', " ");
    format!("{short}Z ({})", at.beside(now))
}

/// `1 event`, `2 events`.
pub fn count(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{plural}")
}

/// A progress bar on standard error over `total` (a spinner without); hidden when that
/// is no terminal. `unit` is `bytes` or the plural of what is counted.
pub fn progress(total: Option<u64>, unit: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (template, bar) = match (total, unit) {
        (Some(total), "bytes") => (
            "{bar:32} {bytes}/{total_bytes} {msg} {eta} left".to_owned(),
            ProgressBar::new(total),
        ),
        (Some(total), unit) => (
            format!("{{bar:32}} {{pos}}/{{len}} {unit} {{msg}} {{eta}} left"),
            ProgressBar::new(total),
        ),
        (None, unit) => (
            format!("{{spinner}} {{pos}} {unit} {{msg}} {{elapsed}}"),
            ProgressBar::new_spinner(),
        ),
    };
    // A template that indicatif does not accept costs looks only.
    let style = ProgressStyle::with_template(&template);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_relative_too() {
        let now = UnixMillis::parse_rfc3339("2026-03-01T12:30:00Z").unwrap();
        let item = json!({"a": "2026-03-01T12:25:00Z", "b": "2026-03-01T15:30:00.5Z", "c": "x"});
        let a = time_of(&item, "a", now);
        assert_eq!(a, "2026-03-01 12:25:00Z (5m ago)");
        assert_eq!(time_of(&item, "b", now), "2026-03-01 15:30:00Z (in 3h)");
        assert_eq!(time_of(&item, "c", now), "x");
        assert_eq!(time_of(&item, "absent", now), "");
        assert_eq!(now.beside(now), "now");
    }

    #[test]
    fn a_table_has_short_times() {
        let now = UnixMillis::parse_rfc3339("2026-03-01T12:30:00Z").unwrap();
        let item = json!({"a": "2026-03-01T12:25:00Z", "b": "2026-02-28T12:25:00Z", "c": "x"});
        assert_eq!(short_time_of(&item, "a", now), "12:25:00Z (5m ago)");
        assert_eq!(short_time_of(&item, "b", now), "2026-02-28 12:25Z");
        assert_eq!(short_time_of(&item, "c", now), "x");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(
            visible("a\u{1b}[2Jb\r\nc\u{202e}"),
            "a\u{fffd}[2Jb\u{fffd}\nc\u{fffd}"
        );
    }

    #[test]
    fn a_table_is_plain_where_no_terminal_is() {
        let rows = vec![vec![Cell::new("1"), Cell::new("x".repeat(300))]];
        let text = render_table(Look { colour: false }, &["id", "what"], rows, None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("id  what"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_table_fits_its_terminal_and_breaks_no_word() {
        let id = "sub_0123456789abcdef0123456789abcdef";
        let row = || {
            vec![
                Cell::new(id),
                Cell::new("some words to wrap"),
                Cell::new(""),
            ]
        };
        let header = ["ID", "WHAT", "NEVER"];
        for width in [46, 60, 80] {
            let rows = vec![row(), row()];
            let text = render_table(Look::default(), &header, rows, Some(width));
            assert_eq!(text.matches(id).count(), 2, "{text}");
            let widest = text.lines().map(str::len).max().unwrap();
            assert!(widest <= usize::from(width), "{widest} of {width}:\n{text}");
            for word in ["some", "words", "wrap"] {
                assert_eq!(text.matches(word).count(), 2, "{text}");
            }
            // Where it is too narrow for the columns, each row stands by itself.
            let is_table = width > 52;
            assert_eq!(
                text.matches("WHAT").count(),
                if is_table { 1 } else { 2 },
                "{text}"
            );
            assert_eq!(text.contains("NEVER"), is_table, "{text}");
        }
    }
}
