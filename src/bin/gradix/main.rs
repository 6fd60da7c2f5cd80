//! `gradix`, the program: the day of those who append to gradient indexes and ask them, from a shell.

fn main() {}
