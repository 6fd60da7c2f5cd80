//! Crafted segments whose checksums are right: the contents alone must give them away.

use super::allocator::peak_of;
use super::alone;
use super::bench::{Bench, ROWS};
use super::craft::{
    CODES, Craft, ENTRY, FACTORS, IDS, METADATA, NAMES, NORMS, Part, SCALES, SOURCES, SPANS, byte_strings,
    put, with_footer,
};

/// Whatever the file says, reading it may take this much memory.
fn limit(file: usize) -> usize {
    (64 << 20) + 600 * file
}

fn assert_refused(bench: &Bench, bytes: &[u8], what: &str, expected: &str) {
    let length = bytes.len();
    let peak = peak_of(|| bench.assert_refused(bytes, what, expected));
    assert!(peak < limit(length), "{what}: {peak} bytes allocated for a file of {length}");
}

/// Catches a re-checksummer that is wrong, which would make all tests of this file pass.
#[test]
fn craft_puts_a_segment_together_again() {
    let _alone = alone();
    let bench = Bench::new();
    assert_eq!(Craft::new(bench.sound()).build(), bench.sound());
    assert_eq!(with_footer(bench.sound(), |_| ()), bench.sound());
}

/// Catches counts and lengths of the footer that are believed: overflow, a huge allocation, a slice
/// out of bounds.
#[test]
fn crafted_footer_is_refused() {
    let _alone = alone();
    let bench = Bench::new();
    let max = u32::MAX.to_le_bytes();
    let fixed: [(usize, Vec<u8>); 14] = [
        (0, u64::MAX.to_le_bytes().into()),
        (0, 0u64.to_le_bytes().into()),
        (0, (ROWS as u64 + 1).to_le_bytes().into()),
        (8, max.into()),
        (8, 0u32.to_le_bytes().into()),
        (8, 2u32.to_le_bytes().into()),
        (12, max.into()),
        (12, 0u32.to_le_bytes().into()),
        (16, max.into()),
        (16, 0u32.to_le_bytes().into()),
        (16, 9u32.to_le_bytes().into()),
        (20, 4096u32.to_le_bytes().into()),
        (24, vec![1]),
        (36, vec![1]),
    ];
    for (at, field) in fixed {
        let bytes = with_footer(bench.sound(), |footer| put(footer, at, &field));
        assert_refused(&bench, &bytes, &format!("{field:?} at {at}"), "damaged footer");
    }
    for rows in [0, u32::MAX] {
        let bytes = with_footer(bench.sound(), |footer| put(footer, 32, &rows.to_le_bytes()));
        assert_refused(&bench, &bytes, &format!("{rows} rows in the group"), "damaged footer");
    }
    // More and fewer bytes than the tables take.
    for length in [0, 1, 31, 32, 40, 100, 700] {
        let bytes = with_footer(bench.sound(), |footer| footer.truncate(length));
        assert_refused(&bench, &bytes, &format!("a footer of {length}"), "damaged footer");
    }
    let bytes = with_footer(bench.sound(), |footer| footer.extend([0; 4]));
    assert_refused(&bench, &bytes, "a checksum more", "damaged footer");
}

/// Catches overlapping regions, gaps, impossible lengths and unknown kinds in the region table.
#[test]
fn crafted_region_table_is_refused() {
    let _alone = alone();
    let bench = Bench::new();
    let huge = [1u64 << 62, u64::MAX, 1 << 54, u64::MAX - 4095, i64::MAX as u64];
    let count = Craft::new(bench.sound()).parts.len();
    for region in 0..count {
        let entry = 40 + region * ENTRY;
        let mut edits: Vec<(usize, Vec<u8>)> = Vec::new();
        for length in huge {
            // offset, stored, used, raw
            edits.extend([24, 32, 40, 48].map(|at| (at, length.to_le_bytes().to_vec())));
        }
        let offset = {
            let footer = &bench.sound()[super::footer_start(bench.sound())..];
            super::u64_at(footer, entry + 24)
        };
        for offset in [0, offset - 4096, offset + 4096, offset + 1, offset - 1] {
            edits.push((24, offset.to_le_bytes().into()));
        }
        for length in [0u64, 4096 * 2, 4097] {
            edits.push((32, length.to_le_bytes().into()));
        }
        for kind in [0u16, 9, 0x7FFF] {
            edits.push((0, kind.to_le_bytes().into()));
        }
        edits.extend([(2, vec![1]), (4, vec![7]), (8, vec![7]), (12, vec![9]), (14, vec![9])]);
        edits.extend([(16, vec![2]), (18, vec![1]), (20, vec![0xFF; 4]), (56, vec![1])]);
        for (at, field) in edits {
            let bytes = with_footer(bench.sound(), |footer| put(footer, entry + at, &field));
            if bytes == bench.sound() {
                continue;
            }
            assert_refused(&bench, &bytes, &format!("region {region}: {field:?} at {at}"), "damaged footer");
        }
    }
    // Regions in another order, twice, and missing.
    for region in 0..count {
        let mut craft = Craft::new(bench.sound());
        craft.parts.swap(region, (region + 1) % count);
        assert_refused(&bench, &craft.build(), &format!("{region} swapped"), "damaged footer");
        let mut craft = Craft::new(bench.sound());
        let twice = craft.parts[region].clone();
        craft.parts.insert(region, twice);
        assert_refused(&bench, &craft.build(), &format!("{region} twice"), "damaged footer");
        let mut craft = Craft::new(bench.sound());
        craft.parts.remove(region);
        assert_refused(&bench, &craft.build(), &format!("{region} missing"), "damaged footer");
    }
    let mut craft = Craft::new(bench.sound());
    craft.parts.clear();
    assert_refused(&bench, &craft.build(), "no region at all", "damaged");
}

/// Catches a reader that trips over a region of a later version which it may ignore, or that looks
/// for its columns at fixed ordinals.
#[test]
fn informative_region_is_ignored() {
    let _alone = alone();
    let bench = Bench::new();
    let count = Craft::new(bench.sound()).parts.len();
    for place in 0..=count {
        let mut craft = Craft::new(bench.sound());
        let mut entry = [0; ENTRY];
        // Kind, tier, block, group, encoding, compression, stride and raw length are whatever a later version
        // makes of them.
        put(&mut entry, 0, &[7, 0x80, 5, 0, 1, 0, 0, 0, 9, 0, 0, 0, 77, 0, 77, 0, 99, 0]);
        put(&mut entry, 20, &[0xFF; 4]);
        let used = vec![3; 5000];
        craft.parts.insert(place, Part { entry, raw_len: u64::MAX, used, padding: 0 });
        bench.set(0, &craft.build());
        // The manifest knows another length and digest; nothing else may be seen.
        let seen = bench.see();
        assert!(!seen.findings.is_empty(), "{place}: another file than was committed");
        for error in seen.all().lines() {
            assert!(error.contains("where the manifest has") || error.contains("digest"), "{place}: {error}");
        }
        let mut bytes = craft.build();
        let at = super::regions(&bytes)[place].0;
        bytes[at] ^= 1;
        bench.assert_refused(&bytes, "damage in it", "informative region");
    }
}

type Edit = fn(&mut Craft);

fn edit_raw(craft: &mut Craft, kind: u16, edit: impl FnOnce(&mut Vec<u8>)) {
    let part = craft.part(kind);
    let mut raw = part.raw();
    edit(&mut raw);
    part.set_raw(raw);
}

/// Catches byte strings whose offsets lead astray, and columns that are believed unseen.
#[test]
fn crafted_columns_are_refused() {
    let _alone = alone();
    let bench = Bench::new();
    let ids = "damaged ids";
    let metadata = "damaged metadata";
    let names = "damaged source names";
    let cases: [(&str, &str, Edit); 27] = [
        ("first offset", ids, |c| edit_raw(c, IDS, |raw| raw[0] = 1)),
        ("falling offset", ids, |c| edit_raw(c, IDS, |raw| put(raw, 8, &[0; 4]))),
        ("offset beyond", ids, |c| edit_raw(c, IDS, |raw| put(raw, 8, &[0xFF; 4]))),
        ("last offset beyond", ids, |c| edit_raw(c, IDS, |raw| put(raw, 4 * ROWS, &[0xFF; 4]))),
        ("bytes left over", ids, |c| edit_raw(c, IDS, |raw| raw.push(0))),
        ("cut off", ids, |c| edit_raw(c, IDS, |raw| raw.truncate(raw.len() - 1))),
        ("no offsets", ids, |c| c.part(IDS).set_raw(vec![])),
        ("half of the offsets", ids, |c| edit_raw(c, IDS, |raw| raw.truncate(ROWS * 2))),
        ("empty ids", ids, |c| c.part(IDS).set_raw(byte_strings(&[""; ROWS]))),
        ("ids too long", ids, |c| c.part(IDS).set_raw(byte_strings(&vec![vec![1; 4097]; ROWS]))),
        ("one id too few", ids, |c| c.part(IDS).set_raw(byte_strings(&["x"; ROWS - 1]))),
        ("metadata too long", metadata, |c| {
            c.part(METADATA).set_raw(byte_strings(&vec![vec![1; 65_537]; ROWS]));
        }),
        ("falling metadata", metadata, |c| edit_raw(c, METADATA, |raw| put(raw, 8, &[0; 4]))),
        ("empty span", "damaged spans", |c| edit_raw(c, SPANS, |raw| put(raw, 0, &[0xFF; 4]))),
        ("source beyond", "damaged sources", |c| edit_raw(c, SOURCES, |raw| put(raw, 0, &[3, 0, 0, 0]))),
        ("source far beyond", "damaged sources", |c| {
            edit_raw(c, SOURCES, |raw| put(raw, 8, &(u32::MAX - 1).to_le_bytes()));
        }),
        ("no count", names, |c| c.part(NAMES).set_raw(vec![])),
        ("huge count", names, |c| edit_raw(c, NAMES, |raw| put(raw, 0, &[0xFF; 4]))),
        ("count too low", names, |c| edit_raw(c, NAMES, |raw| put(raw, 0, &[2, 0, 0, 0]))),
        ("a name twice", names, |c| {
            let mut raw = vec![3, 0, 0, 0];
            raw.extend(byte_strings(&["wiki", "news", "wiki"]));
            c.part(NAMES).set_raw(raw);
        }),
        ("an empty name", names, |c| {
            let mut raw = vec![3, 0, 0, 0];
            raw.extend(byte_strings(&["wiki", "", "news"]));
            c.part(NAMES).set_raw(raw);
        }),
        ("a name that is no text", names, |c| edit_raw(c, NAMES, |raw| *raw.last_mut().unwrap() = 0xFF)),
        ("scale NaN", "damaged scales", |c| edit_raw(c, SCALES, |raw| put(raw, 0, &f32::NAN.to_le_bytes()))),
        ("scale below 0", "damaged scales", |c| {
            edit_raw(c, SCALES, |raw| put(raw, 0, &(-1f32).to_le_bytes()));
        }),
        ("norm infinite", "damaged norms", |c| {
            edit_raw(c, NORMS, |raw| put(raw, 0, &f32::INFINITY.to_le_bytes()));
        }),
        ("norm -0", "damaged norms", |c| edit_raw(c, NORMS, |raw| put(raw, 0, &(-0f32).to_le_bytes()))),
        ("code NaN", "damaged codes", |c| c.part(CODES).used[..4].copy_from_slice(&f32::NAN.to_le_bytes())),
    ];
    for (what, expected, edit) in cases {
        let mut craft = Craft::new(bench.sound());
        edit(&mut craft);
        assert_refused(&bench, &craft.build(), what, expected);
    }
}

/// Catches verification that takes codes, scales or norms for granted which no writer writes.
/// Reading computes with what stands there; so only verification is asked.
#[test]
fn crafted_numbers_are_found() {
    let _alone = alone();
    let bench = Bench::new();
    let block = |c: &mut Craft, ordinal: usize, at: usize, field: &[u8]| {
        put(&mut c.parts[ordinal].used, at, field);
    };
    type Case<'a> = (&'a str, Box<dyn Fn(&mut Craft) + 'a>);
    let cases: Vec<Case<'_>> = vec![
        ("-128", Box::new(|c| block(c, 2, 5, &[0x80]))),
        ("padding of a row", Box::new(|c| block(c, 2, 41, &[1]))),
        ("padding of an f32 row", Box::new(|c| block(c, 0, 80, &[1]))),
        ("f16 infinity", Box::new(|c| block(c, 1, 0, &[0, 0x7C]))),
        ("f16 scale", Box::new(|c| edit_raw(c, SCALES, |raw| put(raw, 0, &0.75f32.to_le_bytes())))),
        ("scale 0", Box::new(|c| edit_raw(c, SCALES, |raw| put(raw, 0, &[0; 4])))),
        ("subnormal scale", Box::new(|c| edit_raw(c, SCALES, |raw| put(raw, 0, &[1, 0, 0, 0])))),
        ("norm", Box::new(|c| edit_raw(c, NORMS, |raw| put(raw, 0, &9f32.to_le_bytes())))),
        ("norm 0", Box::new(|c| edit_raw(c, NORMS, |raw| put(raw, 0, &[0; 4])))),
    ];
    for (what, edit) in cases {
        let mut craft = Craft::new(bench.sound());
        edit(&mut craft);
        bench.set(0, &craft.build());
        let report = bench.index.verify().unwrap();
        let found = report.findings.iter().any(|finding| {
            finding.file == bench.file()
                && finding.message.contains("row 0")
                && (finding.message.contains("codes") || finding.message.contains("scales"))
        });
        assert!(found, "{what}: {report:#?}");
    }
    // Padding of a whole region.
    let mut craft = Craft::new(bench.sound());
    craft.part(NORMS).padding = 1;
    bench.assert_refused(&craft.build(), "padding of a region", "padding is not zero");
}

/// Catches tiers that are taken for granted: a scan would prune the wrong rows.
#[test]
fn crafted_tiers_are_found() {
    let _alone = alone();
    let bench = Bench::new();
    let number = |c: &mut Craft, tier: u16, run: usize, value: f32| {
        put(&mut c.tier_part(FACTORS, tier, 0).used, run * ROWS * 4, &value.to_le_bytes());
    };
    // Factors that no row can have are refused when they are read; here, by verification.
    for (tier, runs) in [(1, 6), (2, 4)] {
        for run in 0..runs {
            for value in [f32::NAN, f32::INFINITY, -0.0, -1.0, 2f32.powi(78)] {
                let mut craft = Craft::new(bench.sound());
                number(&mut craft, tier, run, value);
                let name = ["", "damaged sign factors", "damaged i8 factors"][usize::from(tier)];
                assert_refused(&bench, &craft.build(), &format!("{value} in run {run}"), name);
            }
        }
    }
    type Case<'a> = (&'a str, &'a str, Box<dyn Fn(&mut Craft) + 'a>);
    let cases: Vec<Case<'_>> = vec![
        ("subnormal i8 scale", "damaged i8 factors", Box::new(|c| number(c, 2, 0, f32::from_bits(1)))),
        ("gain", "its factors are", Box::new(|c| number(c, 1, 0, 0.5))),
        ("spread", "its factors are", Box::new(|c| number(c, 1, 5, 0.5))),
        ("residual", "its factors are", Box::new(|c| number(c, 2, 3, 0.0))),
        ("a sign", "its codes are", Box::new(|c| c.tier_part(CODES, 1, 0).used[1] ^= 4)),
        ("a bit beyond the dims", "its codes are", Box::new(|c| c.tier_part(CODES, 1, 0).used[2] ^= 0x80)),
        ("padding of signs", "its codes are", Box::new(|c| c.tier_part(CODES, 1, 2).used[63] = 1)),
        ("a byte", "its codes are", Box::new(|c| c.tier_part(CODES, 2, 1).used[3] ^= 1)),
        ("-128", "its codes are", Box::new(|c| c.tier_part(CODES, 2, 0).used[3] = 0x80)),
        ("no bit for tiers", "the bit for tiers", Box::new(|c| c.set_features(16, 0))),
        ("tiers left out", "of tier sign", Box::new(|c| c.parts.retain(|part| part.entry[2] == 0))),
    ];
    for (what, expected, edit) in cases {
        let mut craft = Craft::new(bench.sound());
        edit(&mut craft);
        assert_refused(&bench, &craft.build(), what, expected);
    }
}

/// Catches a segment whose ids were exchanged: the manifest knows better.
#[test]
fn crafted_ids_of_other_examples_are_seen() {
    let _alone = alone();
    let bench = Bench::new();
    let mut craft = Craft::new(bench.sound());
    edit_raw(&mut craft, IDS, |raw| {
        let text = raw.windows(11).position(|text| text == b"example 0-0").unwrap();
        raw[text + 10] = b'1';
    });
    bench.set(0, &craft.build());
    let seen = bench.see();
    assert!(!seen.errors.is_empty(), "wrong in silence");
    assert!(seen.findings.len() > 1, "{seen:?}");
}

/// Catches a small file that unpacks to more than the format allows, or to more than it says.
#[test]
fn zstd_bomb_is_refused() {
    let _alone = alone();
    let bench = Bench::new();
    let pack = |raw: &[u8]| zstd::bulk::compress(raw, 3).unwrap();
    for kind in [IDS, SPANS, SOURCES, METADATA, NAMES] {
        let bomb = |what: &str, frame: Vec<u8>, raw_len: u64| {
            let mut craft = Craft::new(bench.sound());
            craft.part(kind).set_frame(frame, raw_len);
            assert_refused(&bench, &craft.build(), &format!("kind {kind}: {what}"), "damaged");
        };
        let gigabyte = pack(&vec![0; 1 << 30]);
        bomb("a gigabyte", gigabyte.clone(), 1 << 30);
        bomb("a gigabyte that says it is a page", gigabyte.clone(), 4096);
        bomb("a gigabyte that says it is the most there can be", gigabyte.clone(), (1 << 20) + 256);
        bomb("as much as is allowed", pack(&vec![0; 1 << 20]), 1 << 20);
        bomb("more than is there", pack(&[0; 4096]), 8192);
        let raw = Craft::new(bench.sound()).part(kind).raw();
        let length = raw.len() as u64;
        let mut two = pack(&raw[..8]);
        two.extend(pack(&raw[8..]));
        bomb("two frames", two, length);
        let mut more = pack(&raw);
        more.push(0);
        bomb("a byte after the frame", more, length);
        let mut less = pack(&raw);
        less.pop();
        bomb("a frame cut off", less, length);
        bomb("no frame", vec![], 0);
        bomb("noise", (0..200).map(|i| (i * 37 % 251) as u8).collect(), length);
        bomb("only the magic", vec![0x28, 0xB5, 0x2F, 0xFD], length);
        // Skippable frames hold nothing.
        bomb("a skippable frame", [&[0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0][..], &[0; 4]].concat(), length);
    }
    // The largest that the promise allows for a file of some size.
    let mut raw: Vec<u8> = super::scattered(150_000, 256).map(|byte| byte as u8).collect();
    raw.resize(34 << 20, 0);
    let frame = pack(&raw);
    for kind in [IDS, METADATA, NAMES] {
        let mut craft = Craft::new(bench.sound());
        craft.part(kind).set_frame(frame.clone(), raw.len() as u64);
        assert_refused(&bench, &craft.build(), "34 MiB", "damaged");
    }
}

/// Catches codes that are read by another encoding than the schema's, because the region says so.
#[test]
fn codes_of_another_encoding_are_refused() {
    let _alone = alone();
    let bench = Bench::new();
    let craft = Craft::new(bench.sound());
    let mut seen = 0;
    for (region, part) in craft.parts.iter().enumerate() {
        let own = super::craft::u16_at(&part.entry, 12);
        for encoding in (0..=5u16).filter(|&encoding| part.kind() == CODES && encoding != own) {
            for version in [u16::from(encoding != 0), 1, 2] {
                let mut craft = craft.clone();
                put(&mut craft.parts[region].entry, 12, &encoding.to_le_bytes());
                put(&mut craft.parts[region].entry, 14, &version.to_le_bytes());
                let what = format!("region {region}: encoding {encoding}, version {version}");
                assert_refused(&bench, &craft.build(), &what, "damaged footer");
                seen += 1;
            }
        }
    }
    // Three blocks, and tiers of three and of two.
    assert_eq!(seen, 8 * 5 * 3);
}

/// Catches a source ordinal without a name that is taken for no source, or that is refused without saying
/// where it is.
#[test]
fn source_without_a_name_is_refused() {
    let _alone = alone();
    let bench = Bench::new();
    for (row, ordinal) in [(0, 3u32), (ROWS - 1, 3), (5, u32::MAX - 1), (7, 1 << 31)] {
        let mut craft = Craft::new(bench.sound());
        edit_raw(&mut craft, SOURCES, |raw| put(raw, row * 4, &ordinal.to_le_bytes()));
        let bytes = craft.build();
        let region = craft.parts.iter().position(|part| part.kind() == SOURCES).unwrap();
        let offset = super::regions(&bytes)[region].0;
        let expected =
            format!("damaged sources, row group 0 at offset {offset}: row {row} has source {ordinal} of 3");
        assert_refused(&bench, &bytes, "a source without a name", &expected);
    }
}

/// Catches verification that takes source names in another order than that of their first use, which
/// format-spec/segment.md fixes, or names that no row has.
#[test]
fn source_names_out_of_order_are_found() {
    let _alone = alone();
    let bench = Bench::new();
    let cases: [(&str, Edit); 3] = [
        ("row 0 has source 1 before any row has source 0", |c| edit_raw(c, SOURCES, |raw| raw[0] = 1)),
        ("row 2 has source 2 before any row has source 1", |c| edit_raw(c, SOURCES, |raw| raw[8] = 2)),
        ("no row has source 3 of 4", |c| {
            let mut raw = vec![4, 0, 0, 0];
            raw.extend(byte_strings(&["wiki", "news", "books", "more"]));
            c.part(NAMES).set_raw(raw);
        }),
    ];
    for (expected, edit) in cases {
        let mut craft = Craft::new(bench.sound());
        edit(&mut craft);
        bench.set(0, &craft.build());
        let report = bench.index.verify().unwrap();
        let found = report
            .findings
            .iter()
            .any(|finding| finding.file == bench.file() && finding.message.contains(expected));
        assert!(found, "{expected}: {report:#?}");
    }
}

/// Catches a compressed column that other readers cannot unpack piece by piece: one that needs a window of
/// more than 2^27 bytes.
#[test]
fn zstd_window_is_bounded() {
    let _alone = alone();
    let bench = Bench::new();
    for log in [27, 28] {
        let mut craft = Craft::new(bench.sound());
        let raw = craft.part(IDS).raw();
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(log).unwrap();
        std::io::Write::write_all(&mut encoder, &raw).unwrap();
        let mut frame = encoder.finish().unwrap();
        craft.part(IDS).set_frame(frame.clone(), raw.len() as u64);
        assert_refused(&bench, &craft.build(), "no content size", "not one zstd frame");
        // States its content size, in four bytes, without being a single segment.
        frame[4] |= 0x80;
        frame.splice(6..6, u32::try_from(raw.len()).unwrap().to_le_bytes());
        craft.part(IDS).set_frame(frame, raw.len() as u64);
        if log > 27 {
            assert_refused(&bench, &craft.build(), "a window of 2^28", "a window of more than 2^27 bytes");
            continue;
        }
        bench.set(0, &craft.build());
        for error in bench.see().all().lines() {
            assert!(error.contains("where the manifest has") || error.contains("digest"), "{error}");
        }
    }
}
