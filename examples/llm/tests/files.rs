//! What a model's files may have wrong, each from a small one that is right.

mod tiny;

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use llm::error::LoadError;
use llm::load::{Loaded, load};
use llm::model::Lora;
use serde_json::json;
use tiny::Tensor;

const LORA: Lora = Lora { rank: 2, alpha: 4.0 };

fn load_from(path: &Path) -> Result<Loaded, LoadError> {
    load(path, LORA, &Device::flex())
}

/// The error of the tiny folder after a change.
fn refused(change: impl FnOnce(&Path)) -> LoadError {
    let folder = tempfile::tempdir().expect("a folder");
    tiny::write(folder.path());
    change(folder.path());
    load_from(folder.path()).map(drop).expect_err("the change is refused")
}

fn with_tensors(change: impl FnOnce(&mut Vec<Tensor>)) -> LoadError {
    refused(|folder| {
        let mut tensors = tiny::tensors();
        change(&mut tensors);
        fs::write(folder.join("model.safetensors"), tiny::safetensors(&tensors)).expect("a file");
    })
}

fn with_config(setting: &str, value: serde_json::Value) -> LoadError {
    refused(|folder| {
        let mut config = tiny::config();
        config[setting] = value;
        fs::write(folder.join("config.json"), config.to_string()).expect("a file");
    })
}

// Would catch a file that is read past its end, or cut off without the tensor's name.
#[test]
fn safetensors_truncated_at_any_place() {
    let whole = tiny::safetensors(&tiny::tensors());
    let folder = tempfile::tempdir().expect("a folder");
    tiny::write(folder.path());
    for len in (0..whole.len()).step_by(997).chain([7, 8, 9, whole.len() - 1]) {
        fs::write(folder.path().join("model.safetensors"), &whole[..len]).expect("a file");
        let error = load_from(folder.path()).map(drop).expect_err("truncated");
        assert!(matches!(error, LoadError::Truncated { .. }), "{len}: {error}");
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }
    let error = load_from(folder.path()).map(drop).expect_err("truncated").to_string();
    assert!(error.contains("model.norm.weight"), "{error}");
}

// Would catch an allocation or an overflow by numbers of a damaged header.
#[test]
fn safetensors_header_that_lies() {
    for (header, expected) in [
        (json!({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}), "before its start"),
        (json!({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, u64::MAX]}}), "truncated"),
        (json!({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}}), "entry \"a\""),
    ] {
        let error = refused(|folder| {
            fs::write(folder.join("model.safetensors"), tiny::with_header(&header, &[0; 8])).expect("a file");
        });
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = refused(|folder| {
        fs::write(folder.join("model.safetensors"), u64::MAX.to_le_bytes()).expect("a file");
    });
    assert!(matches!(error, LoadError::Malformed { offset: 0, .. }), "{error}");
}

// Would catch a model that is loaded without one of its tensors, or with one that nothing reads.
#[test]
fn tensors_that_do_not_fit() {
    let error = with_tensors(|tensors| tensors.retain(|it| !it.name.contains("layers.1.mlp.up")));
    assert!(
        matches!(&error, LoadError::MissingTensor { tensor, .. } if tensor.contains("layers.1.mlp.up")),
        "{error}"
    );
    let error = with_tensors(|tensors| tensors[3].shape.reverse());
    let LoadError::Shape { tensor, given, expected, .. } = &error else { panic!("{error}") };
    assert_eq!(
        (tensor.as_str(), given.as_slice()),
        ("model.layers.0.self_attn.k_proj.weight", &[32, 16][..])
    );
    assert_eq!(expected.as_slice(), [16, 32]);
    let error = with_tensors(|tensors| {
        let mut bias = tensors[1].clone();
        bias.name = "model.layers.0.self_attn.q_proj.bias".to_owned();
        tensors.push(bias);
    });
    assert!(
        matches!(&error, LoadError::UnusedTensor { tensor, .. } if tensor.ends_with("q_proj.bias")),
        "{error}"
    );
}

// Would catch numbers of another type that are read as floats.
#[test]
fn safetensors_of_another_type() {
    let error = refused(|folder| {
        let path = folder.join("model.safetensors");
        let bytes = fs::read(&path).expect("the file");
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
        header["model.norm.weight"]["dtype"] = json!("F8_E4M3");
        fs::write(&path, tiny::with_header(&header, &bytes[8 + length..])).expect("a file");
    });
    let LoadError::UnknownType { tensor, kind, .. } = &error else { panic!("{error}") };
    assert_eq!((tensor.as_str(), kind.as_str()), ("model.norm.weight", "F8_E4M3"));
}

/// Splits the tensors into two files with an index, which then says what `change` makes of it.
fn sharded(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let tensors = tiny::tensors();
    let (first, second) = tensors.split_at(7);
    let mut map = serde_json::Map::new();
    for (name, part) in [("model-1.safetensors", first), ("model-2.safetensors", second)] {
        fs::write(folder.join(name), tiny::safetensors(part)).expect("a file");
        map.extend(part.iter().map(|tensor| (tensor.name.clone(), json!(name))));
    }
    let mut index = json!({ "weight_map": map });
    change(&mut index["weight_map"]);
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).expect("a file");
    fs::remove_file(folder.join("model.safetensors")).expect("removed");
}

// Would catch a model of several files that cannot be loaded, or an index that is not compared with them.
#[test]
fn shards_and_their_index() {
    let folder = tempfile::tempdir().expect("a folder");
    tiny::write(folder.path());
    sharded(folder.path(), |_| ());
    load_from(folder.path()).expect("two files");
    let error =
        refused(|folder| sharded(folder, |map| map["model.norm.weight"] = json!("model-1.safetensors")));
    assert!(
        matches!(&error, LoadError::MissingTensor { path, .. } if path.ends_with("model-1.safetensors")),
        "{error}"
    );
    let error =
        refused(|folder| sharded(folder, |map| map["model.norm.weight"] = json!("../model-1.safetensors")));
    assert!(matches!(error, LoadError::Setting { .. }), "{error}");
    let error = refused(|folder| {
        sharded(folder, |_| ());
        fs::remove_file(folder.join("model-2.safetensors")).expect("removed");
    });
    assert!(
        matches!(&error, LoadError::Read { path, .. } if path.ends_with("model-2.safetensors")),
        "{error}"
    );
}

// Would catch a setting that is ignored, so that the model computes something else.
#[test]
fn settings_that_are_not_implemented() {
    for (setting, value) in [
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0})),
        ("attention_bias", json!(true)),
        ("hidden_act", json!("gelu")),
        ("model_type", json!("qwen2")),
        ("architectures", json!(["Qwen2ForCausalLM"])),
        ("rope_interleaved", json!(true)),
        ("num_key_value_heads", json!(3)),
        ("rope_theta", json!(0.0)),
        ("num_hidden_layers", json!(0)),
    ] {
        let error = with_config(setting, value);
        assert!(matches!(error, LoadError::Setting { .. }), "{setting}: {error}");
    }
    assert!(with_config("rope_scaling", json!({"type": "linear"})).to_string().contains("rope_scaling"));
}

// Would catch ids without a row in the embedding, or a layout that the model does not know.
#[test]
fn tokenizers_that_do_not_fit() {
    let error = refused(|folder| {
        let mut tokenizer = tiny::tokenizer();
        tokenizer.add_tokens(&[tokenizers::AddedToken::from("one too many", false)]);
        tokenizer.save(folder.join("tokenizer.json"), false).expect("a file");
    });
    assert!(error.to_string().contains("it has the id 260, and the model 260 tokens"), "{error}");
    let error = refused(|folder| {
        let template = json!({"chat_template": "{{ '[INST] ' + message['content'] }}"}).to_string();
        fs::write(folder.join("tokenizer_config.json"), template).expect("a file");
    });
    assert!(matches!(&error, LoadError::Setting { setting, .. } if setting == "chat_template"), "{error}");
    let error = refused(|folder| fs::write(folder.join("tokenizer.json"), "{}").expect("a file"));
    assert!(matches!(error, LoadError::Tokenizer { .. }), "{error}");
}

fn gguf_error(bytes: &[u8]) -> LoadError {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.gguf");
    fs::write(&path, bytes).expect("a file");
    load_from(&path).map(drop).expect_err("refused")
}

// Would catch a panic, an endless loop or an allocation by a header that ends anywhere.
#[test]
fn gguf_truncated_at_any_place() {
    let whole = tiny::gguf(None);
    for len in (0..6000).step_by(61).chain((6000..whole.len()).step_by(4001)).chain([whole.len() - 32]) {
        let error = gguf_error(&whole[..len]);
        assert!(matches!(error, LoadError::Truncated { .. }), "{len}: {error}");
    }
    assert!(gguf_error(&whole[..whole.len() - 32]).to_string().contains("output_norm.weight"));
}

// Would catch a quantisation that is read as another one.
#[test]
fn gguf_of_an_unknown_type() {
    let error = gguf_error(&tiny::gguf(Some(("blk.1.ffn_up.weight", 12))));
    let LoadError::UnknownType { tensor, kind, offset, .. } = &error else { panic!("{error}") };
    assert_eq!((tensor.as_str(), kind.as_str()), ("blk.1.ffn_up.weight", "12, Q4_K"));
    assert!(*offset > 0);
    let error = gguf_error(&tiny::gguf(Some(("blk.1.ffn_down.weight", 8))));
    assert!(error.to_string().contains("rows of 48 numbers, Q8_0 comes in blocks of 32"), "{error}");
}

// Would catch lengths and counts that are believed.
#[test]
fn gguf_header_that_lies() {
    let mut other = tiny::gguf(None);
    other[4] = 1;
    assert!(gguf_error(&other).to_string().contains("is 1; 2 and 3 are read"));
    other[0] = b'X';
    assert!(matches!(gguf_error(&other), LoadError::Malformed { offset: 0, .. }));
    let whole = tiny::gguf(None);
    for count in [8, 16, 24] {
        let mut other = whole.clone();
        other[count..count + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        let error = gguf_error(&other);
        assert!(
            matches!(error, LoadError::Truncated { .. } | LoadError::Malformed { .. }),
            "{count}: {error}"
        );
    }
}
