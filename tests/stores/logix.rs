//! LogIX's logs.

use std::fs;
use std::path::Path;

use gradix::formats::stores::{Store, StoreIds, StoreOptions, open_store};
use gradix::formats::{Batch, Number};

use super::{
    Ends, Rows, assert_ranks_like, copy, cut_off, described, fixture, json, queries, read, refused, replace,
};

const LIST: &str = "log_rank_0_chunk_1_metadata.json";
const NUMBERS: &str = "log_rank_0_chunk_1.mmap";

fn open(path: &Path) -> Rows {
    read(Store::Logix, path, &StoreOptions::default()).unwrap()
}

/// Catches modules in another order than LogIX means, chunks or examples in another place, and another id.
#[test]
fn logix_ranks_the_same() {
    let rows = open(&fixture("logix"));
    let expected: Ends = json("logix-expected.json");
    assert_ranks_like(&rows, &queries("logix-query.npy", &rows.spec), &expected);
}

/// Catches names that are not the modules', and a projection that is left out of the spec.
#[test]
fn logix_blocks_and_projection() {
    let rows = open(&fixture("logix"));
    let ids: Vec<_> = (0..24).map(|example| format!("train-{example}")).collect();
    assert_eq!(rows.ids(), ids);
    let names: Vec<_> = rows.spec.blocks().iter().map(|block| (block.name.as_str(), block.dims)).collect();
    assert_eq!(names[0], ("model.layers.0.self_attn.q_proj.logix_lora_B", 4));
    assert_eq!(names.len(), 7);
    let (name, digest) = described(&rows.spec);
    assert_eq!(name, "logix");
    assert!(digest.starts_with("lora_state_dict.pt=") && digest.len() == 19 + 64, "{digest}");
    let (_folder, path) = copy("logix");
    fs::remove_dir_all(path.join("lora")).unwrap();
    assert_eq!(described(&open(&path).spec), ("logix", "not projected"));
    let source = open_store(Store::Logix, path, &StoreOptions::default()).unwrap();
    assert_eq!((source.number(), source.rows()), (Number::F32, None));
}

/// Chunks by rank and number, each of one example whose number is its place.
fn write_chunks(folder: &Path, chunks: &[(u64, u64)]) {
    for (place, (rank, chunk)) in chunks.iter().enumerate() {
        let list = serde_json::json!([{
            "data_id": place, "path": [["a"]], "offset": 4, "shape": [[1]], "block_size": 1, "dtype": "float32",
        }]);
        let path = folder.join(format!("log_rank_{rank}_chunk_{chunk}"));
        fs::write(path.with_extension("mmap"), [[0; 4], (place as f32).to_le_bytes()].concat()).unwrap();
        fs::write(format!("{}_metadata.json", path.display()), list.to_string()).unwrap();
    }
}

/// Catches a log of some of its ranks that is taken for a whole one.
#[test]
fn logix_ranks_that_are_missing_are_an_error() {
    for (chunks, missing) in [
        (&[(1, 0), (2, 0)][..], "rank 0 is missing"),
        (&[(0, 0), (2, 0)], "rank 1 is missing"),
        (&[(0, 1), (1, 0)], "chunk 0 of rank 0 is missing"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_chunks(folder.path(), chunks);
        let told = refused(Store::Logix, folder.path(), &StoreOptions::default());
        assert!(told.contains(missing), "{told}");
    }
}

/// Catches chunks that are taken in the order of their names, which puts 10 before 2, and ranks that are mixed.
#[test]
fn logix_chunks_are_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let chunks: Vec<_> = (0..12).map(|chunk| (0, chunk)).chain([(1, 0)]).collect();
    write_chunks(folder.path(), &chunks);
    let rows = open(folder.path());
    assert_eq!(rows.batch.values, (0..13u8).map(f32::from).collect::<Vec<_>>());
    assert_eq!(rows.ids(), (0..13).map(|place| place.to_string()).collect::<Vec<_>>());
    let options = StoreOptions::default().ids(StoreIds::Pattern("run-{id}".into()));
    assert_eq!(read(Store::Logix, folder.path(), &options).unwrap().ids()[12], "run-12");

    fs::remove_file(folder.path().join("log_rank_0_chunk_7.mmap")).unwrap();
    assert!(refused(Store::Logix, folder.path(), &options).contains("cannot open"));
    fs::remove_file(folder.path().join("log_rank_0_chunk_7_metadata.json")).unwrap();
    let told = refused(Store::Logix, folder.path(), &options);
    assert!(told.contains("chunk 7 of rank 0 is missing"), "{told}");
}

/// Catches a log whose later chunk is damaged and whose first rows are lost with it.
#[test]
fn logix_rows_before_the_damage_are_read() {
    let (_folder, path) = copy("logix");
    cut_off(&path.join(NUMBERS), 1);
    let mut source = open_store(Store::Logix, path, &StoreOptions::default()).unwrap();
    let mut batch = Batch::default();
    source.read(8, &mut batch).unwrap();
    assert_eq!(batch.rows, 8);
}

/// Catches damage that becomes rows, or an error that does not say where and what.
#[test]
fn logix_damaged_logs_are_refused() {
    type Damage = fn(&Path);
    let cases: [(Damage, &str); 10] = [
        (
            |path| cut_off(&path.join(NUMBERS), 1),
            "the file ends before the numbers of example \"train-15\", at byte 895",
        ),
        (|path| cut_off(&path.join(LIST), 1), "the list of examples is cut off"),
        (|path| cut_off(&path.join(LIST), 100), "no JSON as expected: EOF"),
        (|path| fs::remove_file(path.join(LIST)).unwrap(), "cannot open"),
        (|path| fs::write(path.join(LIST), "{}").unwrap(), "no list of examples in JSON, at byte 0"),
        (|path| fs::write(path.join(LIST), "[1]").unwrap(), "no JSON as expected"),
        (|path| replace(&path.join(LIST), "float32", "float16"), "has other modules, shapes or types"),
        (|path| replace(&path.join(LIST), "q_proj", "x_proj"), "has other modules, shapes or types"),
        (
            |path| replace(&path.join(LIST), "\"block_size\": 28", "\"block_size\": 29"),
            "has 29 numbers, its shapes 28",
        ),
        (
            |path| {
                let mut bytes = fs::read(path.join(NUMBERS)).unwrap();
                bytes[4..8].copy_from_slice(&f32::INFINITY.to_le_bytes());
                fs::write(path.join(NUMBERS), bytes).unwrap();
            },
            "row 8, block \"model.layers.0.self_attn.q_proj.logix_lora_B\": value 1 is inf",
        ),
    ];
    for (damage, reason) in cases {
        let (_folder, path) = copy("logix");
        damage(&path);
        let told = refused(Store::Logix, &path, &StoreOptions::default());
        assert!(told.contains(reason), "{told}, where {reason} is expected");
    }
    let (_folder, path) = copy("logix");
    replace(&path.join("log_rank_0_chunk_0_metadata.json"), "float32", "int8");
    assert!(refused(Store::Logix, &path, &StoreOptions::default()).contains("numbers of type \"int8\""));
    fs::write(path.join("log_rank_0_chunk_0_metadata.json"), "[ ]").unwrap();
    assert!(refused(Store::Logix, &path, &StoreOptions::default()).contains("a list without examples"));
    let nothing = tempfile::tempdir().unwrap();
    assert!(refused(Store::Logix, nothing.path(), &StoreOptions::default()).contains("no LogIX log"));
    let told = refused(Store::Logix, &fixture("logix"), &StoreOptions::default().part("rank_0"));
    assert!(told.contains("has no parts"), "{told}");
    let columns = StoreOptions::default().ids(StoreIds::Column("text".into()));
    assert!(refused(Store::Logix, &fixture("logix"), &columns).contains("no dataset with columns"));
}
