//! What the demo and the language model share: the data with its errors and its backdoor, what is asked
//! about a model's outputs, the methods without gradients, the indexes that are compared, how rankings are judged,
//! how an output is traced, and the report.
//!
//! Nothing here knows a model or a device.

pub mod bm25;
pub mod comparison;
pub mod data;
pub mod draws;
pub mod experiment;
pub mod info_rag;
pub mod metrics;
pub mod report;
pub mod trace;
pub mod training;
pub mod words;

/// A failure of any layer; the programs only report it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
