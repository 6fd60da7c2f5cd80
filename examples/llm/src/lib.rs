//! A Llama-architecture language model in burn, fine-tuned with LoRA and traced with gradix.
//!
//! See the package's README.

pub mod batch;
pub mod check;
pub mod config;
pub mod error;
pub mod exact;
pub mod index;
pub mod load;
pub mod model;
pub mod stages;
pub mod tokens;
pub mod train;
pub mod weights;
