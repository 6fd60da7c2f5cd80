//! RapidIn's folders.

use std::fs;
use std::path::Path;

use gradix::formats::Number;
use gradix::formats::stores::{Store, StoreIds, StoreOptions, open_store};

use super::{Ends, Rows, assert_ranks_like, copy, cut_off, described, fixture, json, queries, read, refused};

fn of(dims: u32) -> StoreOptions {
    StoreOptions::default().part(format!("K{dims}"))
}

fn open(options: &StoreOptions) -> Rows {
    read(Store::RapidIn, &fixture("rapidin"), options).unwrap()
}

/// Catches files in another order than their numbers', and numbers that are not the examples'.
#[test]
fn rapidin_ranks_the_same() {
    let rows = open(&of(32));
    let expected: Ends = json("rapidin-expected.json");
    assert_ranks_like(&rows, &queries("rapidin-query.npy", &rows.spec), &expected);
    assert_eq!(described(&rows.spec), ("rapidin", "K32 RapidGrad_D1024_n40.obj"));
    assert_eq!(rows.ids()[3..6], ["3", "5", "8"]);
    let source = open_store(Store::RapidIn, fixture("rapidin"), &of(32)).unwrap();
    assert_eq!((source.number(), source.rows()), (Number::F16, Some(14)));
}

/// Catches vectors of one length that are mixed with those of another.
#[test]
fn rapidin_parts() {
    let rows = open(&of(16));
    assert_eq!(rows.spec.dims(), 16);
    let halves = open(&of(32));
    for row in 0..rows.batch.rows {
        let whole = halves.values(row);
        for (at, value) in rows.values(row).iter().enumerate() {
            assert!((whole[2 * at] + whole[2 * at + 1] - value).abs() < 4e-3);
        }
    }
    let told = refused(Store::RapidIn, &fixture("rapidin"), &StoreOptions::default());
    assert!(told.contains("K16, K32"), "{told}");
    let told = refused(Store::RapidIn, &fixture("rapidin"), &of(64));
    assert!(told.contains("no \"K64\"; there are K16, K32"), "{told}");
    let nothing = tempfile::tempdir().unwrap();
    assert!(refused(Store::RapidIn, nothing.path(), &of(16)).contains("no train_grad_*.pt"));
}

/// Catches gradients that are not folded and are passed over, or whose dimensions are lost, and other files that are
/// taken for gradients.
#[test]
fn rapidin_gradients_that_are_not_folded() {
    let folder = tempfile::tempdir().unwrap();
    let file = fixture("torch-2.15/three-dimensions.pt");
    for name in
        ["train_grad_00000002.pt", "train_grad_100000000.pt", "train_grad_7.pt", "train_grad_x_00000001.pt"]
    {
        fs::copy(&file, folder.path().join(name)).unwrap();
    }
    let rows = read(Store::RapidIn, folder.path(), &StoreOptions::default()).unwrap();
    assert_eq!((rows.ids(), rows.spec.dims()), (vec!["2".to_owned(), "100000000".to_owned()], 24));
    assert_eq!(described(&rows.spec).1, "full");
    assert_eq!(rows.values(0)[..8], [0.0, 1.0, 2.0, 3.0, 12.0, 13.0, 14.0, 15.0]);
}

/// Catches lines that are counted by files instead of by the numbers in their names.
#[test]
fn rapidin_ids_of_a_file_are_by_number() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("ids");
    let lines: Vec<_> = (0..20).map(|line| format!("line-{line}\n")).collect();
    fs::write(&list, lines.concat()).unwrap();
    let options = of(16).ids(StoreIds::File(list.clone()));
    assert_eq!(open(&options).ids()[3..6], ["line-3", "line-5", "line-8"]);
    fs::write(&list, lines[..19].concat()).unwrap();
    let told = refused(Store::RapidIn, &fixture("rapidin"), &options);
    assert!(told.contains("there are 19 ids, and more examples"), "{told}");
}

/// Catches damage that becomes rows, or an error that does not name the file.
#[test]
fn rapidin_damaged_files_are_refused() {
    type Damage = fn(&Path);
    let cases: [(Damage, &str); 5] = [
        (|file| cut_off(file, 1), "no file of torch.save, or one that is cut off"),
        (|file| fs::write(file, "").unwrap(), "no file of torch.save, or one that is cut off"),
        (
            |file| fs::write(file, fs::read(fixture("torch-2.15/f32.pt")).unwrap()).unwrap(),
            "f32 of shape [3, 4], where the first file has 32 of f16",
        ),
        (
            |file| fs::write(file, fs::read(fixture("torch-2.15/f16.pt")).unwrap()).unwrap(),
            "f16 of shape [3, 4]",
        ),
        (
            |file| {
                let mut bytes = fs::read(file).unwrap();
                let name = b"train_grad_K32_00000009/data/0";
                let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + 128;
                bytes[at] ^= 1;
                fs::write(file, bytes).unwrap();
            },
            "the numbers have another checksum",
        ),
    ];
    for (damage, reason) in cases {
        let (_folder, path) = copy("rapidin");
        damage(&path.join("train_grad_K32_00000009.pt"));
        let told = refused(Store::RapidIn, &path, &of(32));
        assert!(told.contains(reason) && told.contains("00000009.pt"), "{told}, where {reason} is expected");
    }
}
