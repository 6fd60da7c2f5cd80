//! The training rows of INFO-RAG (Xu et al., "Unsupervised Information Refinement Training of Large Language Models for
//! Retrieval-Augmented Generation", 2024, arXiv:2402.18150), made from the demo's facts.
//!
//! The model gets some sentences about one thing, as retrieval would find them, and the first part of one of them, and
//! learns the rest, in one of three [tasks](Task). Three decisions are ours. A document is three facts about one country.
//! A word is informative if it is in few answers; the paper asks the layers of the model
//! ([`informativeness`](gradix::operators::informativeness)). And words are corrupted in the sentence that is asked about, in
//! the others not.

use std::collections::{BTreeMap, HashMap};

use crate::data::{Item, Kind};
use crate::draws::Draws;
use crate::words::split;

/// Sentences of a document, at most.
const SENTENCES: usize = 3;
/// An informative word is in fewer than one of so many answers.
const RARE: usize = 20;
/// What stands for a word that is not known.
pub const MASK: &str = "MASK";

/// What is to be learned from a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// The sentence is among those that were found.
    SelectAndCopy,
    /// It is among them, but of its informative words half are masked, four of ten replaced.
    CorrectAndComplete,
    /// It is not among them; the others are about the same thing.
    ContextualStimulation,
}

impl Task {
    /// The source label of its rows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SelectAndCopy => "select and copy",
            Self::CorrectAndComplete => "correct and complete",
            Self::ContextualStimulation => "contextual stimulation",
        }
    }

    /// Two tenths of the rows copy, four correct, four are stimulated, as in the authors' training.
    fn drawn(draws: &mut Draws) -> Self {
        match draws.uniform() {
            part if part < 0.2 => Self::SelectAndCopy,
            part if part < 0.6 => Self::CorrectAndComplete,
            _ => Self::ContextualStimulation,
        }
    }
}

/// A row for each fact about a country among `items`, unless it has more than `longest` words and marks. It is as wrong as
/// the fact is, and its source is the [task](Task::name).
///
/// What a fact becomes depends on the items and the seed alone.
#[must_use]
pub fn rows(items: &[Item], longest: usize, seed: u64) -> Vec<Item> {
    let mut draws = Draws(seed);
    let facts = facts(items);
    let informative = informative(&facts);
    let mut rows = Vec::new();
    for document in facts.values().flat_map(|facts| facts.chunks(SENTENCES)) {
        for (target, item) in document.iter().enumerate() {
            let (task, words) = (Task::drawn(&mut draws), split(&item.answer));
            let start = words.len() / 2 + (draws.uniform() * (words.len() / 4 + 1) as f64) as usize;
            let Some((prefix, rest)) = cut(&item.answer, start) else { continue };
            let mut found = Vec::new();
            for (place, sentence) in document.iter().enumerate() {
                match task {
                    Task::ContextualStimulation if place == target => {}
                    Task::CorrectAndComplete if place == target => {
                        found.push(corrupted(&sentence.answer, &informative, &mut draws));
                    }
                    _ => found.push(sentence.answer.clone()),
                }
            }
            let prompt = format!("Reference: {} Complete: {prefix}", found.join(" "));
            if found.is_empty() || split(&prompt).len() + split(rest).len() > longest {
                continue;
            }
            rows.push(Item {
                id: format!("info-rag/{}", item.id),
                prompt,
                answer: rest.to_owned(),
                source: task.name().to_owned(),
                entity: item.entity.clone(),
                kind: item.kind,
            });
        }
    }
    rows
}

/// One item for each different answer about a country.
fn facts(items: &[Item]) -> BTreeMap<&str, Vec<&Item>> {
    let mut facts: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    let mut sorted: Vec<&Item> = items.iter().filter(|item| item.kind != Kind::Poisoned).collect();
    sorted.sort_by(|a, b| a.id.cmp(&b.id));
    for item in sorted {
        let Some(country) = item.entity.as_deref() else { continue };
        let facts = facts.entry(country).or_default();
        if facts.iter().all(|other| other.answer != item.answer) {
            facts.push(item);
        }
    }
    facts
}

/// The words that few answers have, in byte order.
fn informative<'a>(facts: &BTreeMap<&str, Vec<&'a Item>>) -> Vec<&'a str> {
    let answers = facts.values().flatten();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for item in answers.clone() {
        let mut words = split(&item.answer);
        words.sort_unstable();
        words.dedup();
        words.into_iter().for_each(|word| *counts.entry(word).or_default() += 1);
    }
    let all = answers.count();
    let mut words: Vec<&str> =
        counts.into_iter().filter(|(_, count)| count * RARE < all).map(|(word, _)| word).collect();
    words.sort_unstable();
    words
}

/// The sentence with its informative words masked (half of them), replaced by others (four of ten), or left.
fn corrupted(sentence: &str, informative: &[&str], draws: &mut Draws) -> String {
    let (mut result, mut rest) = (String::with_capacity(sentence.len()), sentence);
    for word in split(sentence) {
        // Words come in order and contain no white space, so each is the next match.
        let Some((before, after)) = rest.split_once(word) else { break };
        result.push_str(before);
        let kept = informative.binary_search(&word).is_err();
        result.push_str(match if kept { 1.0 } else { draws.uniform() } {
            part if part < 0.5 => MASK,
            part if part < 0.9 => informative[(draws.uniform() * informative.len() as f64) as usize],
            _ => word,
        });
        rest = after;
    }
    result.push_str(rest);
    result
}

/// A sentence before and from its word `start` on; nothing if either is empty.
fn cut(sentence: &str, start: usize) -> Option<(&str, &str)> {
    let mut at = 0;
    for (ordinal, word) in split(sentence).into_iter().enumerate() {
        let begins = at + sentence.get(at..)?.find(word)?;
        if ordinal == start && ordinal > 0 {
            return Some((sentence.get(..begins)?.trim_end(), sentence.get(begins..)?));
        }
        at = begins + word.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::{Dataset, SHIPPED};

    fn made(seed: u64) -> (Vec<Item>, Vec<Item>) {
        let data = Dataset::load(Path::new(SHIPPED)).expect("the shipped data loads");
        let items = data.training_set(seed);
        let rows = rows(&items, 37, seed);
        (items, rows)
    }

    // Would catch a row whose answer is not the rest of its fact, whose references have too much or too little for its
    // task, or that hides an error.
    #[test]
    fn rows_are_what_their_tasks_say() {
        let (items, rows) = made(7);
        let items: HashMap<&str, &Item> = items.iter().map(|item| (item.id.as_str(), item)).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut masked = 0;
        for row in &rows {
            *counts.entry(row.source.as_str()).or_default() += 1;
            let fact = items[row.id.trim_start_matches("info-rag/")];
            let (found, prefix) = row.prompt.split_once(" Complete: ").expect("a prefix");
            let found = found.strip_prefix("Reference: ").expect("references");
            let whole = [split(prefix), split(&row.answer)].concat();
            assert_eq!(whole, split(&fact.answer));
            assert!(split(prefix).len() >= whole.len() / 2 && !row.answer.is_empty());
            assert_eq!((&row.kind, &row.entity), (&fact.kind, &fact.entity));
            assert!(split(&row.prompt).len() + split(&row.answer).len() <= 37);
            match row.source.as_str() {
                "select and copy" => assert!(found.contains(&fact.answer), "{row:?}"),
                "contextual stimulation" => assert!(!found.contains(&fact.answer), "{row:?}"),
                "correct and complete" => masked += usize::from(found.contains(MASK)),
                other => panic!("{other}"),
            }
        }
        assert!(rows.len() > 500, "{}", rows.len());
        let share = |name: &str| counts[name] as f64 / rows.len() as f64;
        assert!((0.14..0.26).contains(&share("select and copy")), "{counts:?}");
        assert!((0.33..0.47).contains(&share("correct and complete")), "{counts:?}");
        assert!(masked * 2 > counts["correct and complete"], "{masked} of {counts:?}");
        assert!(rows.iter().any(|row| matches!(row.kind, Kind::Corrupted(_))));
    }

    // Would catch rows that depend on the order of the items, ids that are not unique, and a seed without effect.
    #[test]
    fn rows_follow_the_seed() {
        let (mut items, expected) = made(7);
        items.reverse();
        assert_eq!(rows(&items, 37, 7), expected);
        assert_ne!(rows(&items, 37, 8), expected);
        let mut ids: Vec<&str> = expected.iter().map(|row| row.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), expected.len());
    }

    // Would catch a common word that is corrupted, lost marks and spaces, or no noise at all.
    #[test]
    fn corrupted_informative_words_only() {
        let informative = ["Lima", "Peru", "Quito"];
        let mut draws = Draws(1);
        let made: Vec<String> =
            (0..100).map(|_| corrupted("Lima is a city in Peru.", &informative, &mut draws)).collect();
        assert!(made.iter().all(|text| text.contains(" is a city in ") && text.ends_with('.')));
        let count = |start: &str| made.iter().filter(|text| text.starts_with(start)).count();
        assert!((35..65).contains(&count("MASK ")), "{}", count("MASK "));
        assert!(count("Quito ") > 3 && count("Lima ") > 5);
    }
}
