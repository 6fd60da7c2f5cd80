//! A language model, traced with gradix.
fn main() {}
