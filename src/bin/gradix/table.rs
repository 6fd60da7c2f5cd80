//! Tables on a terminal or in a pipe, a page at a time.

use std::io;

use console::{Alignment, measure_text_width, pad_str};

/// Rows that are laid out together: a table of more of them is written in pages, each as wide as the one before or wider.
const PAGE: usize = 1000;

/// A column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    heading: String,
    alignment: Alignment,
    width: usize,
}

impl Column {
    /// Of text.
    pub fn text(heading: impl Into<String>) -> Self {
        Self::new(heading.into(), Alignment::Left)
    }

    /// Of numbers.
    pub fn number(heading: impl Into<String>) -> Self {
        Self::new(heading.into(), Alignment::Right)
    }

    fn new(heading: String, alignment: Alignment) -> Self {
        let width = measure_text_width(&heading);
        Self { heading, alignment, width }
    }
}

/// A table that is written as its rows come. What does not fit into the terminal is cut from the last column.
pub struct Table {
    columns: Vec<Column>,
    page: Vec<Vec<String>>,
    has_headings: bool,
    width: usize,
}

impl Table {
    /// A table for stdout.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        let terminal = console::Term::stdout();
        // Where nobody looks, nothing is cut.
        let width = match terminal.is_term() {
            true => usize::from(terminal.size_checked().map_or(u16::MAX, |(_, columns)| columns)),
            false => usize::MAX,
        };
        Self::of_width(columns, width)
    }

    fn of_width(columns: impl IntoIterator<Item = Column>, width: usize) -> Self {
        Self { columns: columns.into_iter().collect(), page: Vec::new(), has_headings: false, width }
    }

    /// Adds a row, and writes a page when it is full.
    pub fn row(&mut self, out: &mut dyn io::Write, cells: Vec<String>) -> io::Result<()> {
        self.page.push(cells);
        if self.page.len() >= PAGE { self.flush(out) } else { Ok(()) }
    }

    /// Writes what there is of a page.
    pub fn flush(&mut self, out: &mut dyn io::Write) -> io::Result<()> {
        for cells in &self.page {
            for (column, cell) in self.columns.iter_mut().zip(cells) {
                column.width = column.width.max(measure_text_width(cell));
            }
        }
        if !std::mem::replace(&mut self.has_headings, true) {
            let headings: Vec<String> = self.columns.iter().map(|column| column.heading.clone()).collect();
            writeln!(out, "{}", self.line(&headings))?;
        }
        for cells in std::mem::take(&mut self.page) {
            writeln!(out, "{}", self.line(&cells))?;
        }
        Ok(())
    }

    /// A row as text, which is the whole table if it fits into a terminal.
    fn line(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for (column, cell) in self.columns.iter().zip(cells) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            line.push_str(&pad_str(cell, column.width, column.alignment, None));
        }
        console::truncate_str(line.trim_end(), self.width, "…").into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(width: usize, rows: &[[&str; 2]]) -> Vec<String> {
        let mut table = Table::of_width([Column::number("rows"), Column::text("id")], width);
        let mut out = Vec::new();
        for row in rows {
            table.row(&mut out, row.map(str::to_owned).to_vec()).unwrap();
        }
        table.flush(&mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    /// Catches columns that do not stand below each other, as with letters that are two columns wide.
    #[test]
    fn columns_stand_below_each_other() {
        assert_eq!(lines(80, &[["10000", "海"], ["7", "b"]]), [" rows  id", "10000  海", "    7  b"]);
    }

    /// Catches lines that a terminal would wrap.
    #[test]
    fn lines_fit_the_terminal() {
        assert_eq!(lines(10, &[["1", "a long id"]]), ["rows  id", "   1  a l…"]);
    }

    /// Catches pages that lose a row, repeat the headings or become narrower.
    #[test]
    fn pages_go_on_as_they_began() {
        let mut rows = vec![["1", "a"]; PAGE];
        rows[5] = ["123456", "a"];
        rows.push(["1", "last"]);
        let lines = lines(80, &rows);
        assert_eq!(lines.len(), rows.len() + 1);
        assert_eq!(lines.last().unwrap(), "     1  last");
    }
}
