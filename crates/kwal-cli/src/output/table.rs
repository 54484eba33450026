//! Tables that fit into the terminal.

use std::{env, io};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Width, presets::NOTHING};
use terminal_size::terminal_size_of;

/// Rows of cells under a header, without lines around them, so that `awk` and `cut` can be used.
///
/// On a terminal, or if `COLUMNS` is set, it fits: cells are wrapped between words, and if there is no room
/// for the longest words side by side, each row is a list of names and values. In a pipe a row is a line.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug)]
struct Column {
    name: String,
    is_number: bool,
}

impl Table {
    /// Columns by their names; those of numbers begin with `>` and are aligned to the right.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let column = |name: &&str| match name.strip_prefix('>') {
            Some(name) => Column { name: name.to_owned(), is_number: true },
            None => Column { name: (*name).to_owned(), is_number: false },
        };
        Self { columns: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The text without a line end; `None` without rows.
    pub(super) fn render(self) -> Option<String> {
        if self.rows.is_empty() {
            return None;
        }
        let words = self.longest_words();
        let least: usize = words.iter().map(|word| word + GAP).sum();
        Some(match width() {
            None => self.grid(None, &words),
            // The last column has no gap after it.
            Some(width) if least <= usize::from(width) + GAP => self.grid(Some(width), &words),
            Some(width) => self.lists(width),
        })
    }

    /// The columns side by side.
    fn grid(self, width: Option<u16>, words: &[usize]) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        if let Some(width) = width {
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width.saturating_add(GAP as u16));
        }
        table.set_header(self.columns.iter().map(|column| column.name.as_str()));
        for (index, (column, word)) in self.columns.iter().zip(words).enumerate() {
            let Some(cells) = table.column_mut(index) else { continue };
            cells.set_padding((0, GAP as u16));
            if column.is_number {
                cells.set_cell_alignment(CellAlignment::Right);
            }
            if width.is_some() {
                // What is broken is read wrongly.
                cells.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed((word + GAP) as u16)));
            }
        }
        for row in self.rows {
            table.add_row(row);
        }
        table.trim_fmt()
    }

    /// The cells that are not empty, each after its name, with an empty line between rows.
    fn lists(self, width: u16) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        let names = self.columns.iter().map(|column| len(&column.name)).max().unwrap_or_default();
        for (index, row) in self.rows.iter().enumerate() {
            if index > 0 {
                table.add_row(["", ""]);
            }
            let cells = self.columns.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
            for (column, cell) in cells {
                table.add_row([&column.name, cell]);
            }
        }
        if let Some(column) = table.column_mut(0) {
            column.set_padding((0, GAP as u16));
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed((names + GAP) as u16)));
        }
        if let Some(column) = table.column_mut(1) {
            column.set_padding((0, 0));
        }
        table.trim_fmt()
    }

    /// The columns that the longest word of each column takes.
    fn longest_words(&self) -> Vec<usize> {
        let longest = |text: &str| text.split(' ').map(len).max().unwrap_or_default();
        let of_column = |(index, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            cells.map(|cell| longest(cell)).max().unwrap_or_default().max(longest(&column.name))
        };
        self.columns.iter().enumerate().map(of_column).collect()
    }
}

/// The space between two columns.
const GAP: usize = 2;

fn len(text: &str) -> usize {
    text.chars().count()
}

/// The columns of the terminal; `None` if the output is not for one.
fn width() -> Option<u16> {
    let set = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|width| *width > 0);
    set.or_else(|| Some(terminal_size_of(io::stdout())?.0.0))
}
