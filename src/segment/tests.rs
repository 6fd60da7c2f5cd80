use std::sync::Arc;

use super::row::EncodedTier;
use super::storage::{MemoryStorage, Storage as _};
use super::*;
use crate::codec::{Encoding, Factors, Tier};
use crate::sketch::SketchSpec;

fn identity(blocks: &[(&str, u32, Encoding)]) -> Arc<Identity> {
    let spec = SketchSpec::dense("test", "v1", blocks.iter().map(|block| (block.0, block.1)));
    let schema = Schema::with_encodings(spec, blocks.iter().map(|block| block.2).collect()).unwrap();
    Arc::new(Identity { index: Uuid::from_bytes([1; 16]), schema, schema_digest: [3; 32] })
}

fn row(identity: &Identity, fill: u8) -> EncodedRow {
    let blocks = identity.schema.encodings().len();
    let codes = vec![fill; identity.schema.row_bytes()];
    EncodedRow { codes, scales: vec![1.0; blocks], norms: vec![f32::from(fill); blocks], tiers: Vec::new() }
}

const ORIGIN: Origin = Origin { generation: 0x0102_0304_0506_0708, ordinal: 0x090a_0b0c };
const TAGS: RowTags<'_> = RowTags { span: Span::WHOLE, source: Some("s"), metadata: b"m" };

/// Catches a change of any byte that files already written have: magics, versions, kinds, encodings,
/// places of fields. Written against format-spec/segment.md, with numbers instead of constants.
#[test]
fn constants_never_change() {
    let identity = identity(&[("a", 16, Encoding::F32), ("b", 16, Encoding::F16), ("c", 16, Encoding::I8)]);
    let storage = Arc::new(MemoryStorage::new());
    let segment = Uuid::from_bytes([2; 16]);
    let mut writer =
        SegmentWriter::create(Arc::<MemoryStorage>::clone(&storage), Arc::clone(&identity), segment, ORIGIN)
            .unwrap();
    writer.push(b"id", [(&row(&identity, 0), TAGS)].into_iter()).unwrap();
    let sealed = writer.seal().unwrap();
    let file = storage.open("02020202-0202-0202-0202-020202020202.seg").unwrap();
    let file = file.mapped(0..file.len()).unwrap();
    assert_eq!((sealed.rows, sealed.bytes), (1, file.len() as u64));

    let mut header = b"\x89GDX\r\n\x1a\n\x01\0\0\0\x80\0\0\0".to_vec();
    header.extend([0; 24]);
    header.extend([[1; 16], [2; 16]].concat());
    header.extend([3; 32]);
    header.extend([8, 7, 6, 5, 4, 3, 2, 1, 0xc, 0xb, 0xa, 9]);
    header.extend([0; 8]);
    header.extend(crc32fast::hash(&header).to_le_bytes());
    header.resize(4096, 0);
    assert_eq!(&file[..4096], header);

    // Ten regions of a page each, a footer of fixed part, one group, ten regions, ten checksums.
    let (start, length) = (4096 * 11, 32 + 8 + 10 * 64 + 10 * 4);
    assert_eq!(file.len(), start + length + 64);
    let footer = &file[start..start + length];
    let mut expected = b"\x01\0\0\0\0\0\0\0\x01\0\0\0\x03\0\0\0\x0a\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0".to_vec();
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(&footer[..40], expected);
    // Kind, block, encoding, stride, used bytes.
    let regions: [(u16, u32, u16, u32, u64); 10] = [
        (1, 0, 1, 64, 64),
        (1, 1, 2, 64, 64),
        (1, 2, 3, 64, 64),
        (2, 0, 0, 0, 8),
        (3, 0, 0, 0, 12),
        (4, 0, 0, 0, 10),
        (5, 0, 0, 0, 8),
        (6, 0, 0, 0, 4),
        (7, 0, 0, 0, 9),
        (8, 0, 0, 0, 13),
    ];
    for (i, (kind, block, encoding, stride, used)) in regions.into_iter().enumerate() {
        let mut entry = kind.to_le_bytes().to_vec();
        entry.extend([0, 0]);
        entry.extend(block.to_le_bytes());
        entry.extend(0u32.to_le_bytes());
        entry.extend(encoding.to_le_bytes());
        entry.extend(u16::from(encoding != 0).to_le_bytes());
        entry.extend([0; 4]);
        entry.extend(stride.to_le_bytes());
        entry.extend((4096 * (i as u64 + 1)).to_le_bytes());
        entry.extend(4096u64.to_le_bytes());
        entry.extend([used.to_le_bytes(), used.to_le_bytes()].concat());
        entry.extend([0; 8]);
        assert_eq!(&footer[40 + i * 64..][..64], entry, "region {i}");
        let mut covered = vec![2; 16];
        covered.extend((i as u32).to_le_bytes());
        covered.extend([0; 8]);
        covered.extend(&file[4096 * (i + 1)..4096 * (i + 2)]);
        assert_eq!(footer[40 + 640 + i * 4..][..4], crc32fast::hash(&covered).to_le_bytes(), "region {i}");
    }
    let mut tail = (start as u64).to_le_bytes().to_vec();
    tail.extend((length as u64).to_le_bytes());
    tail.extend(crc32fast::hash(footer).to_le_bytes());
    tail.extend([1, 0, 0, 0]);
    tail.extend([2; 16]);
    tail.extend([0; 12]);
    tail.extend(crc32fast::hash(&tail).to_le_bytes());
    tail.extend([0x0A, 0x1A, 0x0D, 0x0A, 0x58, 0x44, 0x47, 0x89]);
    assert_eq!(&file[start + length..], tail);
}

/// Catches an example whose rows lie in two row groups, rows lost between groups, and a look-up that
/// takes the wrong group.
#[test]
fn row_groups_keep_examples_whole() {
    // 4 MiB of codes a row: 8 rows fill a group.
    let identity = identity(&[("wide", 1 << 22, Encoding::I8)]);
    let storage = Arc::new(MemoryStorage::new());
    let segment = Uuid::from_bytes([2; 16]);
    let mut writer =
        SegmentWriter::create(Arc::<MemoryStorage>::clone(&storage), Arc::clone(&identity), segment, ORIGIN)
            .unwrap();
    let rows: Vec<EncodedRow> = (0..3).map(|fill| row(&identity, fill)).collect();
    let counts = [3usize, 3, 3, 1, 3, 10, 1];
    let mut firsts = Vec::new();
    for (i, &count) in counts.iter().enumerate() {
        let example: Vec<_> = (0..count).map(|row| (&rows[row % 3], TAGS)).collect();
        firsts.push(writer.push(&[i as u8], example.into_iter()).unwrap());
    }
    assert_eq!(firsts, [0, 3, 6, 9, 10, 13, 23]);
    assert_eq!(writer.seal().unwrap().rows, 24);
    let reader = SegmentReader::open(storage.as_ref(), &identity, segment).unwrap();
    let groups: Vec<u32> = reader.groups().iter().map(|group| group.rows).collect();
    assert_eq!(groups, [6, 7, 10, 1]);
    for (i, (&first, &count)) in firsts.iter().zip(&counts).enumerate() {
        for row in 0..count {
            let (group, place) = reader.locate(first + row as u32).unwrap();
            assert_eq!(reader.ids(group).unwrap().get(place), [i as u8]);
            assert_eq!(reader.norms(group, 0).unwrap()[place], (row % 3) as f32);
            let column = CodeColumn { group, tier: None, block: 0 };
            assert_eq!(reader.codes(column, place..place + 1).unwrap().row(0)[0], (row % 3) as u8);
        }
    }
    assert!(reader.locate(24).is_none());
    reader.verify(|error| panic!("{error}"));
}

/// Catches a row group that grows with the metadata of its rows: a writer's memory, and what the `get` of one row
/// has to decompress.
#[test]
fn row_group_ends_with_sixteen_megabytes_of_metadata() {
    let identity = identity(&[("a", 16, Encoding::F32)]);
    let (storage, segment) = (Arc::new(MemoryStorage::new()), Uuid::from_bytes([2; 16]));
    let files = Arc::<MemoryStorage>::clone(&storage);
    let mut writer = SegmentWriter::create(files, Arc::clone(&identity), segment, ORIGIN).unwrap();
    let (row, metadata) = (row(&identity, 0), vec![7; MAX_METADATA as usize]);
    for i in 0..600u32 {
        let tags = RowTags { metadata: &metadata, ..TAGS };
        writer.push(&i.to_le_bytes(), [(&row, tags)].into_iter()).unwrap();
    }
    writer.seal().unwrap();
    let reader = SegmentReader::open(&*storage, &identity, segment).unwrap();
    let rows: Vec<u32> = reader.groups().iter().map(|group| group.rows).collect();
    assert_eq!(rows.iter().sum::<u32>(), 600);
    assert!(rows.iter().all(|&rows| rows <= 257), "{rows:?}");
}

/// Catches a segment in which an example and the next one of the same id look like one example.
#[test]
fn row_groups_separate_examples_of_one_id() {
    let identity = identity(&[("a", 16, Encoding::F32)]);
    let storage = Arc::new(MemoryStorage::new());
    let segment = Uuid::from_bytes([2; 16]);
    let mut writer =
        SegmentWriter::create(Arc::<MemoryStorage>::clone(&storage), Arc::clone(&identity), segment, ORIGIN)
            .unwrap();
    let encoded = row(&identity, 0);
    for (id, rows) in [(b"a", 2), (b"b", 1), (b"b", 3), (b"a", 1), (b"b", 1)] {
        writer.push(id, vec![(&encoded, TAGS); rows].into_iter()).unwrap();
    }
    writer.seal().unwrap();
    let reader = SegmentReader::open(storage.as_ref(), &identity, segment).unwrap();
    let groups: Vec<u32> = reader.groups().iter().map(|group| group.rows).collect();
    assert_eq!(groups, [3, 5]);
    assert_eq!(reader.origin(), ORIGIN);
}

/// Catches a tier's column that is looked for, or cut, as if it were another's.
#[test]
fn tiers_come_back_where_they_were_put() {
    let plain = identity(&[("a", 100, Encoding::F32), ("b", 700, Encoding::I8), ("c", 3, Encoding::F16)]);
    let tiers = [Tier::Sign { seed: 1 }, Tier::I8];
    let schema = plain.schema.clone().with_tiers(tiers).unwrap();
    let identity = Arc::new(Identity { index: plain.index, schema, schema_digest: [3; 32] });
    let storage = Arc::new(MemoryStorage::new());
    let segment = Uuid::from_bytes([2; 16]);
    let mut writer =
        SegmentWriter::create(Arc::<MemoryStorage>::clone(&storage), Arc::clone(&identity), segment, ORIGIN)
            .unwrap();
    // Not what the rows would have: every byte and number says where it belongs.
    let made = |row: u8| {
        let tier = |tier: u8, strides: &[usize]| EncodedTier {
            codes: strides.iter().zip(0..).flat_map(|(&n, b)| vec![100 * tier + 10 * b + row; n]).collect(),
            factors: (0..strides.len())
                .map(|b| Factors { first: (b * 8) as f32 + 1.0, second: f32::from(row) })
                .collect(),
        };
        EncodedRow { tiers: vec![tier(0, &[64, 128, 64]), tier(1, &[128, 64])], ..self::row(&identity, 0) }
    };
    for row in 0..7 {
        writer.push(&[row], [(&made(row), TAGS)].into_iter()).unwrap();
    }
    writer.seal().unwrap();
    let reader = SegmentReader::open(storage.as_ref(), &identity, segment).unwrap();
    let places = [(0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 0, 0), (1, 2, 1)];
    for (tier, block, ordinal) in places {
        let column = CodeColumn { group: 0, tier: Some(tiers[tier]), block };
        let codes = reader.codes(column, 2..6).unwrap();
        assert_eq!(codes.bytes.len(), 4 * codes.stride);
        for row in 0..4 {
            let expected = 100 * tier as u8 + 10 * ordinal + 2 + row as u8;
            assert!(codes.row(row).iter().all(|&byte| byte == expected), "tier {tier}, block {block}");
        }
        let (first, second) = reader.factors(0, tiers[tier], block).unwrap();
        assert_eq!(first, [f32::from(ordinal * 8) + 1.0; 7]);
        assert_eq!(second, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
    assert!(reader.codes(CodeColumn { group: 0, tier: Some(Tier::I8), block: 1 }, 0..1).is_err());
    let own = reader.codes(CodeColumn { group: 0, tier: None, block: 1 }, 0..7).unwrap();
    assert_eq!((own.stride, own.bytes.len()), (704, 7 * 704));
    reader.verify(|error| panic!("{error}"));
    // Without the tiers, and the other way round, the header's bit gives it away.
    assert!(SegmentReader::open(storage.as_ref(), &plain, segment).is_err());
}

/// Catches an append that goes on in a file that is there already, such as after a UUID is reused.
#[test]
fn create_refuses_a_segment_that_exists() {
    let identity = identity(&[("a", 1, Encoding::F32)]);
    let storage = Arc::new(MemoryStorage::new());
    let segment = Uuid::from_bytes([2; 16]);
    let create = || {
        SegmentWriter::create(Arc::<MemoryStorage>::clone(&storage), Arc::clone(&identity), segment, ORIGIN)
    };
    let _first = create().unwrap();
    assert!(matches!(create(), Err(SegmentError::Io { operation: "create", .. })));
}

/// Catches ids, spans or sources that every scan has to decompress, and metadata that takes the room of
/// what it could be packed into.
#[test]
fn metadata_is_compressed_and_what_scans_decode_is_not() {
    let identity = identity(&[("a", 16, Encoding::F32)]);
    let storage = Arc::new(MemoryStorage::new());
    let segment = Uuid::from_bytes([2; 16]);
    let mut writer =
        SegmentWriter::create(Arc::<MemoryStorage>::clone(&storage), Arc::clone(&identity), segment, ORIGIN)
            .unwrap();
    let encoded = row(&identity, 0);
    let tags = RowTags { metadata: &[7; 100], ..TAGS };
    for example in 0..500u32 {
        writer.push(format!("example {example}").as_bytes(), [(&encoded, tags)].into_iter()).unwrap();
    }
    writer.seal().unwrap();
    let file = storage.open("02020202-0202-0202-0202-020202020202.seg").unwrap();
    let file = file.mapped(0..file.len()).unwrap();
    let footer = u64::from_le_bytes(file[file.len() - 64..][..8].try_into().unwrap()) as usize;
    // Kind and compression of the regions, after the fixed part and one group.
    let entries = file[footer + 40..].chunks(64).take(7);
    let found: Vec<_> = entries.map(|entry| (entry[0], entry[16])).collect();
    assert_eq!(found, [(1, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 1), (8, 0)]);
}
