//! `report`: rankings as one page.

use std::fs;
use std::path::PathBuf;

use gradix::report::{Example, Hit, Output, Report, Token};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::ranking::PyRanking;
use crate::values::Id;

/// A page of HTML that needs nothing else. Made by `report`; a notebook shows it.
#[pyclass(frozen, module = "gradix", name = "Report")]
pub struct PyReport {
    html: String,
}

#[pymethods]
impl PyReport {
    /// The page.
    #[getter]
    fn html(&self) -> &str {
        &self.html
    }

    /// Writes the page to a file.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        Ok(py.detach(|| fs::write(path, &self.html))?)
    }

    fn _repr_html_(&self) -> String {
        // A frame of its own, whose styles and scripts are not those of the notebook.
        let page = self.html.replace('&', "&amp;").replace('"', "&quot;");
        format!("<iframe srcdoc=\"{page}\" style=\"width: 100%; height: 45rem; border: 0\"></iframe>")
    }

    fn __repr__(&self) -> String {
        format!("<Report of {} bytes>", self.html.len())
    }
}

/// The text of an example, or its text and source.
#[derive(FromPyObject)]
pub enum ExampleText {
    /// The text.
    Text(String),
    /// Text and source.
    Labelled(String, String),
}

/// Makes a page of a ranking: outputs of the model with the examples that raise and lower them.
///
/// Each query is one of `answers`; or one of `tokens`, which together are one answer, each coloured by its strongest
/// influence. `prompt` is what the model was asked; `examples` a dict of texts by id, or of pairs of text and source; `facts`
/// a dict of what the page's end says, as text.
#[pyfunction]
#[pyo3(signature = (title, ranking, *, answers = None, tokens = None, prompt = None, examples = None, facts = None))]
pub fn report(
    title: String,
    ranking: &PyRanking,
    answers: Option<Vec<String>>,
    tokens: Option<Vec<String>>,
    prompt: Option<String>,
    examples: Option<&Bound<'_, PyDict>>,
    facts: Option<&Bound<'_, PyDict>>,
) -> PyResult<PyReport> {
    let ranking = &ranking.0;
    let queries = ranking.queries();
    let proponents = |query| ranking.proponents(query).iter().map(Hit::from);
    let opponents = |query| ranking.opponents(query).iter().map(Hit::from);
    let with_prompt = |output: Output| match &prompt {
        Some(prompt) => output.prompt(prompt.clone()),
        None => output,
    };
    let given = match (&answers, &tokens) {
        (Some(texts), None) | (None, Some(texts)) if texts.len() == queries => texts,
        (Some(texts), None) | (None, Some(texts)) => {
            let message = format!("{} texts for {queries} queries", texts.len());
            return Err(PyValueError::new_err(message));
        }
        _ => return Err(PyValueError::new_err("answers or tokens, one for each query, and not both")),
    };
    let mut report = Report::new(title).fact("Rows", ranking.statistics().rows.to_string());
    if tokens.is_some() {
        let mut output = with_prompt(Output::new(given.concat()));
        for (query, text) in given.iter().enumerate() {
            output = output.token(Token::new(text, proponents(query), opponents(query)));
        }
        report = report.output(output);
    } else {
        for (query, text) in given.iter().enumerate() {
            let output = with_prompt(Output::new(text));
            report = report.output(output.ranking(proponents(query), opponents(query)));
        }
    }
    for (id, text) in examples.into_iter().flatten() {
        let example = match text.extract()? {
            ExampleText::Text(text) => Example::new(text),
            ExampleText::Labelled(text, source) => Example::new(text).source(source),
        };
        report = report.example(id.extract::<Id>()?, example);
    }
    for (name, value) in facts.into_iter().flatten() {
        report = report.fact(name.extract::<String>()?, value.extract::<String>()?);
    }
    Ok(PyReport { html: report.to_html() })
}
