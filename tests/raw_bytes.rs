//! Who turns numbers into bytes, and bytes into numbers: the modules that define what a file holds, and
//! no others.

use std::fs;
use std::path::{Path, PathBuf};

/// What gives raw bytes away.
const SIGNS: [&str; 6] = ["_le_bytes", "_be_bytes", "_ne_bytes", "crate::bytes", "bincode::", "crc32fast::"];

/// The files (and folders) that may, and what their bytes are.
const ALLOWED: [(&str, &str); 31] = [
    ("src/bytes.rs", "little-endian numbers, for the others"),
    ("src/segment/layout.rs", "header, footer, tail and chunk checksums of segments"),
    ("src/segment/columns.rs", "the columns of segments beside the codes"),
    ("src/segment/checking.rs", "the checksum of a chunk, while it is made"),
    ("src/artifact/layout.rs", "header, table, tail, numbers and chunk checksums of artifacts"),
    ("src/index/index_file.rs", "INDEX"),
    ("src/index/committed.rs", "COMMITTED"),
    ("src/index/part.rs", "PART"),
    ("src/index/attachment.rs", "the note beside an attached segment"),
    ("src/manifest/guard.rs", "the records of RocksDB's logs"),
    ("src/manifest/records.rs", "the manifest's keys and values"),
    ("src/manifest/store.rs", "the manifest's keys"),
    ("src/codec/code.rs", "codes"),
    ("src/codec/check.rs", "codes"),
    ("src/codec/tier.rs", "codes"),
    ("src/codec/rotation.rs", "what is hashed for the keys of a rotation"),
    ("src/sketch/fold/tiling.rs", "what is hashed for the keys of a fold"),
    ("src/sketch/kronecker/keys.rs", "what is hashed for the keys of projections"),
    ("src/burn/optimizer.rs", "what is hashed for the digest of an optimizer's state"),
    ("src/formats/pickle/mod.rs", "the numbers of a pickle"),
    ("src/formats/stores/numbers.rs", "the checksums of torch's numbers"),
    ("src/formats/stores/torch.rs", "the checksums of torch's other members"),
    ("src/operators/bootstrap.rs", "what is hashed for the replicates of a bootstrap"),
    ("src/formats/numbers.rs", "numbers of the files of other programs"),
    ("src/formats/npz.rs", "the checksums of the members of archives"),
    ("src/formats/labels.rs", "texts and integers of numpy"),
    ("src/bin/gradix/inputs.rs", "values of which a digest is taken"),
    ("src/bin/gradix/npy.rs", "an array of numpy whose length is known at its end"),
    ("src/scan/kernel/scalar.rs", "codes"),
    ("src/scan/kernel/packed.rs", "packed queries"),
    ("src/scan/kernel/x86_64/avx512vnni.rs", "codes"),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Catches a module that begins to read or write a file's bytes by itself, and a name in the list that is
/// no longer needed.
#[test]
fn only_named_modules_touch_raw_bytes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut touching = Vec::new();
    for path in files {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        if name.contains("tests") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let mut lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        if lines.any(|line| SIGNS.iter().any(|sign| line.contains(sign))) {
            touching.push(name);
        }
    }
    touching.sort();
    let mut allowed = ALLOWED.map(|(name, _)| name);
    allowed.sort_unstable();
    assert_eq!(touching, allowed);
}
