//! What a command says: tables and sentences for people, or exactly one JSON document on stdout for programs.

use std::{
    fmt::{self, Display},
    io::{self, IsTerminal, Write},
};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;
use zeroize::Zeroizing;

/// Form of the answer on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences.
    #[default]
    Text,
    /// One JSON document and nothing else.
    Json,
}

impl Format {
    /// Prints an answer. Its `Display` is the text form.
    pub(crate) fn print<T: Serialize + Display>(self, answer: &T) -> anyhow::Result<()> {
        // Some answers are secrets.
        let mut text = Zeroizing::new(match self {
            Self::Text => answer.to_string(),
            Self::Json => serde_json::to_string(answer).context("failed to write the answer as JSON")?,
        });
        if !text.ends_with('\n') {
            text.push('\n');
        }
        write_out(text.as_bytes())
    }

    /// Prints a sentence about something done; as JSON the fields say it.
    pub(crate) fn done<T: Serialize>(self, fields: &T, sentence: impl Into<String>) -> anyhow::Result<()> {
        self.print(&Done {
            fields,
            sentence: sentence.into(),
        })
    }
}

/// Writes to stdout. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn write_out(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("failed to write the answer to stdout"),
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Done<'a, T> {
    fields: &'a T,
    #[serde(skip)]
    sentence: String,
}

impl<T> Display for Done<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// `1 job`, `2 jobs`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Bold on a terminal, plain anywhere else and where `NO_COLOR` is set.
pub(crate) fn bold(text: &str) -> String {
    painted(text, "1")
}

/// Green on a terminal.
pub(crate) fn green(text: &str) -> String {
    painted(text, "32")
}

/// Yellow on a terminal.
pub(crate) fn yellow(text: &str) -> String {
    painted(text, "33")
}

/// Red on a terminal.
pub(crate) fn red(text: &str) -> String {
    painted(text, "31")
}

fn painted(text: &str, code: &str) -> String {
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if colours {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Columns that line up.
#[derive(Debug, Default)]
pub(crate) struct Table {
    header: Vec<String>,
    /// Right-aligned columns: numbers.
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings. One that begins with `>` stands above a right-aligned column.
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self {
            right: header.iter().map(|text| text.starts_with('>')).collect(),
            header: header
                .iter()
                .map(|text| text.trim_start_matches('>').to_owned())
                .collect(),
            rows: vec![],
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        // A line break inside a cell would tear the table apart; control characters could speak to the terminal.
        let clean = |cell: &String| cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.rows.push(cells.iter().map(clean).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let longest = cells.chain(self.header.get(column)).map(|cell| cell.chars().count());
            longest.max().unwrap_or(0)
        };
        (0..self.header.len()).map(width).collect()
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, width), right) in cells.iter().zip(widths).zip(&self.right) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if *right {
                (padding.as_str(), "")
            } else {
                ("", padding.as_str())
            };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        line.trim_end().to_owned()
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        writeln!(f, "{}", bold(&self.line(&self.header, &widths)))?;
        self.rows
            .iter()
            .try_for_each(|row| writeln!(f, "{}", self.line(row, &widths)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_on_the_right() {
        let mut table = Table::new(["name", ">amount"]);
        table.row(["a".into(), "5".into()]);
        table.row(["ünï".into(), "12345678".into()]);
        assert_eq!(table.to_string(), "name    amount\na            5\nünï   12345678\n");
    }

    #[test]
    fn a_cell_cannot_break_the_table_or_speak_to_the_terminal() {
        let mut table = Table::new(["name"]);
        table.row(["a\nb\u{1b}[2J".into()]);
        assert_eq!(table.to_string(), "name\na b [2J\n");
    }
}
