//! Tables of a report.

use serde_json::{Value, json};

use super::text::shown;

/// A table with a heading for each column. The first cell of each row names the row.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Table {
    caption: String,
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

/// A cell of a table: text, made from a string, or text that a bar fills.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Cell {
    text: String,
    fill: Option<f64>,
}

impl Cell {
    /// Text over a bar that fills this share of the cell, from 0 to 1. The highest of a column is emphasised.
    pub fn bar(text: impl Into<String>, share: f64) -> Self {
        Self { text: text.into(), fill: Some(share) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), fill: None }
    }
}

impl Table {
    /// A table without rows. The caption says what it shows.
    pub fn new(caption: impl Into<String>, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            caption: caption.into(),
            columns: columns.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with a cell for each column.
    pub fn row(mut self, cells: impl IntoIterator<Item = impl Into<Cell>>) -> Self {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }

    pub(super) fn to_json(&self) -> Value {
        let columns: Vec<String> = self.columns.iter().map(|column| shown(column)).collect();
        let fill_at = |row: &Vec<Cell>, column: usize| row.get(column).and_then(|cell| cell.fill);
        let widest = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let best: Vec<Option<f64>> = (0..widest)
            .map(|column| self.rows.iter().filter_map(|row| fill_at(row, column)).max_by(f64::total_cmp))
            .collect();
        let cell = |(cell, best): (&Cell, &Option<f64>)| {
            json!({
                "text": shown(&cell.text),
                "fill": cell.fill.map(|fill| fill.clamp(0.0, 1.0)),
                "best": cell.fill.is_some() && cell.fill == *best,
            })
        };
        let rows: Vec<Vec<Value>> =
            self.rows.iter().map(|row| row.iter().zip(&best).map(cell).collect()).collect();
        json!({"caption": shown(&self.caption), "columns": columns, "rows": rows})
    }
}
