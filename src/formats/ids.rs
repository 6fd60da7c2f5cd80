//! Ids that are not in the file: from a list, or from a pattern.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::{FormatError, IdSource};
use crate::segment::MAX_ID;

/// The longest line of a list: one of the longest id, and its end.
const LONGEST_LINE: u64 = MAX_ID as u64 + 2;

/// Gives each row its id, in order.
pub(super) enum IdMaker {
    Lines { path: PathBuf, lines: BufReader<File>, row: u64 },
    Pattern { path: PathBuf, pieces: Vec<Piece>, row: u64 },
}

/// A piece of a pattern.
pub(super) enum Piece {
    Text(String),
    /// The row's number, with at least so many digits.
    Row(usize),
}

/// The widest number that a pattern may ask for: a `u64` has 20 digits.
const WIDEST: usize = 20;

impl IdMaker {
    pub(super) fn new(source: &IdSource, path: &Path) -> Result<Self, FormatError> {
        match source {
            IdSource::File(list) => {
                let file = File::open(list).map_err(|source| FormatError::Io {
                    path: list.clone(),
                    operation: "open the ids",
                    source,
                })?;
                Ok(Self::Lines { path: list.clone(), lines: BufReader::new(file), row: 0 })
            }
            IdSource::Pattern(pattern) => match pieces(pattern, path) {
                Ok(pieces) => Ok(Self::Pattern { path: path.to_owned(), pieces, row: 0 }),
                Err(reason) => Err(FormatError::Unsupported {
                    path: path.to_owned(),
                    what: format!(
                        "the pattern for ids {pattern:?} {reason}; {{stem}}, {{file}}, {{row}} and {{row:06}} can be filled in"
                    ),
                }),
            },
        }
    }

    /// Appends the next ids.
    pub(super) fn make(&mut self, rows: usize, ids: &mut Vec<Vec<u8>>) -> Result<(), FormatError> {
        for _ in 0..rows {
            let id = self.next()?;
            ids.push(id);
        }
        Ok(())
    }

    pub(super) fn skip(&mut self, rows: u64) -> Result<(), FormatError> {
        if let Self::Pattern { row, .. } = self {
            *row += rows;
            return Ok(());
        }
        for _ in 0..rows {
            self.next()?;
        }
        Ok(())
    }

    /// Checks, at the end of the rows, that there are no more ids.
    pub(super) fn end(&mut self) -> Result<(), FormatError> {
        let Self::Lines { path, lines, row } = self else { return Ok(()) };
        let rest = lines.fill_buf().map_err(|source| cannot_read(path, source))?;
        if rest.is_empty() {
            return Ok(());
        }
        Err(FormatError::Unsupported {
            path: path.clone(),
            what: format!("more ids than rows, which are {row}"),
        })
    }

    fn next(&mut self) -> Result<Vec<u8>, FormatError> {
        match self {
            Self::Lines { path, lines, row } => {
                let mut id = Vec::new();
                let read = lines.take(LONGEST_LINE).read_until(b'\n', &mut id);
                let read = read.map_err(|source| cannot_read(path, source))?;
                if read == 0 {
                    let what = "the ids end before the rows".into();
                    return Err(FormatError::Row { path: path.clone(), row: *row, what });
                }
                if id.last() == Some(&b'\n') {
                    id.pop();
                } else if read as u64 == LONGEST_LINE {
                    let what = "a line that is too long for an id".into();
                    return Err(FormatError::Row { path: path.clone(), row: *row, what });
                }
                if id.last() == Some(&b'\r') {
                    id.pop();
                }
                if id.is_empty() {
                    return Err(FormatError::Row {
                        path: path.clone(),
                        row: *row,
                        what: "an empty line, no id".into(),
                    });
                }
                *row += 1;
                Ok(id)
            }
            Self::Pattern { path, pieces, row } => {
                if *row == 1 && !pieces.iter().any(|piece| matches!(piece, Piece::Row(_))) {
                    let what =
                        "the pattern for ids has no {row}, so that all rows of the file would have one id";
                    return Err(FormatError::Row { path: path.clone(), row: 1, what: what.into() });
                }
                let mut id = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => id.push_str(text),
                        Piece::Row(width) => id.push_str(&format!("{row:0width$}", width = *width)),
                    }
                }
                *row += 1;
                Ok(id.into_bytes())
            }
        }
    }
}

fn cannot_read(path: &Path, source: std::io::Error) -> FormatError {
    FormatError::Io { path: path.to_owned(), operation: "read the ids", source }
}

/// Reads a pattern, and fills in what is the same for all rows.
fn pieces(pattern: &str, path: &Path) -> Result<Vec<Piece>, &'static str> {
    let name = |part: Option<&std::ffi::OsStr>| match part {
        Some(part) if part != "-" => part.to_string_lossy().into_owned(),
        _ => "stdin".to_owned(),
    };
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        if let Some(after) = from.strip_prefix("{{") {
            text.push('{');
            rest = after;
        } else if let Some(after) = from.strip_prefix("}}") {
            text.push('}');
            rest = after;
        } else if let Some((field, after)) = from.strip_prefix('{').and_then(|from| from.split_once('}')) {
            rest = after;
            match field.strip_prefix("row:0").map(str::parse::<usize>) {
                _ if field == "stem" => text.push_str(&name(path.file_stem())),
                _ if field == "file" => text.push_str(&name(path.file_name())),
                _ if field == "row" => {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                    pieces.push(Piece::Row(1));
                }
                Some(Ok(width)) if (1..=WIDEST).contains(&width) => {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                    pieces.push(Piece::Row(width));
                }
                _ => return Err("has a field that is not known"),
            }
        } else {
            return Err("has a brace without its other half");
        }
    }
    text.push_str(rest);
    pieces.push(Piece::Text(text));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(pattern: &str, path: &str) -> Vec<String> {
        let mut maker = IdMaker::new(&IdSource::Pattern(pattern.into()), Path::new(path)).unwrap();
        let mut ids = Vec::new();
        maker.skip(9).unwrap();
        maker.make(2, &mut ids).unwrap();
        ids.into_iter().map(|id| String::from_utf8(id).unwrap()).collect()
    }

    /// Catches a field that is filled in wrongly, rows that are not counted, and braces that cannot be written.
    #[test]
    fn patterns_fill_in_names_and_rows() {
        assert_eq!(ids("{stem}-{row}", "a/b.c.npy"), ["b.c-9", "b.c-10"]);
        assert_eq!(ids("{file}:{row:04}", "a/b.npy"), ["b.npy:0009", "b.npy:0010"]);
        assert_eq!(ids("{{{row}}}{stem}", "-"), ["{9}stdin", "{10}stdin"]);
    }

    /// Catches a file of one vector that needs a row in its id, and rows that get one id all.
    #[test]
    fn patterns_without_a_row_serve_one_row() {
        let mut maker = IdMaker::new(&IdSource::Pattern("{stem}".into()), Path::new("a/b.npy")).unwrap();
        let mut ids = Vec::new();
        maker.make(1, &mut ids).unwrap();
        assert_eq!(ids, [b"b"]);
        assert!(matches!(maker.make(1, &mut ids), Err(FormatError::Row { row: 1, .. })));
    }

    /// Catches a pattern that is taken for text where it is misspelt.
    #[test]
    fn patterns_that_are_wrong_are_refused() {
        for pattern in ["{rows}", "{row", "row}", "{row:6}", "{row:099}", "{row:0}", "{}{row}"] {
            let made = IdMaker::new(&IdSource::Pattern(pattern.into()), Path::new("a.npy"));
            assert!(matches!(made, Err(FormatError::Unsupported { .. })), "{pattern}");
        }
    }
}
