//! Standard output: a table for people or JSON for programs, written once at the end.

use std::io::{ErrorKind, Write};

use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use crate::failure::Failure;

/// What will be written when the command has succeeded, or as far as it came.
pub struct Output {
    json: bool,
    bytes: Vec<u8>,
}

impl Output {
    /// Nothing so far.
    pub fn new(json: bool) -> Self {
        Output { json, bytes: Vec::new() }
    }

    /// Shows a value: as JSON, or as `people` writes it.
    pub fn show<T: Serialize>(
        &mut self,
        value: &T,
        people: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            serde_json::to_writer_pretty(&mut self.bytes, value)
                .map_err(|error| Failure::new(format!("the JSON cannot be written: {error}")))?;
        } else {
            self.bytes.extend(people(value).trim_end().as_bytes());
        }
        self.bytes.push(b'\n');
        Ok(())
    }

    /// Adds bytes as they are: PEM, a blob, a generated file.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Writes everything. A reader that went away (`| head`) is no failure.
    pub fn finish(&mut self) -> Result<(), Failure> {
        let mut stdout = std::io::stdout();
        let written = stdout.write_all(&self.bytes).and_then(|()| stdout.flush());
        self.bytes.clear();
        match written {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(Failure::new(format!("standard output cannot be written: {error}")))
            }
            _ => Ok(()),
        }
    }
}

/// A table without lines, so that it can be cut with awk; with a header unless it is empty.
pub fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = plain();
    table.set_header(header);
    table.add_rows(rows.into_iter().map(|row| row.map(printable)));
    lines(&table)
}

/// Names and values below each other.
pub fn pairs(rows: impl IntoIterator<Item = (String, String)>) -> String {
    let mut table = plain();
    table.add_rows(rows.into_iter().map(|(name, value)| [name, value].map(printable)));
    lines(&table)
}

/// Labels and tags are whatever somebody wrote there: none of it may move a terminal's cursor.
fn printable(text: String) -> String {
    text.chars()
        .map(|each| if each.is_control() { char::REPLACEMENT_CHARACTER } else { each })
        .collect()
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn lines(table: &Table) -> String {
    table
        .lines()
        .map(|line| {
            line.trim_end()
                .strip_prefix(' ')
                .map_or(line.clone(), |rest| rest.trim_end().to_owned())
                + "\n"
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_no_lines_and_no_trailing_blanks() {
        let text = table(["NAME", "TYPE"], [["a".to_owned(), "EC".to_owned()]]);
        assert_eq!(text, "NAME  TYPE\na     EC\n");
    }

    #[test]
    fn nothing_moves_the_cursor() {
        let text = pairs([("label".to_owned(), "a\x1b[2J\nb\u{9b}c".to_owned())]);
        assert_eq!(text, "label  a\u{fffd}[2J\u{fffd}b\u{fffd}c\n");
    }
}
