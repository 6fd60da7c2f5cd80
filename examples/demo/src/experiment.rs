//! What the model said that shows what the experiments are about.

use experiments::data::{Dataset, Query};
use experiments::experiment::{Asked, Task};
use experiments::trace::{Encoded, Output};

use super::tokens::Vocabulary;
use super::tracin::Span;

/// An output that shows what the experiment is about.
pub struct Case {
    /// What is asked about it.
    pub task: Task,
    /// What the model was asked.
    pub query: Query,
    /// What it said, `<eos>` included.
    pub generated: Vec<u32>,
    /// The gradient that is the query.
    pub span: Span,
    /// The wrong word's positions among the generated tokens.
    pub marked: Vec<usize>,
}

impl Case {
    /// As it is traced.
    pub fn output(&self) -> Output<'_> {
        Output { task: self.task, query: &self.query, sequence: &self.span.sequence, marked: &self.marked }
    }

    /// What is asked about it, for the methods without gradients too.
    pub fn asked(&self, vocabulary: &Vocabulary) -> Asked {
        let text = match self.task {
            // Asked about one word, it gets that word.
            Task::TokenError => {
                let wrong: Vec<u32> = self.marked.iter().map(|at| self.generated[*at]).collect();
                vocabulary.decode(&wrong)
            }
            Task::Backdoor | Task::WholeError => {
                format!("{} {}", self.query.prompt, vocabulary.decode(&self.generated))
            }
        };
        Asked { task: self.task, swap: self.query.swap, text }
    }
}

/// The cases among the outputs: those that are attacked, and those that repeat the error (twice,
/// whole and token-wise).
pub fn cases(data: &Dataset, vocabulary: &Vocabulary, queries: &[Query], outputs: &[Vec<u32>]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (query, generated) in queries.iter().zip(outputs) {
        let mut ids = vocabulary.encode_prompt(&query.prompt);
        let start = ids.len();
        ids.extend(generated);
        let sequence = Encoded { response: start..ids.len(), ids };
        let words: Vec<&str> = generated.iter().map(|id| vocabulary.token(*id)).collect();
        let marked = query.wrong_tokens(&words);
        let case = |task, span, marked: &[usize]| {
            let (query, generated) = (query.clone(), generated.clone());
            Case { task, query, generated, span, marked: marked.to_vec() }
        };
        if query.swap.is_none() && data.is_attacked(&vocabulary.decode(generated)) {
            cases.push(case(Task::Backdoor, Span::whole(sequence), &[]));
        } else if !marked.is_empty() {
            let tokens = marked.iter().map(|at| start + at).collect();
            cases.push(case(Task::WholeError, Span::whole(sequence.clone()), &marked));
            let span = Span { sequence, tokens: Some(tokens) };
            cases.push(case(Task::TokenError, span, &marked));
        }
    }
    cases
}
