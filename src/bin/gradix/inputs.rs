//! The files that rows come from: which, in which order, how they are read, and by what they are known again.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use clap::Args;
use gradix::formats::{self, FileFormat, IdSource, Number, ReadOptions, RowSource};
use gradix::sketch::SketchSpec;
use sha2::{Digest as _, Sha256};

use crate::failure::{Failure, Result};

/// How files of vectors are read.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What the inputs are")]
pub struct ReadArgs {
    /// The format, if the first bytes do not tell: safetensors, npy, npz, arrow, parquet
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<FileFormat>,
    /// The column, tensor or array that holds ids. Default: `id` or `ids`
    #[arg(long, value_name = "NAME", conflicts_with = "ids")]
    pub id_column: Option<String>,
    /// Ids that are not in the inputs: a text file with one a line, or a pattern like '{stem}/{row:06}'
    #[arg(long, value_name = "FILE|PATTERN", long_help = IDS_HELP)]
    pub ids: Option<String>,
    /// The column or array of source labels. Default: `source` or `sources`
    #[arg(long, value_name = "NAME", conflicts_with = "source")]
    pub source_column: Option<String>,
    /// A source label for all rows
    #[arg(long, value_name = "LABEL")]
    pub source: Option<String>,
    /// The columns of the first token and of the one after the last. Default: `span_start,span_end`
    #[arg(long, value_name = "START,END", value_parser = parse_pair)]
    pub span_columns: Option<(String, String)>,
    /// The columns that become metadata: one as it is, several as JSON. Default: `metadata`
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub metadata: Vec<String>,
    /// The columns, tensors or arrays that become blocks, in this order. Default: all that hold vectors
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub blocks: Vec<String>,
    /// The type of numbers in columns of FixedSizeBinary: f16, bf16, f32, f64
    #[arg(long, value_name = "TYPE", value_parser = parse_number)]
    pub number: Option<Number>,
}

const IDS_HELP: &str = "\
Ids that are not in the inputs: a text file with one a line (for one input), or a pattern, which has a brace

In a pattern, {stem} is the input's name without folder and extension, {file} its name without folder, {row} the row's
number in the input, from 0, and {row:06} the same with zeros in front.";

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (start, end) = text.split_once(',').ok_or("two names, with a comma between them")?;
    Ok((start.to_owned(), end.to_owned()))
}

/// The names of types of numbers.
pub fn parse_number(name: &str) -> Result<Number, String> {
    match name {
        "f16" => Ok(Number::F16),
        "bf16" => Ok(Number::Bf16),
        "f32" => Ok(Number::F32),
        "f64" => Ok(Number::F64),
        _ => Err("there are f16, bf16, f32, f64".into()),
    }
}

impl ReadArgs {
    /// The flags that decide what a row is, for the record of an append.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, String)> {
        let pair = self.span_columns.as_ref().map(|(start, end)| format!("{start},{end}"));
        let list = |names: &[String]| (!names.is_empty()).then(|| names.join(","));
        let all = [
            ("format", self.format.map(|format| format.to_string())),
            ("id-column", self.id_column.clone()),
            ("ids", self.ids.clone()),
            ("source-column", self.source_column.clone()),
            ("source", self.source.clone()),
            ("span-columns", pair),
            ("metadata", list(&self.metadata)),
            ("blocks", list(&self.blocks)),
            ("number", self.number.map(|number| format!("{number:?}").to_lowercase())),
        ];
        all.into_iter().filter_map(|(flag, value)| Some((flag, value?)))
    }

    /// Checks what can be wrong without reading an input.
    pub fn check(&self, inputs: usize) -> Result {
        match &self.ids {
            Some(ids) if !ids.contains('{') && inputs > 1 => Err(Failure::Usage(format!(
                "--ids {ids} is one list, for one input; for {inputs} inputs give a pattern like '{{stem}}/{{row}}', or \
                 append them one by one"
            ))),
            _ => Ok(()),
        }
    }

    fn options(&self, blocks: &[String]) -> ReadOptions {
        let mut options = ReadOptions::default().blocks(blocks).metadata_columns(&self.metadata);
        if let Some(format) = self.format {
            options = options.format(format);
        }
        if let Some(column) = &self.id_column {
            options = options.id_column(column);
        }
        if let Some(ids) = &self.ids {
            let is_pattern = ids.contains('{');
            options = options.ids(if is_pattern {
                IdSource::Pattern(ids.clone())
            } else {
                IdSource::File(ids.into())
            });
        }
        if let Some(column) = &self.source_column {
            options = options.source_column(column);
        }
        if let Some((start, end)) = &self.span_columns {
            options = options.span_columns(start, end);
        }
        if let Some(number) = self.number {
            options = options.number(number);
        }
        options
    }

    /// Opens an input whatever its blocks are.
    fn open(&self, path: &Path, blocks: &[String]) -> Result<Box<dyn RowSource>> {
        Ok(formats::open(path, &self.options(blocks))?)
    }

    /// Opens an input to see what its rows look like; it need not have ids.
    pub fn open_shape(&self, path: &Path) -> Result<Box<dyn RowSource>> {
        if is_stream(path) {
            return self.open(path, &self.blocks);
        }
        Ok(formats::open(path, &self.options(&self.blocks).optional_ids())?)
    }

    /// Opens an input for rows of a spec: its blocks are those of the spec, in any order, or one block stands for all.
    pub fn open_for(&self, path: &Path, spec: &SketchSpec) -> Result<Box<dyn RowSource>> {
        let source = self.open(path, &self.blocks)?;
        let has = |block: &gradix::sketch::Block| source.spec().blocks().contains(block);
        let can_choose = self.blocks.is_empty() && !is_stream(path) && spec.blocks().iter().all(has);
        if fits(source.spec(), spec) || !can_choose {
            return check_blocks(path, source, spec);
        }
        let names: Vec<String> = spec.blocks().iter().map(|block| block.name.clone()).collect();
        check_blocks(path, self.open(path, &names)?, spec)
    }
}

/// Checks that the rows of an input are rows of a spec.
pub fn check_blocks(
    path: &Path,
    source: Box<dyn RowSource>,
    spec: &SketchSpec,
) -> Result<Box<dyn RowSource>> {
    if fits(source.spec(), spec) {
        return Ok(source);
    }
    Err(Failure::Wrong(format!(
        "{} has rows of other blocks than the index: {}; the index has {}",
        path.display(),
        shape(source.spec()),
        shape(spec)
    ))
    .and("--blocks chooses and orders blocks".into()))
}

/// Whether rows of one spec are rows of the other as they are.
pub fn fits(given: &SketchSpec, index: &SketchSpec) -> bool {
    given.blocks() == index.blocks() || (given.blocks().len() == 1 && given.dims() == index.dims())
}

/// The blocks of a spec, for a message.
fn shape(spec: &SketchSpec) -> String {
    let (shown, rest) = spec.blocks().split_at(spec.blocks().len().min(4));
    let mut text: Vec<_> = shown.iter().map(|block| format!("{}={}", block.name, block.dims)).collect();
    if !rest.is_empty() {
        text.push(format!("{} more", rest.len()));
    }
    text.join(", ")
}

/// Whether an input can be read only once, from its beginning.
pub fn is_stream(path: &Path) -> bool {
    path == Path::new("-")
        || fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

/// The inputs in the order given; a pattern stands for what it matches, in natural order.
pub fn expand(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut inputs = Vec::new();
    for input in given {
        let pattern = input.to_str().filter(|text| text.contains(['*', '?', '[']) && !input.exists());
        let Some(pattern) = pattern else {
            if input.is_dir() {
                return Err(Failure::Usage(format!(
                    "{0} is a folder; give its files, as with '{0}/*.safetensors'",
                    input.display()
                )));
            }
            inputs.push(input.clone());
            continue;
        };
        let wrong = |error: glob::PatternError| Failure::Usage(format!("{pattern}: {error}"));
        let mut found = Vec::new();
        for path in glob::glob(pattern).map_err(wrong)? {
            let path = path.map_err(|error| {
                let what = format!("look at {}", error.path().display());
                Failure::Io { what, source: error.into() }
            })?;
            if !path.is_dir() {
                found.push(path);
            }
        }
        if found.is_empty() {
            let what = format!("find a file like {pattern}");
            return Err(Failure::Io { what, source: std::io::ErrorKind::NotFound.into() });
        }
        found.sort_by(|a, b| natural(a.as_os_str().as_encoded_bytes(), b.as_os_str().as_encoded_bytes()));
        inputs.append(&mut found);
    }
    Ok(inputs)
}

/// Compares names so that `part-9` stands before `part-10`.
fn natural(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let (whole_a, whole_b) = (a, b);
    loop {
        let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (run_a, run_b) = (digits(a), digits(b));
        let order = if run_a > 0 && run_b > 0 {
            let ((number_a, rest_a), (number_b, rest_b)) = (a.split_at(run_a), b.split_at(run_b));
            (a, b) = (rest_a, rest_b);
            let strip = |number: &[u8]| number.iter().take_while(|&&digit| digit == b'0').count();
            let (number_a, number_b) = (&number_a[strip(number_a)..], &number_b[strip(number_b)..]);
            number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b))
        } else {
            match (a.split_first(), b.split_first()) {
                (Some((first_a, rest_a)), Some((first_b, rest_b))) => {
                    (a, b) = (rest_a, rest_b);
                    first_a.cmp(first_b)
                }
                (None, None) => return whole_a.cmp(whole_b),
                (rest_a, rest_b) => return rest_a.is_some().cmp(&rest_b.is_some()),
            }
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// The bytes at each end of a file that its tag is made of.
const ENDS: u64 = 64 << 10;
/// Digits of each half of a tag.
pub const TAG: usize = 8;

/// What an input is known again by: eight digits of its path, and eight of its length and ends; zeros for a stream.
pub fn tag(path: &Path) -> Result<String> {
    let mut tag = digits(path.as_os_str().as_encoded_bytes());
    let failed = || Failure::io(format!("read {}", path.display()));
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let mut hash = Sha256::new();
            list(path, &mut hash)?;
            tag.push_str(&hex(&hash.finalize(), TAG));
        }
        Ok(metadata) if metadata.is_file() => {
            let mut hash = Sha256::new();
            hash.update(metadata.len().to_string());
            hash.update(ends(path, metadata.len()).map_err(failed())?);
            tag.push_str(&hex(&hash.finalize(), TAG));
        }
        Ok(_) => tag.push_str(&"0".repeat(TAG)),
        Err(_) if path == Path::new("-") => tag.push_str(&"0".repeat(TAG)),
        Err(error) => return Err(failed()(error)),
    }
    Ok(tag)
}

/// Eight digits of the file of an input's ids, be it named or beside an npy array; zeros if there is none, or if it can be
/// read only once.
pub fn ids_tag(input: &Path, ids: Option<&Path>) -> Result<String> {
    let beside = input.with_extension("ids.txt");
    let path = ids.unwrap_or(&beside);
    if !path.is_file() {
        return Ok("0".repeat(TAG));
    }
    let mut hash = Sha256::new();
    let failed = || Failure::io(format!("read the ids {}", path.display()));
    let mut file = File::open(path).map_err(failed())?;
    let mut piece = vec![0; ENDS as usize];
    loop {
        let read = file.read(&mut piece).map_err(failed())?;
        if read == 0 {
            return Ok(hex(&hash.finalize(), TAG));
        }
        hash.update(&piece[..read]);
    }
}

/// The first bytes of a file and its last.
fn ends(path: &Path, length: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut ends = Vec::new();
    file.by_ref().take(ENDS).read_to_end(&mut ends)?;
    file.seek(SeekFrom::Start(length.saturating_sub(ENDS)))?;
    file.take(ENDS).read_to_end(&mut ends)?;
    Ok(ends)
}

/// Hashes the names, lengths and ends of all files below a folder.
fn list(folder: &Path, hash: &mut Sha256) -> Result {
    let failed = || Failure::io(format!("list {}", folder.display()));
    let entries = fs::read_dir(folder).map_err(failed())?;
    let mut paths =
        entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().map_err(failed())?;
    paths.sort();
    for path in paths {
        let metadata = fs::metadata(&path).map_err(failed())?;
        if metadata.is_dir() {
            list(&path, hash)?;
            continue;
        }
        hash.update(format!("{} {}\n", path.display(), metadata.len()));
        // Of a pipe, or a device, nothing is read.
        if metadata.is_file() {
            hash.update(ends(&path, metadata.len()).map_err(failed())?);
        }
    }
    Ok(())
}

/// Whether a tag is that of a stream. One file in four thousand millions has such a tag too: it is then read again.
pub fn is_tag_of_stream(tag: &str) -> bool {
    tag.get(TAG..).is_some_and(|content| content.bytes().all(|digit| digit == b'0'))
}

/// Twice as many digits of the SHA-256 of values, each as the four bytes of a binary32, little-endian.
pub fn digits_of_values(values: &[f32]) -> String {
    let mut hash = Sha256::new();
    for value in values {
        hash.update(value.to_le_bytes());
    }
    hex(&hash.finalize(), 2 * TAG)
}

/// The first digits of the SHA-256 of some bytes.
pub fn digits(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes), TAG)
}

fn hex(bytes: &[u8], digits: usize) -> String {
    bytes.iter().take(digits / 2).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches shards that are read in the order of their letters, and an order that depends on how they were found.
    #[test]
    fn names_sort_by_their_numbers() {
        let sorted = [
            "a",
            "a-1",
            "a-1-x",
            "a-2",
            "a-02",
            "a-10",
            "a-10b",
            "a1000000000000000000000",
            "b-9.npy",
            "b-10.npy",
        ];
        for (at, a) in sorted.iter().enumerate() {
            for (other, b) in sorted.iter().enumerate() {
                let order = natural(a.as_bytes(), b.as_bytes());
                // `a-02` and `a-2` are the same number: then their bytes decide.
                if a.replace("02", "2") != b.replace("02", "2") {
                    assert_eq!(order, at.cmp(&other), "{a} {b}");
                } else {
                    assert_eq!(order, a.cmp(b), "{a} {b}");
                }
            }
        }
    }
}
