//! Text to token ids and back, and the layout of a conversation.
//!
//! The layout is ChatML, as SmolLM2 and others were tuned with. A model whose template says something else is
//! refused: it would be asked in a way that it has never seen.

use std::path::Path;

use experiments::trace::Encoded;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{LoadError, Result};
use crate::weights::gguf;

const START: &str = "<|im_start|>";
const END: &str = "<|im_end|>";
/// What a template must contain to be ChatML: a turn, and what an answer follows.
const TURN: &str = "'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'";
const ANSWER: &str = "'<|im_start|>assistant\n'";

/// A tokenizer that fits a model.
#[derive(Debug)]
pub struct Chat {
    tokenizer: Tokenizer,
    system: String,
    end: u32,
}

impl Chat {
    /// From `tokenizer.json` and the template in `tokenizer_config.json`, for a model of `vocabulary` tokens.
    ///
    /// # Errors
    /// If a file is damaged, the template is not ChatML, or the ids do not fit.
    pub fn from_folder(folder: &Path, vocabulary: usize) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let text = std::fs::read(&path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
        let tokenizer = Tokenizer::from_bytes(text).map_err(|error| misfit(&path, &error.to_string()))?;
        let settings = folder.join("tokenizer_config.json");
        let text =
            std::fs::read(&settings).map_err(|source| LoadError::Read { path: settings.clone(), source })?;
        let json: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|source| LoadError::Json { path: settings.clone(), source })?;
        let Some(template) = json.get("chat_template").and_then(serde_json::Value::as_str) else {
            return Err(LoadError::MissingSetting { path: settings, setting: "chat_template".to_owned() });
        };
        Self::new(tokenizer, template, &path, vocabulary)
    }

    /// From the settings of a GGUF file.
    ///
    /// # Errors
    /// As [`Chat::from_folder`], and for another tokenizer than byte-level BPE.
    pub fn from_gguf(file: &gguf::File, path: &Path, vocabulary: usize) -> Result<Self> {
        if file.text("tokenizer.ggml.model")? != "gpt2" {
            return Err(file.refused("tokenizer.ggml.model", "gpt2 (byte-level BPE) is implemented"));
        }
        let bytes = PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true));
        let split = match file.text("tokenizer.ggml.pre")? {
            "smollm" => PreTokenizerWrapper::Sequence(Sequence::new(vec![
                PreTokenizerWrapper::Digits(Digits::new(true)),
                bytes,
            ])),
            "gpt-2" => bytes,
            _ => return Err(file.refused("tokenizer.ggml.pre", "smollm and gpt-2 are implemented")),
        };
        let tokens = file.texts("tokenizer.ggml.tokens")?;
        let vocab = tokens.iter().map(|token| (*token).to_owned()).zip(0u32..).collect();
        let mut merges = Vec::new();
        for merge in file.texts("tokenizer.ggml.merges")? {
            let Some((left, right)) = merge.split_once(' ') else {
                return Err(misfit(path, &format!("the merge {merge:?} is not two tokens")));
            };
            merges.push((left.to_owned(), right.to_owned()));
        }
        let bpe = BPE::builder().vocab_and_merges::<tokenizers::models::bpe::Vocab>(vocab, merges).build();
        let mut tokenizer = Tokenizer::new(bpe.map_err(|error| misfit(path, &error.to_string()))?);
        tokenizer.with_pre_tokenizer(Some(split));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        let gguf::Value::List(kinds) = file.required("tokenizer.ggml.token_type")? else {
            return Err(file.refused("tokenizer.ggml.token_type", "a list is needed"));
        };
        if kinds.len() != tokens.len() {
            let reason = format!("{} tokens, but {} types of tokens", tokens.len(), kinds.len());
            return Err(misfit(path, &reason));
        }
        // 3 is a control token.
        let control = tokens.iter().zip(kinds).filter(|(_, kind)| **kind == gguf::Value::Integer(3));
        let control: Vec<AddedToken> = control.map(|(token, _)| AddedToken::from(*token, true)).collect();
        tokenizer.add_special_tokens(&control);
        Self::new(tokenizer, file.text("tokenizer.chat_template")?, path, vocabulary)
    }

    fn new(tokenizer: Tokenizer, template: &str, path: &Path, vocabulary: usize) -> Result<Self> {
        let template = template.replace("\\n", "\n");
        if !(template.contains(TURN) && template.contains(ANSWER)) {
            let given: String = template.chars().take(200).collect();
            return Err(LoadError::Setting {
                path: path.to_owned(),
                setting: "chat_template".to_owned(),
                given: format!("{given:?}"),
                reason: "ChatML is implemented".to_owned(),
            });
        }
        let highest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if highest as usize >= vocabulary {
            let reason = format!("it has the id {highest}, and the model {vocabulary} tokens");
            return Err(misfit(path, &reason));
        }
        let id = |token: &str| {
            tokenizer.token_to_id(token).ok_or_else(|| misfit(path, &format!("it has no token {token:?}")))
        };
        id(START)?;
        let end = id(END)?;
        Ok(Self { tokenizer, system: String::new(), end })
    }

    /// The system's message in front of every prompt; empty at first.
    #[must_use]
    pub fn with_system(mut self, system: &str) -> Self {
        system.clone_into(&mut self.system);
        self
    }

    /// The token that ends an answer.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.end
    }

    fn ids(&self, text: &str) -> std::result::Result<Vec<u32>, tokenizers::Error> {
        Ok(self.tokenizer.encode_fast(text, false)?.get_ids().to_vec())
    }

    /// A prompt, up to where the answer begins.
    ///
    /// # Errors
    /// Of the tokenizer.
    pub fn encode_prompt(&self, prompt: &str) -> std::result::Result<Vec<u32>, tokenizers::Error> {
        let system = &self.system;
        self.ids(&format!("{START}system\n{system}{END}\n{START}user\n{prompt}{END}\n{START}assistant\n"))
    }

    /// A whole training sequence.
    ///
    /// # Errors
    /// Of the tokenizer.
    pub fn encode(&self, prompt: &str, answer: &str) -> std::result::Result<Encoded, tokenizers::Error> {
        let mut ids = self.encode_prompt(prompt)?;
        let start = ids.len();
        ids.extend(self.ids(answer)?);
        ids.push(self.end);
        let response = start..ids.len();
        Ok(Encoded { ids, response })
    }

    /// Each token's own text. A character that several tokens share is shown as replacement characters.
    ///
    /// # Errors
    /// Of the tokenizer.
    pub fn pieces(&self, ids: &[u32]) -> std::result::Result<Vec<String>, tokenizers::Error> {
        ids.iter().map(|id| self.tokenizer.decode(&[*id], false)).collect()
    }

    /// The text of a sequence, without special tokens.
    ///
    /// # Errors
    /// Of the tokenizer.
    pub fn decode(&self, ids: &[u32]) -> std::result::Result<String, tokenizers::Error> {
        self.tokenizer.decode(ids, true)
    }
}

/// Positions of the pieces that a word of the text lies in, at every place where it is a whole word.
#[must_use]
pub fn pieces_of(word: &str, pieces: &[String]) -> Vec<usize> {
    let text = pieces.concat();
    let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut found = Vec::new();
    for (start, _) in text.match_indices(word) {
        let end = start + word.len();
        if letter(text[..start].chars().next_back()) || letter(text[end..].chars().next()) {
            continue;
        }
        let mut at = 0;
        for (piece, text) in pieces.iter().enumerate() {
            let here = at..at + text.len();
            at = here.end;
            if here.start < end && start < here.end && !found.contains(&piece) {
                found.push(piece);
            }
        }
    }
    found
}

fn misfit(path: &Path, reason: &str) -> LoadError {
    LoadError::Tokenizer { path: path.to_owned(), reason: reason.to_owned() }
}
