//! A model and its tokenizer, from a folder or a GGUF file.

use std::path::Path;

use burn::tensor::Device;

use crate::config::Config;
use crate::error::{LoadError, Result};
use crate::model::{Llama, Lora};
use crate::tokens::Chat;
use crate::weights::{Weights, gguf, safetensors};

/// A model that is ready to be tuned.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: Llama,
    /// Its dimensions.
    pub config: Config,
    /// Its tokenizer.
    pub chat: Chat,
}

/// Loads a `.gguf` file, or a folder with `config.json`, `tokenizer.json`, `tokenizer_config.json` and
/// `*.safetensors`.
///
/// # Errors
/// Names the file, and the tensor, setting or offset at fault.
pub fn load(path: &Path, lora: Lora, device: &Device) -> Result<Loaded> {
    let (weights, config, chat) = if path.is_dir() {
        let config = Config::from_json(&path.join("config.json"))?;
        let chat = Chat::from_folder(path, config.vocabulary)?;
        (Weights::Safetensors(safetensors::Files::open(path)?), config, chat)
    } else {
        let file = gguf::File::open(path)?;
        let tokens = file.texts("tokenizer.ggml.tokens")?.len();
        let tied = !file.has("output.weight");
        let config = Config::from_gguf(&file, path, tied, tokens)?;
        let chat = Chat::from_gguf(&file, path, config.vocabulary)?;
        (Weights::Gguf(file), config, chat)
    };
    if lora.rank == 0 {
        return Err(LoadError::Setting {
            path: path.to_owned(),
            setting: "the adapters' rank".to_owned(),
            given: "0".to_owned(),
            reason: "at least 1 is needed".to_owned(),
        });
    }
    let model = Llama::load(&weights, &config, lora, device)?;
    Ok(Loaded { model, config, chat })
}
