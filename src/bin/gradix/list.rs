//! Lists of ids in files.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use crate::failure::{Failure, Result};
use crate::id::Id;

/// The ids of a file, one on each line, written as `gradix ls` prints them; `-` is stdin.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>> {
    let name = path.display();
    let reader: Box<dyn io::BufRead> = match path == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(path).map_err(Failure::io(format!("open {name}")))?)),
    };
    let mut ids = Vec::new();
    for (number, line) in (1..).zip(reader.lines()) {
        let line = line.map_err(Failure::io(format!("read {name}")))?;
        if line.is_empty() {
            continue;
        }
        let id: Id =
            line.parse().map_err(|error| Failure::Usage(format!("{name}, line {number}: {error}")))?;
        ids.push(id.0);
    }
    Ok(ids)
}
