//! `docs/errors.md` against the source: each error enum, each variant and its kind, each kind and its exit code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// By enum, by variant: what the page or the source says its kinds are. One that follows from another error's is `of its cause`.
type Catalogue = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// All Rust files of the library; the program has no error enum that others see.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().unwrap() != "bin" {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The name in capitals that follows `before` at the beginning of a line.
fn name_after<'a>(line: &'a str, before: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(before)?;
    let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
    rest[..end].starts_with(|c: char| c.is_uppercase()).then_some(&rest[..end])
}

/// The variants of each public error enum, as rustfmt writes them.
fn enums() -> BTreeMap<String, BTreeSet<String>> {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut enums = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(name) = name_after(line, "pub enum ").filter(|name| name.ends_with("Error")) else {
                continue;
            };
            let body = lines.by_ref().take_while(|line| *line != "}");
            let variants = body.filter_map(|line| name_after(line, "    ")).map(str::to_owned).collect();
            assert!(enums.insert(name.to_owned(), variants).is_none(), "two enums {name}");
        }
    }
    enums
}

/// The kinds that `src/error.rs` gives each variant.
fn catalogue_of_source() -> Catalogue {
    let text = read("src/error.rs");
    let mut catalogue = Catalogue::new();
    for (name, variants) in enums() {
        // `impl AppendError {`, or `impl crate::burn::BurnError {`.
        let of_it = |line: &str| {
            let path = line.strip_prefix("impl ").and_then(|line| line.strip_suffix(" {"));
            path.is_some_and(|path| path.rsplit("::").next() == Some(&name))
        };
        let body: Vec<&str> = text
            .lines()
            .skip_while(|line| !of_it(line))
            .skip_while(|line| !line.contains("match self {"))
            .skip(1)
            .take_while(|line| *line != "        }")
            .collect();
        assert!(!body.is_empty(), "src/error.rs has no kind of {name}");
        let kinds = kinds_of_arms(&body.join("\n"), &variants);
        catalogue.insert(name, kinds);
    }
    catalogue
}

/// The kinds of the variants that the arms of a match name; `_` stands for all that are not named.
fn kinds_of_arms(arms: &str, variants: &BTreeSet<String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut rest = arms;
    while let Some((patterns, after)) = rest.split_once("=>") {
        // The result ends where the next pattern begins.
        let end =
            ["\n            Self::", "\n            _ "].iter().filter_map(|next| after.find(next)).min();
        let (result, next) = after.split_at(end.unwrap_or(after.len()));
        let kind = match result.split_once("ErrorKind::") {
            Some((before, kind)) if !before.contains("kind()") && !before.contains("downcast_ref") => {
                kind.chars().take_while(|c| c.is_alphanumeric()).collect()
            }
            _ => "of its cause".to_owned(),
        };
        let named: BTreeSet<String> = patterns
            .split("Self::")
            .skip(1)
            .filter_map(|name| name_after(name, ""))
            .map(str::to_owned)
            .collect();
        let is_rest = named.is_empty();
        let named = if is_rest {
            variants.iter().filter(|v| !kinds.contains_key(*v)).cloned().collect()
        } else {
            named
        };
        for variant in named {
            kinds.entry(variant).or_default().insert(kind.clone());
        }
        rest = next;
    }
    kinds
}

/// The cells of a table's row.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix("| ")?.strip_suffix(" |")?;
    Some(row.split(" | ").map(str::trim).collect())
}

/// What the page says of each variant.
fn catalogue_of_page(page: &str) -> Catalogue {
    let mut catalogue = Catalogue::new();
    for section in page.split("\n### `").skip(1) {
        let (name, body) = section.split_once('`').unwrap();
        let mut variants = BTreeMap::new();
        for row in body.lines().filter_map(cells).filter(|row| row[0].starts_with('`')) {
            assert_eq!(row.len(), 4, "{name}: {row:?}");
            assert!(!row[2].is_empty() && !row[3].is_empty(), "{name}: {row:?} says nothing");
            let kinds = row[1].split(" or ").map(|kind| kind.trim_matches('`').to_owned()).collect();
            assert!(
                variants.insert(row[0].trim_matches('`').to_owned(), kinds).is_none(),
                "{name}: {row:?} twice"
            );
        }
        assert!(catalogue.insert(name.to_owned(), variants).is_none(), "{name} twice");
    }
    catalogue
}

/// Catches an error variant, or a change of its kind, that the page does not know.
#[test]
fn catalogue_has_every_variant_and_its_kind() {
    let (source, page) = (catalogue_of_source(), catalogue_of_page(&read("docs/errors.md")));
    for (name, variants) in enums() {
        let in_source: BTreeSet<&String> = source[&name].keys().collect();
        assert_eq!(in_source, variants.iter().collect(), "this test does not understand the kinds of {name}");
    }
    for (name, variants) in &source {
        let on_page = page.get(name).unwrap_or_else(|| panic!("docs/errors.md has no {name}"));
        for (variant, kinds) in variants {
            assert_eq!(on_page.get(variant), Some(kinds), "docs/errors.md, {name}::{variant}");
        }
        let gone: Vec<_> = on_page.keys().filter(|variant| !variants.contains_key(*variant)).collect();
        assert!(gone.is_empty(), "docs/errors.md: {name} has no variants {gone:?}");
    }
    let gone: Vec<_> = page.keys().filter(|name| !source.contains_key(*name)).collect();
    assert!(gone.is_empty(), "docs/errors.md has enums that there are not: {gone:?}");
}

/// Catches a kind that the page does not know, and an exit code that the program has changed.
#[test]
fn catalogue_has_every_kind_and_its_exit_code() {
    let program = read("src/bin/gradix/failure.rs");
    let codes = program.split_once("error.kind() {").unwrap().1;
    let codes = codes.split_once("\n            },").unwrap().0;
    let mut exits = BTreeMap::new();
    for arm in codes.lines().filter_map(|line| line.split_once(" => ")) {
        for kind in arm.0.split(" | ") {
            let kind = kind.trim().trim_start_matches("ErrorKind::");
            exits.insert(kind.to_owned(), arm.1.trim_end_matches(',').to_owned());
        }
    }
    let library = read("src/error.rs");
    let kinds = library.split_once("pub enum ErrorKind {").unwrap().1.split_once("\n}").unwrap().0;
    let kinds = kinds.lines().filter_map(|line| name_after(line, "    "));
    let expected: BTreeMap<String, String> =
        kinds.map(|kind| (kind.to_owned(), exits.get(kind).unwrap_or(&exits["_"]).clone())).collect();

    let page = read("docs/errors.md");
    let table = page.split_once("\n## Kinds").unwrap().1.split_once("\n## ").unwrap().0;
    let rows = table.lines().filter_map(cells).filter(|row| row[0].starts_with('`'));
    let found: BTreeMap<String, String> =
        rows.map(|row| (row[0].trim_matches('`').to_owned(), row[1].to_owned())).collect();
    assert_eq!(found, expected);
}
