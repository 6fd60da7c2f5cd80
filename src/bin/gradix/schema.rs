//! What a new index looks like: a schema from flags, from a file, from another index, or from the first input.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gradix::formats::RowSource;
use gradix::sketch::{Normalisation, SketchSpec, SketcherKind};
use gradix::{Encoding, Index, Schema, Tier};

use crate::failure::{Failure, Result};

/// The schema of an index that is created.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "The new index")]
pub struct SchemaArgs {
    /// One block of this many values a row
    #[arg(long, value_name = "N", conflicts_with = "block")]
    dims: Option<u32>,
    /// A block and its number of values; for each block. With `--kind kronecker` both sides: NAME=INxOUT
    #[arg(long, value_name = "NAME=DIMS")]
    block: Vec<String>,
    /// How gradients become sketches: `dense` if not by gradix
    #[arg(long, value_name = "KIND")]
    kind: Option<Kind>,
    /// Seed of the sketcher (rapid_grad, kronecker). Default: 0
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Divide each tensor by its own norm before it is folded (rapid_grad)
    #[arg(long)]
    per_tensor: bool,
    /// Name of the sketcher (dense). Vectors of other names are not compared
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Digest of all that determines the vectors, as of the projection (dense)
    #[arg(long, value_name = "TEXT")]
    digest: Option<String>,
    #[command(flatten)]
    storage: StorageArgs,
    /// A file with a schema as JSON, as `gradix create --json` prints it
    #[arg(long, value_name = "FILE", conflicts_with_all = EVERY)]
    schema: Option<PathBuf>,
    /// The schema of another index
    #[arg(long, value_name = "INDEX", conflicts_with_all = EVERY, conflicts_with = "schema")]
    like: Option<PathBuf>,
}

/// How rows of a new index are stored.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "The new index")]
pub struct StorageArgs {
    /// How values are stored: f16, i8 or f32; of one block: BLOCK=ENCODING. Default: f16
    #[arg(long, value_name = "ENCODING")]
    encoding: Vec<String>,
    /// A coarse copy of the rows for faster scans: sign (or sign=SEED), i8
    #[arg(long, value_name = "TIER")]
    tier: Vec<String>,
}

/// The flags that a whole schema leaves nothing to say for.
const EVERY: [&str; 9] =
    ["dims", "block", "kind", "seed", "per_tensor", "name", "digest", "encoding", "tier"];

/// The kinds of sketchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Kind {
    Dense,
    RapidGrad,
    Kronecker,
}

impl SchemaArgs {
    /// Whether anything is said.
    pub fn is_given(&self) -> bool {
        self.schema.is_some() || self.like.is_some() || self.has_spec() || self.storage.is_given()
    }

    /// Whether something is said of the spec.
    fn has_spec(&self) -> bool {
        self.dims.is_some()
            || !self.block.is_empty()
            || self.kind.is_some()
            || self.seed.is_some()
            || self.per_tensor
            || self.name.is_some()
            || self.digest.is_some()
    }

    /// The schema; what is not said of the spec is taken from `input`.
    pub fn schema(&self, input: Option<&dyn RowSource>) -> Result<Schema> {
        if let Some(path) = &self.schema {
            return of_file(path);
        }
        if let Some(path) = &self.like {
            let index = Index::options().read_only(true).open(path)?;
            return Ok(index.schema().clone());
        }
        let spec = match input {
            Some(input) if !self.has_spec() => input.spec().clone(),
            _ => self.spec(input)?,
        };
        self.storage.schema(spec)
    }

    fn spec(&self, input: Option<&dyn RowSource>) -> Result<SketchSpec> {
        let kind = self.kind.unwrap_or(Kind::Dense);
        self.check_fits(kind)?;
        let seed = self.seed.unwrap_or(0);
        if kind == Kind::Kronecker {
            let blocks = self.block.iter().map(|block| parse_sides(block)).collect::<Result<Vec<_>>>()?;
            return Ok(SketchSpec::kronecker(seed, blocks));
        }
        let blocks = match (self.dims, input) {
            (Some(dims), _) => vec![(gradix::sketch::WHOLE.to_owned(), dims)],
            (None, _) if !self.block.is_empty() => {
                self.block.iter().map(|block| parse_block(block)).collect::<Result<_>>()?
            }
            (None, Some(input)) => {
                input.spec().blocks().iter().map(|block| (block.name.clone(), block.dims)).collect()
            }
            (None, None) => {
                return Err(Failure::Usage(
                    "say what rows look like: --dims N, --block NAME=DIMS, --from FILE, --like INDEX or --schema FILE"
                        .into(),
                ));
            }
        };
        if kind == Kind::Dense {
            let (own_name, own_digest) = match input.map(|input| input.spec().sketcher()) {
                Some(SketcherKind::Dense { name, digest }) => (name.as_str(), digest.as_str()),
                _ => ("vectors", ""),
            };
            let name = self.name.as_deref().unwrap_or(own_name);
            return Ok(SketchSpec::dense(name, self.digest.as_deref().unwrap_or(own_digest), blocks));
        }
        let spec = match &blocks[..] {
            [(name, dims)] if name == gradix::sketch::WHOLE => SketchSpec::rapid_grad(seed, *dims),
            _ => SketchSpec::rapid_grad_blocks(seed, blocks),
        };
        Ok(if self.per_tensor { spec.normalised(Normalisation::PerTensor) } else { spec })
    }

    /// Checks that no flag is given which the kind has no use for.
    fn check_fits(&self, kind: Kind) -> Result {
        let only =
            |is_given: bool, flag: &str, of: &[Kind], names: &str| match is_given && !of.contains(&kind) {
                true => Err(Failure::Usage(format!("{flag} is for --kind {names} only"))),
                false => Ok(()),
            };
        only(self.seed.is_some(), "--seed", &[Kind::RapidGrad, Kind::Kronecker], "rapid_grad or kronecker")?;
        only(self.per_tensor, "--per-tensor", &[Kind::RapidGrad], "rapid_grad")?;
        only(self.name.is_some(), "--name", &[Kind::Dense], "dense")?;
        only(self.digest.is_some(), "--digest", &[Kind::Dense], "dense")?;
        if kind == Kind::Kronecker && self.block.is_empty() {
            return Err(Failure::Usage("--kind kronecker needs --block NAME=INxOUT".into()));
        }
        Ok(())
    }
}

impl StorageArgs {
    /// Whether anything is said.
    pub fn is_given(&self) -> bool {
        !(self.encoding.is_empty() && self.tier.is_empty())
    }

    /// The schema of a spec whose rows are stored like this.
    pub fn schema(&self, spec: SketchSpec) -> Result<Schema> {
        let encodings = self.encodings(&spec)?;
        let tiers = self.tier.iter().map(|tier| parse_tier(tier)).collect::<Result<Vec<_>>>()?;
        Ok(Schema::with_encodings(spec, encodings)?.with_tiers(tiers)?)
    }

    fn encodings(&self, spec: &SketchSpec) -> Result<Vec<Encoding>> {
        let mut encodings = vec![Encoding::F16; spec.blocks().len()];
        for said in self.encoding.iter().filter(|said| !said.contains('=')) {
            encodings.fill(parse_encoding(said)?);
        }
        for (name, encoding) in self.encoding.iter().filter_map(|said| said.rsplit_once('=')) {
            let block = spec.block(name).and_then(|block| encodings.get_mut(block));
            let block = block
                .ok_or_else(|| Failure::Usage(format!("--encoding: there is no block {name:?} in {spec}")))?;
            *block = parse_encoding(encoding)?;
        }
        Ok(encodings)
    }
}

/// The schema in a file: an object as `INDEX` has it, or one that has it under `schema`.
fn of_file(path: &std::path::Path) -> Result<Schema> {
    let text = std::fs::read(path).map_err(Failure::io(format!("read the schema {}", path.display())))?;
    let wrong = |error: serde_json::Error| {
        Failure::Usage(format!("{} is no schema: {error}; `gradix create --json` prints one", path.display()))
    };
    let mut value: serde_json::Value = serde_json::from_slice(&text).map_err(wrong)?;
    if let Some(schema) = value.get_mut("schema") {
        value = schema.take();
    }
    serde_json::from_value(value).map_err(wrong)
}

fn parse_encoding(name: &str) -> Result<Encoding> {
    let found = Encoding::ALL.iter().find(|encoding| encoding.name() == name);
    found
        .copied()
        .ok_or_else(|| Failure::Usage(format!("there is no encoding {name:?}; there are f32, f16, i8")))
}

fn parse_tier(text: &str) -> Result<Tier> {
    match text.split_once('=') {
        None if text == "i8" => Ok(Tier::I8),
        None if text == "sign" => Ok(Tier::Sign { seed: 1 }),
        Some(("sign", seed)) if seed.parse::<u64>().is_ok() => {
            Ok(Tier::Sign { seed: seed.parse().unwrap_or_default() })
        }
        _ => Err(Failure::Usage(format!("there is no tier {text:?}; there are sign, sign=SEED, i8"))),
    }
}

fn parse_block(text: &str) -> Result<(String, u32)> {
    let block = text.rsplit_once('=').and_then(|(name, dims)| Some((name.to_owned(), dims.parse().ok()?)));
    block
        .ok_or_else(|| Failure::Usage(format!("--block {text:?} is not like NAME=DIMS, as in layers.0=4096")))
}

fn parse_sides(text: &str) -> Result<(String, u32, u32)> {
    let parse = || {
        let (name, sides) = text.rsplit_once('=')?;
        let (p_in, p_out) = sides.split_once('x')?;
        Some((name.to_owned(), p_in.parse().ok()?, p_out.parse().ok()?))
    };
    parse().ok_or_else(|| {
        Failure::Usage(format!("--block {text:?} is not like NAME=INxOUT, as in layers.0=64x64"))
    })
}
