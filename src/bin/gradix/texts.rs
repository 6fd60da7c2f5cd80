//! The texts of examples, from a file of JSON lines.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use serde::Deserialize;

use crate::failure::{Failure, Result};

/// A line: `{"id": "page 7", "text": "..."}`; other fields do not matter.
#[derive(Deserialize)]
struct Line {
    id: String,
    text: String,
}

/// Reads the texts of the wanted ids, and keeps no others. The file is read once, line by line.
pub fn read(path: &Path, wanted: &HashSet<&[u8]>) -> Result<HashMap<Vec<u8>, String>> {
    let failed = || Failure::io(format!("read {}", path.display()));
    let mut lines = BufReader::new(File::open(path).map_err(failed())?);
    let (mut texts, mut line) = (HashMap::new(), Vec::new());
    for number in 1.. {
        line.clear();
        if lines.read_until(b'\n', &mut line).map_err(failed())? == 0 {
            break;
        }
        if !line.trim_ascii().is_empty() {
            let Line { id, text } = serde_json::from_slice(&line).map_err(|error| {
                let form = r#"{"id": "...", "text": "..."}"#;
                Failure::Wrong(format!("{}, line {number}: not of the form {form}: {error}", path.display()))
            })?;
            if wanted.contains(id.as_bytes()) {
                texts.insert(id.into_bytes(), text);
            }
        }
    }
    Ok(texts)
}
