//! Tables that fit into the terminal.

use std::{env, io};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Width, presets::NOTHING};
use terminal_size::terminal_size_of;

/// Rows of cells under a header, without lines around them, so that `awk` and `cut` can be used.
///
/// On a terminal, or if `COLUMNS` is set, cells are wrapped so that it fits. In a pipe a row is a line.
#[derive(Debug)]
pub(crate) struct Table {
    table: comfy_table::Table,
}

impl Table {
    /// Columns by their names; those of numbers begin with `>` and are aligned to the right.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        let (columns, numbers): (Vec<_>, Vec<_>) = columns
            .iter()
            .map(|name| name.strip_prefix('>').map_or((*name, false), |name| (name, true)))
            .unzip();
        table.set_header(columns);
        for (index, is_number) in numbers.into_iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, GAP));
                if is_number {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        Self { table }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.table.add_row(cells.into_iter().collect::<Vec<_>>());
    }

    pub(crate) fn len(&self) -> usize {
        self.table.row_count()
    }

    /// The text without a line end; `None` without rows.
    pub(super) fn render(mut self) -> Option<String> {
        if self.table.row_count() == 0 {
            return None;
        }
        if let Some(width) = width() {
            self.table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            self.keep_narrow_columns(width);
        }
        Some(self.table.trim_fmt())
    }

    /// Keeps numbers and the like on one line if there is room for that: broken, they are read wrongly.
    fn keep_narrow_columns(&mut self, width: u16) {
        let widths = self.table.column_max_content_widths();
        let least: u16 = widths.iter().map(|width| if *width <= NARROW { width + GAP } else { WIDE }).sum();
        if least > width {
            return;
        }
        for (index, width) in widths.into_iter().enumerate().filter(|(_, width)| *width <= NARROW) {
            if let Some(column) = self.table.column_mut(index) {
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + GAP)));
            }
        }
    }
}

/// The widest column that is not broken.
const NARROW: u16 = 12;
/// What is left at least for each of the others.
const WIDE: u16 = 16;

/// The space between two columns.
const GAP: u16 = 2;

/// The columns of the terminal; `None` if the output is not for one.
fn width() -> Option<u16> {
    let set = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|width| *width > 0);
    set.or_else(|| Some(terminal_size_of(io::stdout())?.0.0))
}
