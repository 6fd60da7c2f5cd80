//! What the demo and the language model share: the data with its errors and its backdoor, what is asked
//! about a model's outputs, the methods without gradients, how rankings are judged, and the report.
//!
//! Nothing here knows a model, a device or an index.

pub mod bm25;
pub mod data;
pub mod draws;
pub mod experiment;
pub mod metrics;
pub mod report;
pub mod words;
