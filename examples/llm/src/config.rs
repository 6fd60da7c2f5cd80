//! The dimensions of a Llama-architecture model, from `config.json` or from GGUF's settings.

use std::path::Path;

use serde::Deserialize;

use crate::error::{LoadError, Result};
use crate::weights::gguf;

/// The model's dimensions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the feed-forward layers.
    pub hidden: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; they divide the query heads.
    pub key_heads: usize,
    /// Width of a head; even.
    pub head: usize,
    /// The base of the rotary frequencies.
    pub rope_base: f64,
    /// What keeps the norm of zeros finite.
    pub epsilon: f64,
    /// The longest sequence.
    pub context: usize,
    /// Whether the embedding is the head too.
    pub tied: bool,
}

#[derive(Deserialize)]
struct Json {
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    rope_interleaved: Option<bool>,
    rms_norm_eps: f64,
    max_position_embeddings: usize,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
}

impl Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// A setting that is missing, or stands for something that is not implemented, by its name.
    pub fn from_json(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        let json: Json = serde_json::from_slice(&text)
            .map_err(|source| LoadError::Json { path: path.to_owned(), source })?;
        let refused = |setting: &str, given: String, reason: &str| {
            let (setting, reason) = (setting.to_owned(), reason.to_owned());
            Err(LoadError::Setting { path: path.to_owned(), setting, given, reason })
        };
        if let Some(names) = &json.architectures
            && !names.iter().any(|name| name == "LlamaForCausalLM")
        {
            return refused("architectures", format!("{names:?}"), "LlamaForCausalLM is implemented");
        }
        if let Some(name) = json.model_type.as_deref().filter(|name| *name != "llama") {
            return refused("model_type", format!("{name:?}"), "llama is implemented");
        }
        if let Some(name) = json.hidden_act.as_deref().filter(|name| *name != "silu") {
            return refused("hidden_act", format!("{name:?}"), "silu is implemented");
        }
        if let Some(scaling) = json.rope_scaling.filter(|scaling| !scaling.is_null()) {
            return refused("rope_scaling", scaling.to_string(), "no scaling is implemented");
        }
        for (setting, given) in [
            ("attention_bias", json.attention_bias),
            ("mlp_bias", json.mlp_bias),
            ("rope_interleaved", json.rope_interleaved),
        ] {
            if given == Some(true) {
                return refused(setting, "true".to_owned(), "false is implemented");
            }
        }
        let config = Self {
            vocabulary: json.vocab_size,
            width: json.hidden_size,
            hidden: json.intermediate_size,
            layers: json.num_hidden_layers,
            heads: json.num_attention_heads,
            key_heads: json.num_key_value_heads.unwrap_or(json.num_attention_heads),
            head: json.head_dim.unwrap_or(json.hidden_size / json.num_attention_heads.max(1)),
            rope_base: json.rope_theta.unwrap_or(10_000.0),
            epsilon: json.rms_norm_eps,
            context: json.max_position_embeddings,
            tied: json.tie_word_embeddings.unwrap_or(false),
        };
        config.checked(path)
    }

    /// Reads GGUF's settings; `tied` if the file has no head of its own.
    ///
    /// # Errors
    /// As [`Config::from_json`].
    pub fn from_gguf(file: &gguf::File, path: &Path, tied: bool, vocabulary: usize) -> Result<Self> {
        if file.text("general.architecture")? != "llama" {
            return Err(file.refused("general.architecture", "llama is implemented"));
        }
        if let Some(kind) = file.setting("llama.rope.scaling.type")
            && *kind != gguf::Value::Text("none".to_owned())
        {
            return Err(file.refused("llama.rope.scaling.type", "no scaling is implemented"));
        }
        for setting in ["llama.rope.scaling.factor", "llama.rope.scale_linear"] {
            if file.setting(setting).is_some_and(|factor| *factor != gguf::Value::Float(1.0)) {
                return Err(file.refused(setting, "no scaling is implemented"));
            }
        }
        if file.setting("llama.expert_count").is_some_and(|count| *count != gguf::Value::Integer(0)) {
            return Err(file.refused("llama.expert_count", "a model without experts is implemented"));
        }
        let optional = |name: &str, default: usize| match file.setting(name) {
            None => Ok(default),
            Some(_) => file.integer(name),
        };
        let width = file.integer("llama.embedding_length")?;
        let heads = file.integer("llama.attention.head_count")?;
        let head = optional("llama.attention.key_length", width / heads.max(1))?;
        for setting in ["llama.rope.dimension_count", "llama.attention.value_length"] {
            if optional(setting, head)? != head {
                return Err(file.refused(setting, "only a head's whole width is implemented"));
            }
        }
        let rope_base = match file.setting("llama.rope.freq_base") {
            None => 10_000.0,
            Some(_) => file.float("llama.rope.freq_base")?,
        };
        let config = Self {
            vocabulary,
            width,
            hidden: file.integer("llama.feed_forward_length")?,
            layers: file.integer("llama.block_count")?,
            heads,
            key_heads: optional("llama.attention.head_count_kv", heads)?,
            head,
            rope_base,
            epsilon: file.float("llama.attention.layer_norm_rms_epsilon")?,
            context: file.integer("llama.context_length")?,
            tied,
        };
        config.checked(path)
    }

    fn checked(self, path: &Path) -> Result<Self> {
        let refused = |setting: &str, given: String, reason: &str| {
            let (setting, reason) = (setting.to_owned(), reason.to_owned());
            Err(LoadError::Setting { path: path.to_owned(), setting, given, reason })
        };
        for (setting, given) in [
            ("the vocabulary", self.vocabulary),
            ("the width", self.width),
            ("the hidden width", self.hidden),
            ("the number of layers", self.layers),
            ("the number of heads", self.heads),
            ("the number of key heads", self.key_heads),
            ("the head's width", self.head),
            ("the context", self.context),
        ] {
            if !(1..=1 << 24).contains(&given) {
                return refused(setting, given.to_string(), "1 to 2^24 are possible");
            }
        }
        if !self.heads.is_multiple_of(self.key_heads) {
            let given = format!("{} of {}", self.key_heads, self.heads);
            return refused("the number of key heads", given, "it must divide that of the heads");
        }
        if !self.head.is_multiple_of(2) {
            return refused("the head's width", self.head.to_string(), "it must be even");
        }
        for (setting, given) in [("the rotary base", self.rope_base), ("the norm's epsilon", self.epsilon)] {
            if !(given.is_finite() && given > 0.0) {
                return refused(setting, given.to_string(), "a positive number is needed");
            }
        }
        Ok(self)
    }
}
