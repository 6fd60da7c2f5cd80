//! bergson's store: `gradients.bin`, whose rows have the modules one after the other, `info.json`, which names these,
//! and for rows of tokens `offsets.npy`. Versions 0.11 to 2.5 were looked at.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Seek as _};
use std::path::{Path, PathBuf};

use npyz::{NpyFile, NpyHeader, NpyReader};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::super::input::{malformed, unsupported};
use super::super::{Batch, FormatError, Number, RowSource};
use super::ids::Names;
use super::numbers::{self, Numbers, check_finite};
use super::{StoreOptions, files, settings, torch};
use crate::segment::Span;
use crate::sketch::SketchSpec;

/// What bergson calls `config.yaml`'s settings that decide what a gradient is, beside the projection.
const GRADIENT_SETTINGS: [&str; 10] = [
    "model",
    "revision",
    "peft_init_kwargs",
    "model_kwargs",
    "moe_experts",
    "logit_scale",
    "loss_fn",
    "loss_reduction",
    "label_smoothing",
    "split_attention_modules",
];

/// Those that decide what is done to a gradient before it is stored.
const ROW_SETTINGS: [&str; 2] = ["unit_normalize", "hessian_path"];

/// Those that only matter with a Hessian.
const HESSIAN_SETTINGS: [&str; 2] = ["ev_correction", "inversion_cfg"];

/// A store that is read.
pub(super) struct Bergson {
    spec: SketchSpec,
    number: Number,
    rows: u64,
    next: u64,
    numbers: Numbers,
    /// The examples of rows of tokens; without them each row is of an example.
    tokens: Option<Tokens>,
    names: Names,
}

/// `info.json`. Other keys are not needed to read the rows.
#[derive(serde::Deserialize)]
struct Info {
    #[serde(default)]
    attribute_tokens: bool,
    num_grads: u64,
    grad_sizes: Sizes,
    base_dtype: Option<String>,
    dtype: Option<Structured>,
}

/// The structured type in stores of before `base_dtype`.
#[derive(serde::Deserialize)]
struct Structured {
    formats: Vec<String>,
}

/// Modules and their dims, in the order of the file, which is the order in a row.
struct Sizes(Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Sizes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of modules to dims")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sizes, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = map.next_entry()? {
                    sizes.push(size);
                }
                Ok(Sizes(sizes))
            }
        }
        source.deserialize_map(InOrder)
    }
}

impl Info {
    fn number(&self, path: &Path) -> Result<Number, FormatError> {
        let legacy = || self.dtype.as_ref()?.formats.first().map(String::as_str);
        let Some(name) = self.base_dtype.as_deref().or_else(legacy) else {
            return Err(unsupported(path, "neither `base_dtype` nor `dtype` is there"));
        };
        // Before `base_dtype`, a format was `(16,)<f4`.
        numbers::named(path, name.rsplit(')').next().unwrap_or(name))
    }
}

impl Bergson {
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self, FormatError> {
        let folder = find(path, options.part.as_deref())?;
        if folder.extension().is_some_and(|extension| extension == "part") {
            let what = "bergson has not finished this store: until then its folder ends with .part, and rows that it \
                        has not come to are zeros";
            return Err(unsupported(&folder, what));
        }
        let path = folder.join("info.json");
        let info: Info = serde_json::from_str(&files::read_text(&path)?)
            .map_err(|error| files::bad_json(&path, 0, &error))?;
        let number = info.number(&path)?;
        let spec = SketchSpec::dense("bergson", digest(&folder)?, info.grad_sizes.0);
        spec.check().map_err(|error| unsupported(&path, error.to_string()))?;

        let rows = info.num_grads;
        let path = folder.join("gradients.bin");
        let file = files::open(&path)?;
        let length = file.length;
        let expected = u128::from(rows) * (spec.dims() * number.bytes()) as u128;
        if u128::from(length) != expected {
            let what =
                format!("the file ends, where {rows} rows of {} dims have {expected} bytes", spec.dims());
            return Err(malformed(&path, length, what));
        }
        let numbers = Numbers::new(file, number, None);
        let tokens =
            info.attribute_tokens.then(|| Tokens::open(&folder.join("offsets.npy"), rows)).transpose()?;
        let names = Names::open(&options.ids, &folder, Some(&folder.join("data.hf")))?;
        Ok(Self { spec, number, rows, next: 0, numbers, tokens, names })
    }

    /// The number of the example of the next row, and the row's span; passes over the row.
    fn pass(&mut self) -> Result<(u64, Span), FormatError> {
        let row = self.next;
        self.next += 1;
        match &mut self.tokens {
            None => Ok((row, Span::WHOLE)),
            Some(tokens) => {
                let token = tokens.find(row)?;
                Ok((tokens.example, Span::tokens(token, token.saturating_add(1))))
            }
        }
    }
}

impl RowSource for Bergson {
    fn spec(&self) -> &SketchSpec {
        &self.spec
    }

    fn number(&self) -> Number {
        self.number
    }

    fn rows(&self) -> Option<u64> {
        Some(self.rows)
    }

    fn skip(&mut self, rows: u64) -> Result<(), FormatError> {
        // Examples and ids are found again when the next row is read.
        self.next = files::pass(self.numbers.path(), self.next, rows, self.rows)?;
        Ok(())
    }

    fn read(&mut self, rows: usize, batch: &mut Batch) -> Result<(), FormatError> {
        batch.clear();
        let rows = rows.min(usize::try_from(self.rows - self.next).unwrap_or(usize::MAX));
        if rows == 0 {
            let examples = match &mut self.tokens {
                None => self.rows,
                Some(tokens) => tokens.examples,
            };
            return if self.next == self.rows { self.names.finish(examples) } else { Ok(()) };
        }
        let (first, dims) = (self.next, self.spec.dims());
        let offset = first * dims as u64 * self.number.bytes() as u64;
        self.numbers.read(offset, rows * dims, &mut batch.values)?;
        check_finite(self.numbers.path(), &self.spec, first, &batch.values)?;
        for _ in 0..rows {
            let (example, span) = self.pass()?;
            batch.ids.push(self.names.of(example, example.to_string().as_bytes())?.to_vec());
            if self.tokens.is_some() {
                batch.spans.push(span);
            }
        }
        batch.rows = rows;
        Ok(())
    }
}

/// The folder of a store at `path`, or of the one of several below it that is asked for.
fn find(path: &Path, part: Option<&str>) -> Result<PathBuf, FormatError> {
    if part.is_none() && path.join("info.json").exists() {
        return Ok(path.into());
    }
    let mut parts = Vec::new();
    files::each_name(path, |name| {
        if path.join(&name).join("info.json").exists() {
            parts.push(name);
        }
    })?;
    parts.sort_unstable();
    files::choose(path, part, parts, "info.json").map(|part| path.join(part))
}

/// What determines a row, as far as the files beside it tell.
fn digest(folder: &Path) -> Result<String, FormatError> {
    let mut words = Vec::new();
    match settings::read(&folder.join("processor_config.yaml"))? {
        Some(processor) => words.extend(settings::words(&processor, processor.keys().map(String::as_str))),
        None => words.push("projection unknown".into()),
    }
    let normalizers = folder.join("normalizers.pth");
    // Two empty files of different versions of torch differ.
    if normalizers.exists() && !torch::is_empty(&normalizers)? {
        words.push(format!("normalizers.pth={}", files::sha256(&normalizers)?));
    }
    match settings::read(&folder.join("config.yaml"))? {
        Some(config) => {
            // A file of one step: `build`, or another command that leads to one.
            let steps = config.get("steps").and_then(Value::as_array).into_iter().flatten();
            let commands = steps.filter_map(Value::as_object).flat_map(|step| step.values());
            for command in commands.filter_map(Value::as_object) {
                let of = |key: &str| command.get(key).and_then(Value::as_object);
                words.extend(of("index_cfg").iter().flat_map(|map| settings::words(map, GRADIENT_SETTINGS)));
                if let Some(map) = of("preprocess_cfg") {
                    words.extend(settings::words(map, ROW_SETTINGS));
                    let has_hessian = map.get("hessian_path").is_some_and(|path| !path.is_null());
                    words.extend(settings::words(map, HESSIAN_SETTINGS.into_iter().filter(|_| has_hessian)));
                }
            }
        }
        None => words.push("settings unknown".into()),
    }
    Ok(words.join(" "))
}

/// Which rows are of which example, read as far as needed.
struct Tokens {
    path: PathBuf,
    offsets: NpyReader<i64, BufReader<File>>,
    /// Where the next offset lies.
    byte: u64,
    rows: u64,
    examples: u64,
    example: u64,
    /// The rows of `example`.
    start: u64,
    end: u64,
}

impl Tokens {
    fn open(path: &Path, rows: u64) -> Result<Self, FormatError> {
        let fail = |what: String| malformed(path, 0, what);
        let mut file = files::open_buffered(path)?;
        let header =
            NpyHeader::from_reader(&mut file).map_err(|error| fail(format!("no npy file: {error}")))?;
        let byte = file.stream_position().map_err(|source| files::io_error(path, "read", source))?;
        let file = NpyFile::with_header(header, file);
        let examples = match file.shape() {
            [examples] if *examples > 0 => examples - 1,
            shape => {
                return Err(fail(format!("offsets of shape {shape:?}, where one dimension is expected")));
            }
        };
        let offsets = file.data().map_err(|error| fail(format!("no offsets: {error}")))?;
        let mut tokens =
            Self { path: path.into(), offsets, byte, rows, examples, example: 0, start: 0, end: 0 };
        if tokens.next_offset()? != 0 {
            return Err(fail("the first offset is not 0".into()));
        }
        tokens.end = tokens.next_offset()?;
        Ok(tokens)
    }

    /// Goes to the example of a row, and returns the row's place among its rows.
    fn find(&mut self, row: u64) -> Result<u32, FormatError> {
        while row >= self.end {
            self.start = self.end;
            self.example += 1;
            self.end = self.next_offset()?;
        }
        u32::try_from(row - self.start)
            .map_err(|_| unsupported(&self.path, format!("example {} has 2^32 rows and more", self.example)))
    }

    fn next_offset(&mut self) -> Result<u64, FormatError> {
        let (at, byte) = (self.example, self.byte);
        self.byte += 8;
        match self.offsets.next() {
            Some(Ok(offset)) => match u64::try_from(offset) {
                Ok(offset) if (self.end..=self.rows).contains(&offset) => Ok(offset),
                _ => {
                    let what =
                        format!("offset {offset} of example {at} is not from {} to {}", self.end, self.rows);
                    Err(malformed(&self.path, byte, what))
                }
            },
            Some(Err(source)) if source.kind() != io::ErrorKind::UnexpectedEof => {
                Err(files::io_error(&self.path, "read", source))
            }
            _ => {
                let what =
                    format!("the offsets end within example {at}, before the last of {} rows", self.rows);
                Err(malformed(&self.path, byte, what))
            }
        }
    }
}
