//! How a file of vectors is to be read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Number;

/// A format of files that hold vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileFormat {
    /// Named tensors of Hugging Face.
    Safetensors,
    /// One array of numpy.
    Npy,
    /// Named arrays of numpy.
    Npz,
    /// Apache Arrow IPC: a file or a stream.
    Arrow,
    /// Apache Parquet.
    Parquet,
}

impl FileFormat {
    /// All.
    pub const ALL: [Self; 5] = [Self::Safetensors, Self::Npy, Self::Npz, Self::Arrow, Self::Parquet];

    /// That of a path's extension: `safetensors`; `npy`; `npz`; `arrow`, `arrows`, `feather` or `ipc`; `parquet` or `pq`.
    #[must_use]
    pub fn of_path(path: impl AsRef<Path>) -> Option<Self> {
        let extension = path.as_ref().extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "safetensors" => Some(Self::Safetensors),
            "npy" => Some(Self::Npy),
            "npz" => Some(Self::Npz),
            "arrow" | "arrows" | "feather" | "ipc" => Some(Self::Arrow),
            "parquet" | "pq" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// That of a file's first bytes.
    pub(super) fn of_bytes(first: &[u8]) -> Option<Self> {
        match first {
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(Self::Npy),
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Some(Self::Npz),
            // A stream begins with a mark of its own.
            [b'A', b'R', b'R', b'O', b'W', b'1', ..] | [0xff, 0xff, 0xff, 0xff, ..] => Some(Self::Arrow),
            [b'P', b'A', b'R', b'1', ..] => Some(Self::Parquet),
            // A length below 2^32, and JSON.
            [_, _, _, _, 0, 0, 0, 0, b'{', ..] => Some(Self::Safetensors),
            _ => None,
        }
    }

    /// The name, which is also the usual extension.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Npy => "npy",
            Self::Npz => "npz",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FileFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|format| format.name() == name);
        named.ok_or_else(|| {
            format!("there is no format {name:?}; there are {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// Where ids come from, if not from the file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdSource {
    /// A text file with one id a line, for each row.
    File(PathBuf),
    /// A pattern: `{stem}` is the file's name without folder and extension, `{file}` its name without folder, `{row}`
    /// the row's number in the file, from 0, and `{row:06}` the same with zeros in front; `{{` and `}}` are braces.
    Pattern(String),
}

/// How a file is to be read. By default, the format is that of the first bytes, all arrays or columns of vectors are blocks,
/// and ids, sources, spans and metadata have the names that [`create`](super::create) writes.
///
/// ```
/// use gradix::formats::{IdSource, ReadOptions};
/// let options = ReadOptions::default().ids(IdSource::Pattern("{stem}-{row:06}".into())).blocks(["mlp", "attn"]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    pub(super) format: Option<FileFormat>,
    pub(super) id_column: Option<String>,
    pub(super) ids: Option<IdSource>,
    pub(super) optional_ids: bool,
    pub(super) source_column: Option<String>,
    pub(super) span_columns: Option<(String, String)>,
    pub(super) metadata_columns: Vec<String>,
    pub(super) blocks: Vec<String>,
    pub(super) number: Option<Number>,
}

impl ReadOptions {
    /// The format, whatever the first bytes are.
    #[must_use]
    pub fn format(mut self, format: FileFormat) -> Self {
        self.format = Some(format);
        self
    }

    /// The column or array of ids. Default: `id` in Arrow and Parquet, `ids` in safetensors and npz, if it is there.
    #[must_use]
    pub fn id_column(mut self, name: impl Into<String>) -> Self {
        self.id_column = Some(name.into());
        self
    }

    /// Where ids come from, in place of those in the file.
    #[must_use]
    pub fn ids(mut self, ids: IdSource) -> Self {
        self.ids = Some(ids);
        self
    }

    /// Opens a file without ids too. Its batches have none.
    #[must_use]
    pub fn optional_ids(mut self) -> Self {
        self.optional_ids = true;
        self
    }

    /// The column or array of source labels. Default: `source` in Arrow and Parquet, `sources` in safetensors and npz, if it
    /// is there.
    #[must_use]
    pub fn source_column(mut self, name: impl Into<String>) -> Self {
        self.source_column = Some(name.into());
        self
    }

    /// The columns of the first token and of the one after the last (Arrow and Parquet). Default: `span_start` and
    /// `span_end`, if both are there. A row with nulls in both is a whole example.
    #[must_use]
    pub fn span_columns(mut self, start: impl Into<String>, end: impl Into<String>) -> Self {
        self.span_columns = Some((start.into(), end.into()));
        self
    }

    /// The columns of metadata (Arrow and Parquet). The bytes of one column of text or bytes are the metadata; of several
    /// columns, each row's metadata is a JSON object with their names, in this order. Default: `metadata`, if it is there.
    #[must_use]
    pub fn metadata_columns<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.metadata_columns = names.into_iter().map(Into::into).collect();
        self
    }

    /// The arrays, tensors or columns that become blocks, in the order of the spec. Default: all that hold vectors, in the
    /// file's order.
    #[must_use]
    pub fn blocks<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.blocks = names.into_iter().map(Into::into).collect();
        self
    }

    /// The type of the numbers in columns of `FixedSizeBinary`, which does not say it; little-endian. Without it such
    /// columns are no blocks.
    #[must_use]
    pub fn number(mut self, number: Number) -> Self {
        self.number = Some(number);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a format without a name or an extension, and names that mean two.
    #[test]
    fn formats_have_names_and_extensions() {
        for format in FileFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
            assert_eq!(FileFormat::of_path(format!("a/b.x.{}", format.name().to_uppercase())), Some(format));
        }
        assert_eq!(FileFormat::of_path("a/b.txt"), None);
        assert!("csv".parse::<FileFormat>().unwrap_err().contains("npz"));
    }
}
