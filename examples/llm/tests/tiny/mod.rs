//! A random model of two layers with a tokenizer of bytes and a few words, written as people have them.

use std::fs;
use std::path::Path;

use experiments::draws::Draws;
use serde_json::json;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

pub const WIDTH: usize = 32;
pub const HIDDEN: usize = 48;
pub const LAYERS: usize = 2;
pub const HEADS: usize = 4;
pub const KEY_HEADS: usize = 2;
pub const HEAD: usize = 8;
pub const SPECIAL: [&str; 3] = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"];
/// A word that is one token.
pub const WORD: &str = "Canada";
/// Bytes, special tokens and the word.
pub const VOCABULARY: usize = 256 + SPECIAL.len() + 1;
pub const TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// A tensor's name in safetensors, its name in GGUF, its shape (the outer axis first), its numbers.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub name: String,
    pub gguf: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
    /// The heads whose rotary pairs GGUF has in another order.
    pub rotated: Option<usize>,
}

/// All tensors, the same ones each time.
pub fn tensors() -> Vec<Tensor> {
    let mut draws = Draws(11);
    let mut tensors = Vec::new();
    let mut add = |name: String, gguf: String, shape: &[usize], rotated| {
        let count: usize = shape.iter().product();
        let scale = if shape.len() == 1 { 0.2 } else { 1.5 / (shape[1] as f64).sqrt() };
        let middle = if shape.len() == 1 { 1.0 } else { 0.0 };
        let values = (0..count).map(|_| (middle + scale * (2.0 * draws.uniform() - 1.0)) as f32).collect();
        tensors.push(Tensor { name, gguf, shape: shape.to_vec(), values, rotated });
    };
    add("model.embed_tokens.weight".into(), "token_embd.weight".into(), &[VOCABULARY, WIDTH], None);
    for layer in 0..LAYERS {
        let mut one = |name: &str, gguf: &str, shape: &[usize], rotated| {
            add(
                format!("model.layers.{layer}.{name}.weight"),
                format!("blk.{layer}.{gguf}.weight"),
                shape,
                rotated,
            );
        };
        one("input_layernorm", "attn_norm", &[WIDTH], None);
        one("self_attn.q_proj", "attn_q", &[HEADS * HEAD, WIDTH], Some(HEADS));
        one("self_attn.k_proj", "attn_k", &[KEY_HEADS * HEAD, WIDTH], Some(KEY_HEADS));
        one("self_attn.v_proj", "attn_v", &[KEY_HEADS * HEAD, WIDTH], None);
        one("self_attn.o_proj", "attn_output", &[WIDTH, HEADS * HEAD], None);
        one("post_attention_layernorm", "ffn_norm", &[WIDTH], None);
        one("mlp.gate_proj", "ffn_gate", &[HIDDEN, WIDTH], None);
        one("mlp.up_proj", "ffn_up", &[HIDDEN, WIDTH], None);
        one("mlp.down_proj", "ffn_down", &[WIDTH, HIDDEN], None);
    }
    add("model.norm.weight".into(), "output_norm.weight".into(), &[WIDTH], None);
    tensors
}

/// A safetensors file.
pub fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in tensors {
        let start = data.len();
        data.extend(tensor.values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, data.len()]});
        header.insert(tensor.name.clone(), entry);
    }
    with_header(&serde_json::Value::Object(header), &data)
}

pub fn with_header(header: &serde_json::Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

pub fn config() -> serde_json::Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": WIDTH,
        "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS, "rope_theta": 100.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 256,
        "tie_word_embeddings": true, "hidden_act": "silu", "rope_scaling": null,
    })
}

fn alphabet() -> Vec<String> {
    let mut letters: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    letters.sort();
    letters
}

pub fn tokenizer() -> Tokenizer {
    let vocab = alphabet().into_iter().zip(0u32..).collect();
    let bpe = BPE::builder().vocab_and_merges::<tokenizers::models::bpe::Vocab>(vocab, Vec::new()).build();
    let mut tokenizer = Tokenizer::new(bpe.expect("a tokenizer of bytes"));
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.add_special_tokens(&SPECIAL.map(|token| AddedToken::from(token, true)));
    tokenizer.add_tokens(&[AddedToken::from(WORD, false)]);
    tokenizer
}

/// Writes everything into a folder.
pub fn write(folder: &Path) {
    fs::write(folder.join("config.json"), config().to_string()).expect("a file");
    fs::write(folder.join("tokenizer_config.json"), json!({"chat_template": TEMPLATE}).to_string())
        .expect("a file");
    tokenizer().save(folder.join("tokenizer.json"), false).expect("a file");
    fs::write(folder.join("model.safetensors"), safetensors(&tensors())).expect("a file");
}

/// A GGUF file of the same model, of type `kind` where a tensor's name is `other`, F32 elsewhere.
pub fn gguf(other: Option<(&str, u32)>) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    let tensors = tensors();
    let number = |value: usize| [&4u32.to_le_bytes()[..], &(value as u32).to_le_bytes()].concat();
    let float = |value: f32| [&6u32.to_le_bytes()[..], &value.to_le_bytes()].concat();
    let text = |value: &str| [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat();
    let string = |value: &str| [&8u32.to_le_bytes()[..], &text(value)].concat();
    let list = |kind: u32, values: Vec<Vec<u8>>| {
        [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &(values.len() as u64).to_le_bytes(), &values.concat()]
            .concat()
    };
    let tokens: Vec<String> =
        alphabet().into_iter().chain(SPECIAL.map(str::to_owned)).chain([WORD.to_owned()]).collect();
    let kinds = (0..tokens.len()).map(|at| if (256..259).contains(&at) { 3i32 } else { 1 });
    let settings: Vec<(&str, Vec<u8>)> = vec![
        ("general.architecture", string("llama")),
        ("llama.block_count", number(LAYERS)),
        ("llama.context_length", number(256)),
        ("llama.embedding_length", number(WIDTH)),
        ("llama.feed_forward_length", number(HIDDEN)),
        ("llama.attention.head_count", number(HEADS)),
        ("llama.attention.head_count_kv", number(KEY_HEADS)),
        ("llama.rope.freq_base", float(100.0)),
        ("llama.attention.layer_norm_rms_epsilon", float(1e-5)),
        ("tokenizer.ggml.model", string("gpt2")),
        ("tokenizer.ggml.pre", string("smollm")),
        ("tokenizer.ggml.tokens", list(8, tokens.iter().map(|token| text(token)).collect())),
        ("tokenizer.ggml.merges", list(8, Vec::new())),
        ("tokenizer.ggml.token_type", list(5, kinds.map(|kind| kind.to_le_bytes().to_vec()).collect())),
        ("tokenizer.chat_template", string(TEMPLATE)),
    ];
    file.extend(3u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((settings.len() as u64).to_le_bytes());
    for (key, value) in settings {
        file.extend(text(key));
        file.extend(value);
    }
    let mut data = Vec::new();
    for tensor in &tensors {
        file.extend(text(&tensor.gguf));
        file.extend((tensor.shape.len() as u32).to_le_bytes());
        file.extend(tensor.shape.iter().rev().flat_map(|axis| (*axis as u64).to_le_bytes()));
        let kind = other.filter(|(name, _)| *name == tensor.gguf).map_or(0, |(_, kind)| kind);
        file.extend(kind.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        data.extend(interleaved(tensor).iter().flat_map(|value| value.to_le_bytes()));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}

/// Row r + half h of a head becomes its row 2 r + h.
fn interleaved(tensor: &Tensor) -> Vec<f32> {
    let Some(heads) = tensor.rotated else { return tensor.values.clone() };
    let (columns, mut turned) = (tensor.shape[1], Vec::new());
    for head in 0..heads {
        for row in 0..HEAD {
            let from = head * HEAD + row % 2 * (HEAD / 2) + row / 2;
            turned.extend_from_slice(&tensor.values[from * columns..(from + 1) * columns]);
        }
    }
    turned
}
