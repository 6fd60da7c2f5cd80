//! An array of numpy whose number of rows is known at the end.

use std::io::{Seek as _, SeekFrom, Write};

use crate::failure::{Failure, Result};
use crate::records::Destination;

/// The bytes of the header: those before the dictionary, and the dictionary with spaces behind it.
const HEADER: usize = 128;

/// A file of float64, row after row.
pub struct NpyWriter {
    file: Destination,
    columns: u64,
    rows: u64,
}

impl NpyWriter {
    /// Begins a file with so many columns. It can be read only when it is finished.
    pub fn create(mut file: Destination, columns: u64) -> Result<Self> {
        file.write_all(&[0; HEADER]).map_err(file.failed())?;
        Ok(Self { file, columns, rows: 0 })
    }

    /// Writes a row.
    pub fn row(&mut self, numbers: impl Iterator<Item = f64>) -> Result {
        for number in numbers {
            self.file.write_all(&number.to_le_bytes()).map_err(self.file.failed())?;
        }
        self.rows += 1;
        Ok(())
    }

    /// Writes the header, and gives the file its name.
    pub fn finish(mut self) -> Result {
        let header = header(self.rows, self.columns);
        let failed = self.file.failed();
        let Destination::File { file, .. } = &mut self.file else {
            return Err(Failure::Usage("an array of numpy goes into a file".into()));
        };
        let written = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&header));
        written.and_then(|()| file.flush()).map_err(failed)?;
        self.file.finish()
    }
}

/// Version 1.0 of numpy's format (NEP 1): magic, length, and a dictionary that ends in a line break.
fn header(rows: u64, columns: u64) -> Vec<u8> {
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    let dictionary = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let length = HEADER - header.len() - 2;
    // The longest numbers fit.
    header.extend((length as u16).to_le_bytes());
    header.extend(format!("{dictionary:<width$}\n", width = length - 1).into_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a header of another length than the space that is left for it.
    #[test]
    fn headers_fit() {
        for (rows, columns) in [(0, 1), (7, 300), (u64::MAX, u64::MAX)] {
            let header = header(rows, columns);
            assert_eq!(header.len(), HEADER);
            assert!(header.ends_with(b"\n"));
        }
    }
}
