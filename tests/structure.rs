//! Which file may know which: the one-way rule of ARCHITECTURE.md, the order of `src/scan`, and no circles.
//!
//! It is read from the source text: `use`, and paths in the code. What a file only re-exports counts for the
//! file that defines it. A file may use what the `mod.rs` above it declares, though that uses it in turn:
//! there stands what the folder shares. Methods that a file adds to another's type are not seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;

/// What each top folder or file of `src` may use, lowest first: only what stands above it in this list.
const MAY_USE: [(&str, &[&str]); 19] = [
    ("bytes", &[]),
    ("lock", &[]),
    ("files", &[]),
    ("codec", &[]),
    ("eval", &["codec"]),
    ("sketch", &["codec"]),
    ("schema", &["codec", "sketch"]),
    ("segment", &["bytes", "lock", "files", "codec", "sketch", "schema"]),
    ("artifact", &["bytes", "segment"]),
    ("curvature", &["codec", "sketch", "artifact"]),
    ("manifest", &["bytes", "lock", "files"]),
    ("scan", &["lock", "codec", "sketch", "schema", "segment", "curvature"]),
    (
        "index",
        &[
            "bytes",
            "lock",
            "files",
            "codec",
            "sketch",
            "schema",
            "segment",
            "artifact",
            "curvature",
            "manifest",
            "scan",
        ],
    ),
    ("operators", &["lock", "codec", "sketch", "segment", "curvature", "scan", "index"]),
    // Files of vectors know no index.
    ("formats", &["files", "codec", "sketch", "segment"]),
    ("report", &["segment", "scan"]),
    // All but the collector use `sketch` alone, see below.
    ("burn", &["lock", "codec", "sketch", "segment", "scan", "index"]),
    // `crate::Error` gathers the errors of all; so nobody below may return it.
    (
        "error",
        &[
            "codec",
            "eval",
            "sketch",
            "segment",
            "artifact",
            "curvature",
            "manifest",
            "scan",
            "index",
            "operators",
            "formats",
            "burn",
        ],
    ),
    // Lets the fuzzer in, and is there for it alone.
    ("fuzzing", &["segment", "manifest", "artifact", "schema", "sketch", "codec", "formats"]),
];

/// Uses within circles that are there and should not be; no others may come.
const CIRCLES: [(&str, &str); 3] = [
    // The encoding of a region is that of the codes or of a tier; the errors of codes name the encoding.
    ("codec::encoding", "codec::tier"),
    // Bytes that are checked become codes, which are found and checked.
    ("segment::checking", "segment::codes"),
    // The error about a spec that does not fit holds both.
    ("sketch::error", "sketch::spec"),
];

/// Names and punctuation of a source file, without comments, literals and what is there for tests only.
fn tokens(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    while at < bytes.len() {
        let rest = &text[at..];
        let raw = rest.strip_prefix('b').unwrap_or(rest);
        let hashes = raw.strip_prefix('r').map_or(0, |raw| raw.len() - raw.trim_start_matches('#').len());
        at += if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").unwrap() + 2
        } else if raw.starts_with('r') && raw[1 + hashes..].starts_with('"') {
            let (open, close) = (rest.find('"').unwrap() + 1, format!("\"{}", "#".repeat(hashes)));
            open + rest[open..].find(&close).unwrap() + close.len()
        } else if rest.starts_with('"') {
            let mut end = 1;
            while bytes[at + end] != b'"' {
                end += if bytes[at + end] == b'\\' { 2 } else { 1 };
            }
            end + 1
        } else if rest.starts_with("'\\") {
            3 + rest[3..].find('\'').unwrap() + 1
        } else if let Some(rest) = rest.strip_prefix('\'') {
            // A character, or a lifetime.
            let len = rest.char_indices().nth(1).map_or(1, |(len, _)| len);
            if rest[len..].starts_with('\'') { len + 2 } else { 1 }
        } else if rest.starts_with("::") {
            found.push("::".to_owned());
            2
        } else if is_name(bytes[at]) {
            let len = rest.bytes().take_while(|&byte| is_name(byte)).count();
            found.push(rest[..len].to_owned());
            len
        } else {
            let len = rest.chars().next().unwrap().len_utf8();
            if !bytes[at].is_ascii_whitespace() {
                found.push(rest[..len].to_owned());
            }
            len
        };
    }
    without_tests(&found)
}

fn without_tests(tokens: &[String]) -> Vec<String> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if !tokens[at..].iter().take(ATTRIBUTE.len()).eq(ATTRIBUTE.iter()) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        // The item ends with its first `;` or `}` that is not within brackets.
        at += ATTRIBUTE.len();
        let mut depth = 0;
        loop {
            let token = tokens[at].as_str();
            depth +=
                i32::from(matches!(token, "(" | "[" | "{")) - i32::from(matches!(token, ")" | "]" | "}"));
            at += 1;
            if depth == 0 && matches!(token, ";" | "}") {
                break;
            }
        }
    }
    kept
}

/// A path that a file names, and the name it has there if a `use` brings it in.
struct Named {
    path: Vec<String>,
    alias: Option<String>,
    is_reexport: bool,
}

/// One file of `src`: what it names, and every name in it outside of `use`.
struct Source {
    named: Vec<Named>,
    words: BTreeSet<String>,
}

fn read_use_tree(
    tokens: &[String],
    at: &mut usize,
    prefix: &[String],
    is_reexport: bool,
    found: &mut Vec<Named>,
) {
    let mut path = prefix.to_vec();
    loop {
        match tokens[*at].as_str() {
            "{" => {
                *at += 1;
                while tokens[*at] != "}" {
                    read_use_tree(tokens, at, &path, is_reexport, found);
                    *at += usize::from(tokens[*at] == ",");
                }
                *at += 1;
                return;
            }
            // First of all it means another crate, else it only parts the names.
            "::" if !path.is_empty() => {}
            name => path.push(name.to_owned()),
        }
        *at += 1;
        if tokens[*at] != "::" && tokens[*at - 1] != "::" {
            break;
        }
    }
    let mut alias = path.last().cloned();
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
        alias = path.last().cloned();
    }
    if tokens[*at] == "as" {
        alias = Some(tokens[*at + 1].clone());
        *at += 2;
    }
    found.push(Named { path, alias, is_reexport });
}

fn read_source(text: &str) -> Source {
    let tokens = tokens(text);
    let (mut named, mut words, mut at) = (Vec::new(), BTreeSet::new(), 0);
    while at < tokens.len() {
        let before = |back: usize| at.checked_sub(back).map_or("", |before| tokens[before].as_str());
        let is_name = |token: &str| token.starts_with(|first: char| first.is_alphabetic() || first == '_');
        if tokens[at] == "use" && tokens[at + 1] != "<" {
            let is_reexport = matches!(before(1), "pub" | ")");
            at += 1;
            read_use_tree(&tokens, &mut at, &[], is_reexport, &mut named);
        } else if is_name(&tokens[at]) && before(1) != "::" {
            let is_visibility = before(1) == "in" && before(2) == "(";
            let mut path = vec![tokens[at].clone()];
            words.insert(tokens[at].clone());
            while tokens.get(at + 1).is_some_and(|next| next == "::") && is_name(&tokens[at + 2]) {
                path.push(tokens[at + 2].clone());
                at += 2;
            }
            if path.len() > 1 && !is_visibility {
                named.push(Named { path, alias: None, is_reexport: false });
            }
        }
        at += 1;
    }
    Source { named, words }
}

/// The files of `src` by module path: `scan::plan` is `src/scan/plan/mod.rs`, the empty one `src/lib.rs`.
struct Crate(BTreeMap<String, Source>);

impl Crate {
    fn read() -> Self {
        let mut files = BTreeMap::new();
        Self::read_folder(&root().join("src"), "", &mut files);
        Self(files)
    }

    fn read_folder(folder: &Path, module: &str, files: &mut BTreeMap<String, Source>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let module = match stem {
                // `bin` is another crate, which sees only what is public.
                "tests" | "bin" => continue,
                "mod" | "lib" => module.to_owned(),
                _ if module.is_empty() => stem.to_owned(),
                _ => format!("{module}::{stem}"),
            };
            if path.is_dir() {
                Self::read_folder(&path, &module, files);
            } else {
                files.insert(module, read_source(&fs::read_to_string(&path).unwrap()));
            }
        }
    }

    /// The file that defines what `path` names in `module`, through re-exports; none if it is not ours.
    fn resolve(&self, module: &str, path: &[String]) -> Option<String> {
        let mut at = match path[0].as_str() {
            "crate" => String::new(),
            "self" => module.to_owned(),
            "super" => parent(module).to_owned(),
            name => Some(child(module, name)).filter(|child| self.0.contains_key(child))?,
        };
        for name in &path[1..] {
            let below = child(&at, name);
            if name == "super" {
                at = parent(&at).to_owned();
            } else if self.0.contains_key(&below) {
                at = below;
            } else {
                let here = self.0[&at].named.iter().find(|named| named.alias.as_ref() == Some(name));
                return here.map_or(Some(at.clone()), |here| self.resolve(&at, &here.path));
            }
        }
        Some(at)
    }

    /// Which file uses which, without `lib.rs`.
    fn uses(&self) -> BTreeMap<&str, BTreeSet<String>> {
        let mut uses = BTreeMap::new();
        for (module, source) in self.0.iter().filter(|(module, _)| !module.is_empty()) {
            let is_used = |named: &&Named| {
                !named.is_reexport || named.alias.as_ref().is_some_and(|alias| source.words.contains(alias))
            };
            let mut used: BTreeSet<_> = source
                .named
                .iter()
                .filter(is_used)
                .filter_map(|named| self.resolve(module, &named.path))
                .collect();
            used.remove(module);
            used.remove("");
            uses.insert(module.as_str(), used);
        }
        uses
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn parent(module: &str) -> &str {
    module.rsplit_once("::").map_or("", |(parent, _)| parent)
}

fn child(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// Where a module stands, for a message.
fn file(module: &str) -> String {
    let path = format!("src/{}", module.replace("::", "/"));
    if root().join(&path).is_dir() && !root().join(format!("{path}.rs")).exists() {
        return format!("{path}/mod.rs");
    }
    format!("{path}.rs")
}

/// The files and folders of `src/scan` in the order of the numbered list in its `mod.rs`.
fn scan_order(children: &BTreeSet<&str>) -> Vec<String> {
    let text = fs::read_to_string(root().join("src/scan/mod.rs")).unwrap();
    let start = text.find("\n// 1. ").expect("a comment in src/scan/mod.rs is a numbered list");
    let list = text[start..].split("\n//\n").next().unwrap();
    let mut order = Vec::new();
    for word in list.split('`').skip(1).step_by(2).filter(|word| children.contains(word)) {
        assert!(!order.contains(&word.to_owned()), "the list in src/scan/mod.rs names `{word}` twice");
        order.push(word.to_owned());
    }
    order
}

/// A way from `from` to `to` along `uses`, both named.
fn way(uses: &BTreeMap<&str, BTreeSet<String>>, from: &str, to: &str) -> Option<Vec<String>> {
    let mut before = BTreeMap::from([(from.to_owned(), String::new())]);
    let mut next = VecDeque::from([from.to_owned()]);
    while let Some(at) = next.pop_front() {
        if at == to {
            let mut way = vec![at];
            while !before[way.last().unwrap()].is_empty() {
                way.push(before[way.last().unwrap()].clone());
            }
            way.reverse();
            return Some(way);
        }
        for used in &uses[at.as_str()] {
            if !before.contains_key(used) {
                before.insert(used.clone(), at.clone());
                next.push_back(used.clone());
            }
        }
    }
    None
}

/// Catches a reader of sources that sees too little: what is not seen is not refused.
#[test]
fn sources_are_read_as_rust_reads_them() {
    let text = r##"
        //! use crate::comment::Line; it's
        /* use crate::comment::Block; */
        use ::burn::Tensor;
        use super::{self, index::{Snapshot as Shot, error}, lock};
        pub(crate) use plan::Plan;
        pub(in crate::scan) fn f<'a>(x: &'a [u8]) -> impl Fn() + use<'a> { crate::codec::norm(b"crate::x", '"') }
        const RAW: &str = r#"crate::raw "quoted" "#;
        #[cfg(test)]
        fn g(x: [u8; 4]) { crate::test::only(); }
        #[cfg(test)]
        mod tests { use crate::test::Only; }
        fn h() { for i in super::all() { println!("\"{i}"); Vec::<u8>::new(); } }
    "##;
    let source = read_source(text);
    let named: Vec<_> = source.named.iter().map(|named| named.path.join(" ")).collect();
    assert_eq!(
        named,
        [
            ":: burn Tensor",
            "super",
            "super index Snapshot",
            "super index error",
            "super lock",
            "plan Plan",
            "crate codec norm",
            "super all",
        ]
    );
    assert_eq!(source.named[2].alias.as_deref(), Some("Shot"));
    assert!(source.named[5].is_reexport && !source.named[4].is_reexport);
}

/// Catches a folder that begins to use one that it has no business with.
#[test]
fn folders_use_only_what_stands_below_them() {
    for (at, (folder, allowed)) in MAY_USE.iter().enumerate() {
        for name in *allowed {
            let is_below = MAY_USE[..at].iter().any(|(below, _)| below == name);
            assert!(is_below, "MAY_USE lets {folder} use {name}, which does not stand before it");
        }
    }
    let files = Crate::read();
    let mut wrong = Vec::new();
    for (module, used) in files.uses() {
        let top = module.split("::").next().unwrap();
        let Some((_, allowed)) = MAY_USE.iter().find(|(folder, _)| *folder == top) else {
            wrong.push(format!(
                "{} is new: give {top} its place in MAY_USE and in ARCHITECTURE.md",
                file(module)
            ));
            continue;
        };
        for used in used {
            let other = used.split("::").next().unwrap();
            if other != top && !allowed.contains(&other) {
                wrong.push(format!("{} uses {}, but {top} may not use {other}", file(module), file(&used)));
            }
            let is_adapter = top == "burn" && !module.starts_with("burn::collect");
            if is_adapter && !["burn", "sketch"].contains(&other) {
                wrong.push(format!("{} uses {}, which only burn::collect may", file(module), file(&used)));
            }
            if module.starts_with("scan::kernel") && other != "scan" && used != "codec::lanes" {
                wrong.push(format!("{} uses {}, but kernels compile without it", file(module), file(&used)));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nMove what is needed down to a folder that both may use, or hand it in as an argument. If the rule \
         itself is to change, change MAY_USE here and the table in ARCHITECTURE.md.",
        wrong.join("\n")
    );
}

/// Catches a file of `src/scan` that begins to use one further on in the list in its `mod.rs`,
/// and a list that has forgotten a file.
#[test]
fn scan_files_use_only_those_before_them() {
    let files = Crate::read();
    let uses = files.uses();
    let place = |module: &str| module.strip_prefix("scan::")?.split("::").next().map(str::to_owned);
    let children: BTreeSet<_> =
        uses.keys().filter_map(|m| m.strip_prefix("scan::")?.split("::").next()).collect();
    let order = scan_order(&children);
    for child in &children {
        assert!(
            order.iter().any(|name| name == child),
            "give `{child}` its place in the list in src/scan/mod.rs"
        );
    }
    let mut wrong = Vec::new();
    let rank = |child: &str| order.iter().position(|name| name == child);
    for (module, used) in &uses {
        let Some(child) = place(module) else { continue };
        for used in used {
            let Some(other) = place(used) else { continue };
            if other != child && rank(&other) >= rank(&child) {
                wrong.push(format!(
                    "{} uses {}, but the list has `{other}` after `{child}`",
                    file(module),
                    file(used)
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nThe list is the one in src/scan/mod.rs. Move what both need into a file before them; or, \
         if the list is wrong, the name in it.",
        wrong.join("\n")
    );
}

/// Catches files that each use the other, directly or through others: neither can be read, tested or moved
/// alone any more.
#[test]
fn no_files_use_each_other() {
    let files = Crate::read();
    let mut uses = files.uses();
    for (module, used) in &mut uses {
        used.retain(|used| !module.starts_with(&format!("{used}::")));
    }
    for (from, to) in CIRCLES {
        assert!(
            uses.get(from).is_some_and(|used| used.contains(to)) && way(&uses, to, from).is_some(),
            "{from} -> {to} is in no circle any more: take it out of CIRCLES"
        );
    }
    for (from, to) in CIRCLES {
        uses.get_mut(from).unwrap().remove(to);
    }
    let mut circles: Vec<Vec<_>> = Vec::new();
    for (module, used) in &uses {
        let back = used.iter().filter_map(|used| way(&uses, used, module)).min_by_key(Vec::len);
        circles.extend(
            back.map(|back| [*module].into_iter().chain(back.iter().map(String::as_str)).map(file).collect()),
        );
    }
    // The shortest alone: where one use is wrong, many circles go through it.
    let circle = circles.into_iter().min_by_key(Vec::len).unwrap_or_default();
    assert!(
        circle.is_empty(),
        "{}\nMove what the files of this circle share into a file that all of them may use (or into the folder's \
         mod.rs, if it is what the whole folder is about).",
        circle.join(" -> ")
    );
}
