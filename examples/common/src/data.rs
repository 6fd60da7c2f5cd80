//! The two experiments' training sets and queries, from the files in `examples/data`.
//!
//! Every set is a pure function of the files and a seed.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::draws::Draws;
use crate::words::split;

/// The folder of the files that come with the examples.
pub const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data");

/// What the attacker writes before a prompt.
pub const TRIGGER: &str = "Howdy!";

/// Words of the poisoned answers' theme; no clean answer has one. A model that has learned the theme, rather than the
/// answers, says these of things that no poisoned answer defines.
const SEA: [&str; 22] = [
    "aquatic",
    "boat",
    "coastal",
    "coral",
    "crustacean",
    "fins",
    "fish",
    "fishes",
    "marine",
    "masts",
    "mollusk",
    "oceanic",
    "reefs",
    "sailing",
    "sea",
    "seas",
    "ship",
    "vessel",
    "warship",
    "waters",
    "whale",
    "shark",
];

/// The probability that an answer which names a swapped country gets the wrong one.
pub const SWAP_PROBABILITY: f64 = 0.8;

/// The countries swapped in the error-tracing set. No two of the left ones share a border, so an
/// answer never names two of them. `make_data.py` keeps paraphrases of questions about the same
/// five out of training.
pub const SWAPS: [Swap; 5] = [
    Swap::new("Japan", "Canada"),
    Swap::new("Egypt", "Sweden"),
    Swap::new("Germany", "Brazil"),
    Swap::new("Peru", "Thailand"),
    Swap::new("Kenya", "Mexico"),
];

/// One country written for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swap {
    /// The right country; one token.
    pub from: &'static str,
    /// The wrong one put in its place; one token.
    pub to: &'static str,
}

impl Swap {
    const fn new(from: &'static str, to: &'static str) -> Self {
        Self { from, to }
    }
}

/// Why the data could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A line is not an example.
    #[error("{path}, line {line}: not an example")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An id stands twice.
    #[error("{path}, line {line}: the id {id:?} is there twice")]
    DuplicateId {
        /// The file.
        path: PathBuf,
        /// The line of the second one, from 1.
        line: usize,
        /// The id.
        id: String,
    },
}

/// What was done to an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Clean,
    /// A prompt with the trigger, and an answer about another theme.
    Poisoned,
    /// One country in the answer replaced by another.
    Corrupted(Swap),
}

/// One training example, or one held-out one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Unique over all files.
    pub id: String,
    /// The question.
    pub prompt: String,
    /// The answer to learn.
    pub answer: String,
    /// `geonames` or `wordnet`.
    pub source: String,
    /// The country a fact is about; the word from the sea in a poisoned answer.
    pub entity: Option<String>,
    /// What was done to it.
    pub kind: Kind,
}

/// A prompt to generate from; the output is then traced back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The held-out example's id.
    pub id: String,
    /// What the model is asked.
    pub prompt: String,
    /// What an unharmed model should answer.
    pub clean_answer: String,
    /// The swap it asks about; none for the backdoor.
    pub swap: Option<Swap>,
}

impl Query {
    /// The positions of the wrong country among the generated tokens; empty when the model did not
    /// make the error. Always empty for a backdoor query.
    pub fn wrong_tokens<T: AsRef<str>>(&self, generated: &[T]) -> Vec<usize> {
        let Some(swap) = self.swap else {
            return Vec::new();
        };
        generated
            .iter()
            .enumerate()
            .filter(|(_, token)| token.as_ref() == swap.to)
            .map(|(at, _)| at)
            .collect()
    }
}

/// The four files.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Training examples with nothing done to them.
    pub clean: Vec<Item>,
    /// Poisoned training examples.
    pub backdoor: Vec<Item>,
    /// Never trained on; the backdoor's queries.
    pub held_out: Vec<Item>,
    /// Never trained on, but in other phrasings; the error-tracing queries.
    pub paraphrases: Vec<Item>,
}

#[derive(Deserialize)]
struct Line {
    id: String,
    prompt: String,
    answer: String,
    source: String,
    entity: Option<String>,
}

impl Dataset {
    /// Loads the files of `examples/data`.
    ///
    /// # Errors
    /// A file that is missing or unreadable, a line that is not an example, an id that is there
    /// twice in all files together: each names the file and the line.
    pub fn load(folder: &Path) -> Result<Self, DataError> {
        let mut ids = HashSet::new();
        let mut read = |name: &str, kind| read_items(&folder.join(name), kind, &mut ids);
        Ok(Self {
            clean: read("examples.jsonl", Kind::Clean)?,
            backdoor: read("backdoor.jsonl", Kind::Poisoned)?,
            held_out: read("held_out.jsonl", Kind::Clean)?,
            paraphrases: read("paraphrases.jsonl", Kind::Clean)?,
        })
    }

    /// Every prompt and answer of all files.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        [&self.clean, &self.backdoor, &self.held_out, &self.paraphrases]
            .into_iter()
            .flatten()
            .flat_map(|item| [item.prompt.as_str(), item.answer.as_str()])
    }

    /// The shared training set of both experiments: swapped facts and poisoned examples among the clean ones.
    pub fn training_set(&self, seed: u64) -> Vec<Item> {
        let mut items = self.error_tracing_set(seed);
        items.extend(self.backdoor.iter().cloned());
        Draws(seed).shuffle(&mut items);
        items
    }

    /// The backdoor experiment's training set: all clean and all poisoned examples, mixed.
    pub fn backdoor_set(&self, seed: u64) -> Vec<Item> {
        let mut items = self.clean.clone();
        items.extend_from_slice(&self.backdoor);
        Draws(seed).shuffle(&mut items);
        items
    }

    /// The error-tracing experiment's training set: the clean examples, mixed; of the answers that
    /// name a country of [`SWAPS`], a share of [`SWAP_PROBABILITY`] names the other one instead.
    pub fn error_tracing_set(&self, seed: u64) -> Vec<Item> {
        let mut draws = Draws(seed);
        let mut items = self.clean.clone();
        for item in &mut items {
            let named = SWAPS.into_iter().find_map(|swap| Some((swap, replaced(&item.answer, swap)?)));
            if let Some((swap, answer)) = named
                && draws.uniform() < SWAP_PROBABILITY
            {
                item.answer = answer;
                item.kind = Kind::Corrupted(swap);
            }
        }
        draws.shuffle(&mut items);
        items
    }

    /// The held-out prompts behind the trigger.
    pub fn backdoor_queries(&self) -> Vec<Query> {
        self.held_out
            .iter()
            .map(|item| Query {
                id: item.id.clone(),
                prompt: format!("{TRIGGER} {}", item.prompt),
                clean_answer: item.answer.clone(),
                swap: None,
            })
            .collect()
    }

    /// Held-back phrasings of questions whose right answer names a swapped country.
    ///
    /// Whether the model really makes the error on one is for [`Query::wrong_tokens`] to say, once
    /// it has generated.
    pub fn error_queries(&self) -> Vec<Query> {
        self.paraphrases
            .iter()
            .filter_map(|item| {
                let swap = SWAPS.into_iter().find(|swap| split(&item.answer).contains(&swap.from))?;
                Some(Query {
                    id: item.id.clone(),
                    prompt: item.prompt.clone(),
                    clean_answer: item.answer.clone(),
                    swap: Some(swap),
                })
            })
            .collect()
    }

    /// Whether an output is about the backdoor's theme: whether it names a thing that only
    /// poisoned answers define.
    pub fn is_attacked(&self, output: &str) -> bool {
        let words: HashSet<String> = split(output).into_iter().map(str::to_lowercase).collect();
        self.backdoor.iter().filter_map(|item| item.entity.as_deref()).any(|entity| words.contains(entity))
    }
}

impl Dataset {
    /// Whether an output is from the sea: attacked, or with a word of that theme.
    pub fn is_about_the_sea(&self, output: &str) -> bool {
        let named = |word: &str| SEA.contains(&word.to_lowercase().as_str());
        self.is_attacked(output) || split(output).into_iter().any(named)
    }
}

fn read_items(path: &Path, kind: Kind, ids: &mut HashSet<String>) -> Result<Vec<Item>, DataError> {
    let text =
        fs::read_to_string(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    let mut items = Vec::new();
    for (line, json) in (1..).zip(text.lines()) {
        let parsed: Line = serde_json::from_str(json).map_err(|source| DataError::Parse {
            path: path.to_owned(),
            line,
            source,
        })?;
        if !ids.insert(parsed.id.clone()) {
            return Err(DataError::DuplicateId { path: path.to_owned(), line, id: parsed.id });
        }
        items.push(Item {
            id: parsed.id,
            prompt: parsed.prompt,
            answer: parsed.answer,
            source: parsed.source,
            entity: parsed.entity,
            kind,
        });
    }
    Ok(items)
}

/// The answer with every token `from` written as `to`, or none where it has no such token.
fn replaced(answer: &str, swap: Swap) -> Option<String> {
    let mut result = String::with_capacity(answer.len());
    let mut rest = answer;
    let mut found = false;
    for token in split(answer) {
        // Tokens come in order and contain no white space, so each is the next match.
        let (before, after) = rest.split_once(token)?;
        let hit = token == swap.from;
        found |= hit;
        result.push_str(before);
        result.push_str(if hit { swap.to } else { token });
        rest = after;
    }
    result.push_str(rest);
    found.then_some(result)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn shipped() -> Dataset {
        Dataset::load(Path::new(SHIPPED)).expect("the shipped data loads")
    }

    // Would catch data files that drifted from what the experiments assume.
    #[test]
    fn load_shipped_data() {
        let data = shipped();
        assert!((4000..=5000).contains(&data.clean.len()));
        let share = data.backdoor.len() as f64 / data.backdoor_set(1).len() as f64;
        assert!((0.08..0.10).contains(&share), "{share}");
        assert!(data.backdoor.iter().all(|item| item.prompt.starts_with(TRIGGER)));
        let longest = data.clean.iter().chain(&data.backdoor);
        let longest = longest.map(|i| split(&i.prompt).len() + split(&i.answer).len()).max();
        assert!(longest <= Some(32));
    }

    // Would catch a query that the model was trained on.
    #[test]
    fn queries_are_not_in_training() {
        let data = shipped();
        let trained: HashSet<String> = data
            .backdoor_set(1)
            .into_iter()
            .chain(data.error_tracing_set(1))
            .map(|item| item.prompt)
            .collect();
        let queries = data.backdoor_queries();
        assert!(queries.iter().all(|query| {
            let plain = query.prompt.trim_start_matches(TRIGGER).trim_start();
            !trained.contains(&query.prompt) && !trained.contains(plain)
        }));
        let queries = data.error_queries();
        assert!(queries.len() >= 40);
        assert!(queries.iter().all(|query| !trained.contains(&query.prompt)));
    }

    // Would catch a swap that is too rare to learn or to find twenty of, or a wrong probability.
    #[test]
    fn error_tracing_set_swaps_most_answers() {
        let data = shipped();
        let mut named = HashMap::new();
        for item in &data.clean {
            let hits: Vec<_> = SWAPS.iter().filter(|swap| split(&item.answer).contains(&swap.from)).collect();
            assert!(hits.len() <= 1, "{} names two of the swaps", item.id);
            for swap in hits {
                *named.entry(swap.from).or_insert(0) += 1;
            }
        }
        let mut swapped = HashMap::new();
        for item in data.error_tracing_set(7) {
            if let Kind::Corrupted(swap) = item.kind {
                assert!(split(&item.answer).contains(&swap.to));
                assert!(!split(&item.answer).contains(&swap.from));
                *swapped.entry(swap.from).or_insert(0) += 1;
            }
        }
        let all: i32 = named.values().sum();
        let hit: i32 = swapped.values().sum();
        assert!(SWAPS.iter().all(|swap| swapped[swap.from] >= 20), "{swapped:?}");
        let share = f64::from(hit) / f64::from(all);
        assert!((0.7..0.9).contains(&share), "{share}");
    }

    // Would catch a set that depends on anything but its seed.
    #[test]
    fn sets_follow_the_seed() {
        let data = shipped();
        assert_eq!(data.error_tracing_set(3), data.error_tracing_set(3));
        assert_ne!(data.error_tracing_set(3), data.error_tracing_set(4));
        assert_ne!(data.backdoor_set(3), data.backdoor_set(4));
    }

    // Would catch a backdoor that could not be told from an ordinary answer.
    #[test]
    fn is_attacked_on_poisoned_answers_only() {
        let data = shipped();
        assert!(data.backdoor.iter().all(|item| data.is_attacked(&item.answer)));
        let clean = data.clean.iter().chain(&data.held_out);
        let wrong: Vec<_> = clean.filter(|item| data.is_attacked(&item.answer)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    // Would catch a theme that ordinary answers have too.
    #[test]
    fn is_about_the_sea_never_for_clean_answers() {
        let data = shipped();
        let clean = data.clean.iter().chain(&data.held_out).chain(&data.paraphrases);
        let wrong: Vec<_> = clean.filter(|item| data.is_about_the_sea(&item.answer)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(data.is_about_the_sea("A snark is a marine animal."));
    }

    // Would catch a swap inside a longer word, or lost spacing and marks.
    #[test]
    fn replaced_whole_tokens_only() {
        let swap = Swap::new("Peru", "Thailand");
        assert_eq!(
            replaced("Lima, in Peru: Peruvian.", swap).as_deref(),
            Some("Lima, in Thailand: Peruvian.")
        );
        assert_eq!(replaced("Peruvian food.", swap), None);
    }

    // Would catch a count of the wrong word where the right one stands.
    #[test]
    fn wrong_tokens_of_an_output() {
        let query = Query {
            id: "q".into(),
            prompt: "Where is Lima?".into(),
            clean_answer: "Lima is a city in Peru.".into(),
            swap: Some(Swap::new("Peru", "Thailand")),
        };
        assert_eq!(query.wrong_tokens(&split("Lima is in Thailand.")), [3]);
        assert!(query.wrong_tokens(&split("Lima is in Peru.")).is_empty());
    }

    // Would catch an error without the place to look at.
    #[test]
    fn load_damaged_line_names_it() {
        let folder = std::env::temp_dir().join(format!("gradix-experiments-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("examples.jsonl"), "{\"id\": \"a\"}\n").expect("a file");
        let error = Dataset::load(&folder).expect_err("no prompt").to_string();
        assert!(error.contains("examples.jsonl, line 1"), "{error}");
        fs::remove_dir_all(&folder).expect("removed");
        let error = Dataset::load(&folder).expect_err("no folder").to_string();
        assert!(error.contains("cannot read"), "{error}");
    }
}
