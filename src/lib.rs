//! gradix: an embeddable storage engine for gradient indexes.
