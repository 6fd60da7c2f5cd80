//! LESS's tensors.

use std::fs;

use gradix::formats::stores::{Store, StoreIds, StoreOptions};

use super::{
    Ends, assert_ranks_like, copy, cut_off, described, fixture, json, length, queries, read, refused,
};

fn part(name: &str) -> StoreOptions {
    StoreOptions::default().part(name)
}

/// Catches rows in another place, and rows that are not those LESS ranks.
#[test]
fn less_ranks_the_same() {
    let rows = read(Store::Less, &fixture("less/dim24"), &StoreOptions::default()).unwrap();
    let expected: Ends = json("less-expected.json");
    assert_ranks_like(&rows, &queries("less-query.npy", &rows.spec), &expected);
    assert_eq!(described(&rows.spec), ("less", "rows of unit length"));
    assert_eq!(rows.ids()[..2], ["0", "1"]);
}

/// Catches rows of unit length that pass for raw ones, and folders of several dims of which one is taken unasked.
#[test]
fn less_parts() {
    let raw = read(Store::Less, &fixture("less"), &part("dim24/all_unormalized")).unwrap();
    assert_eq!(described(&raw.spec).1, "rows as projected");
    assert_eq!((raw.batch.rows, raw.spec.dims()), (20, 24));
    for path in ["less/dim24", "less/dim24/all_unormalized.pt"] {
        let options = if path.ends_with("pt") { StoreOptions::default() } else { part("all_unormalized") };
        assert_eq!(read(Store::Less, &fixture(path), &options).unwrap().batch, raw.batch);
    }
    let unit = read(Store::Less, &fixture("less"), &part("dim24")).unwrap();
    for row in 0..20 {
        assert!((length(unit.values(row)) - 1.0).abs() < 2e-3);
        let scale = length(raw.values(row)) as f32;
        assert!(
            unit.values(row).iter().zip(raw.values(row)).all(|(unit, raw)| (unit * scale - raw).abs() < 5e-3)
        );
    }
    let pieces = read(Store::Less, &fixture("less/dim8/grads-16.pt"), &StoreOptions::default()).unwrap();
    assert_eq!((pieces.batch.rows, described(&pieces.spec).1), (16, "rows of unknown treatment"));

    let told = refused(Store::Less, &fixture("less"), &StoreOptions::default());
    assert!(told.contains("dim24/all_orig, dim24/all_unormalized, dim8/all_orig"), "{told}");
    let told = refused(Store::Less, &fixture("less"), &part("dim16"));
    assert!(told.contains("no \"dim16\"; there are dim24/all_orig"), "{told}");
    let told = refused(Store::Less, &fixture("less"), &part("all_orig"));
    assert!(told.contains("one has to be chosen: dim24/all_orig, dim8/all_orig"), "{told}");
    let (_folder, path) = copy("less/dim8");
    for name in ["all_orig.pt", "all_unormalized.pt"] {
        fs::remove_file(path.join(name)).unwrap();
    }
    assert!(refused(Store::Less, &path, &StoreOptions::default()).contains("no all_orig.pt"));
}

/// Catches a list of ids of another data set, and numbers that are cut off or changed.
#[test]
fn less_ids_and_damage() {
    let (_folder, path) = copy("less/dim24");
    let list = path.join("ids");
    fs::write(&list, "x\n".repeat(19)).unwrap();
    let told = refused(Store::Less, &path, &StoreOptions::default().ids(StoreIds::File(list)));
    assert!(told.contains("there are 19 ids, and more examples"), "{told}");
    let file = path.join("all_orig.pt");
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(17).position(|window| window == b"all_orig/data/0FB").unwrap_or(0).max(1000);
    bytes[at] ^= 0x40;
    fs::write(&file, bytes).unwrap();
    let told = refused(Store::Less, &path, &StoreOptions::default());
    assert!(told.contains("the numbers have another checksum"), "{told}");
    cut_off(&file, 200);
    assert!(refused(Store::Less, &path, &StoreOptions::default()).contains("cut off"));
}
