//! `gradix create`

use std::path::PathBuf;

use clap::Args;
use gradix::Index;
use serde_json::json;

use crate::failure::Result;
use crate::inputs::ReadArgs;
use crate::output::Output;
use crate::schema::SchemaArgs;

/// Create an index
///
/// Makes a new, empty index in a folder that does not exist or is empty. Its schema says how gradients become sketches, which
/// blocks a row has, how they are stored, and which coarse copies of them there are. It cannot be changed later. It is said by
/// flags, or taken from a file, from another index, or from the first file that is to be appended.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix create my.gradix --dims 4096 --encoding i8 --tier sign
    gradix create my.gradix --kind rapid_grad --seed 7 --dims 65536
    gradix create my.gradix --block layers.0=1024 --block layers.1=1024 --encoding f16 --encoding layers.0=f32
    gradix create my.gradix --kind kronecker --seed 7 --block layers.0=64x64
    gradix create my.gradix --from gradients-000.safetensors --encoding i8
    gradix create other.gradix --like my.gradix")]
pub struct Create {
    /// The index, a folder
    index: PathBuf,
    /// Take the blocks from a file of vectors; flags say the rest
    #[arg(long, value_name = "FILE", conflicts_with_all = ["schema", "like"])]
    from: Option<PathBuf>,
    #[command(flatten)]
    schema: SchemaArgs,
    #[command(flatten)]
    read: ReadArgs,
}

impl Create {
    pub fn run(&self, output: &Output) -> Result {
        let input = self.from.as_ref().map(|path| self.read.open_shape(path)).transpose()?;
        let schema = self.schema.schema(input.as_deref())?;
        let index = Index::create(&self.index, &schema)?;
        let path = self.index.display();
        let tiers: String = schema.tiers().iter().map(|tier| format!(" + {}", tier.name())).collect();
        let mut encodings: Vec<_> = schema.encodings().iter().map(|encoding| encoding.name()).collect();
        encodings.dedup();
        let made = json!({"index": self.index, "uuid": index.uuid().to_string(), "schema": schema});
        output.result(&made, || format!("created {path}: {}; {}{tiers}", schema.spec(), encodings.join(", ")))
    }
}
