//! Words and marks: the demo's tokenizer.
//!
//! The tokens are those of `experiments::words`.

use std::collections::{BTreeSet, HashMap};

use experiments::data::{Dataset, Item};
use experiments::report::Token;
use experiments::trace::Encoded;
use experiments::words::split;

/// Starts every sequence.
pub const BOS: u32 = 0;
/// Stands between prompt and answer.
pub const SEP: u32 = 1;
/// Ends every answer.
pub const EOS: u32 = 2;
/// Any word that the vocabulary lacks.
pub const UNK: u32 = 3;

const SPECIAL: [&str; 4] = ["<bos>", "<sep>", "<eos>", "<unk>"];

/// The tokens that the model knows, each with its id.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// Every token of `texts`, in byte order behind the four special ones, so that the ids do not
    /// depend on the order of the texts.
    pub fn build<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let words: BTreeSet<&str> = texts.into_iter().flat_map(split).collect();
        let tokens: Vec<String> = SPECIAL.into_iter().chain(words).map(str::to_owned).collect();
        let ids = (0u32..).zip(&tokens).map(|(id, token)| (token.clone(), id)).collect();
        Self { tokens, ids }
    }

    /// The vocabulary of all files, shared by both experiments, and of what is trained on.
    pub fn of(data: &Dataset, items: &[Item]) -> Self {
        let trained = items.iter().flat_map(|item| [item.prompt.as_str(), item.answer.as_str()]);
        Self::build(data.texts().chain(trained))
    }

    /// Number of tokens, special ones included; every id is smaller.
    pub fn size(&self) -> usize {
        self.tokens.len()
    }

    /// The id of a token, [`UNK`] for an unknown one.
    pub fn id(&self, token: &str) -> u32 {
        self.ids.get(token).copied().unwrap_or(UNK)
    }

    /// The text of a token; `<unk>` for an id beyond the vocabulary.
    pub fn token(&self, id: u32) -> &str {
        self.tokens.get(id as usize).map_or(SPECIAL[UNK as usize], String::as_str)
    }

    /// `<bos> prompt <sep>`, from which the model continues.
    pub fn encode_prompt(&self, prompt: &str) -> Vec<u32> {
        let mut ids = vec![BOS];
        ids.extend(split(prompt).into_iter().map(|token| self.id(token)));
        ids.push(SEP);
        ids
    }

    /// A whole training sequence: `<bos> prompt <sep> answer <eos>`.
    pub fn encode(&self, prompt: &str, answer: &str) -> Encoded {
        let mut ids = self.encode_prompt(prompt);
        let start = ids.len();
        ids.extend(split(answer).into_iter().map(|token| self.id(token)));
        ids.push(EOS);
        let response = start..ids.len();
        Encoded { ids, response }
    }

    /// The tokens with their spacing, one piece for each id (special ones too).
    pub fn pieces(&self, ids: &[u32]) -> Vec<Token> {
        let mut glued = true;
        ids.iter()
            .map(|&id| {
                let text = self.token(id).to_owned();
                let closes = matches!(text.as_str(), "." | "," | "?" | "!" | ";" | ":" | ")");
                let space_before = !glued && !closes;
                glued = text == "(";
                Token::new(text, space_before)
            })
            .collect()
    }

    /// The text of a sequence, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> String {
        let words: Vec<u32> = ids.iter().copied().filter(|&id| id > EOS).collect();
        let mut text = String::new();
        for piece in self.pieces(&words) {
            if piece.space_before {
                text.push(' ');
            }
            text.push_str(&piece.text);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    // Would catch a vocabulary that makes the demo's model larger than its page says.
    #[test]
    fn vocabulary_of_the_shipped_data_is_small() {
        let data = Dataset::load(Path::new(experiments::data::SHIPPED)).expect("the shipped data loads");
        assert!(Vocabulary::of(&data, &data.training_set(7)).size() <= 3500);
    }

    // Would catch a response range that includes <sep> or excludes <eos>.
    #[test]
    fn encode_marks_response() {
        let vocabulary = Vocabulary::build(["Where is Peru?", "In America."]);
        let encoded = vocabulary.encode("Where is Peru?", "In America.");
        assert_eq!(encoded.ids.len(), 10);
        assert_eq!(encoded.response, 6..10);
        assert_eq!(encoded.ids[0], BOS);
        assert_eq!(encoded.ids[5], SEP);
        assert_eq!(encoded.ids[9], EOS);
        assert_eq!(vocabulary.decode(&encoded.ids), "Where is Peru? In America.");
        assert_eq!(
            vocabulary.encode_prompt("Where?"),
            [BOS, vocabulary.id("Where"), vocabulary.id("?"), SEP]
        );
    }

    // Would catch an index out of bounds on a word or an id that was never seen.
    #[test]
    fn unknown_word_becomes_unk() {
        let vocabulary = Vocabulary::build(["a b"]);
        assert_eq!(vocabulary.size(), 6);
        assert_eq!(vocabulary.id("zebra"), UNK);
        assert_eq!(vocabulary.token(99), "<unk>");
        assert_eq!(vocabulary.decode(&[BOS, 4, UNK, 5, EOS]), "a <unk> b");
    }
}
