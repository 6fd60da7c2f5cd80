//! Damaged and crafted files: whatever the bytes are, an error or a finding says which file and
//! where, and no example comes back as something that was not stored.

mod fixtures;

use std::sync::{Mutex, MutexGuard, PoisonError};

#[path = "damage/allocator.rs"]
mod allocator;
#[path = "damage/bench.rs"]
mod bench;
#[path = "damage/craft.rs"]
mod craft;
#[path = "damage/crafted.rs"]
mod crafted;
#[cfg(target_os = "linux")]
#[path = "damage/folder.rs"]
mod folder;
#[path = "damage/manifest.rs"]
mod manifest;
#[cfg(target_os = "linux")]
#[path = "damage/pool.rs"]
mod pool;
#[cfg(target_os = "linux")]
#[path = "damage/worker.rs"]
mod worker;

use bench::Bench;
use craft::{Craft, PAGE, TAIL, footer_start, u64_at};
use fixtures::random::Random;
use gradix::Encoding;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One test at a time, so that each one's allocations can be told.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    lock(&ALONE)
}

/// Some numbers that look random and are the same in each run.
fn scattered(count: usize, below: usize) -> impl Iterator<Item = usize> {
    let mut random = Random(1);
    (0..count).map(move |_| random.below(below))
}

fn flipped(sound: &[u8], byte: usize, bit: usize) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    bytes[byte] ^= 1 << bit;
    bytes
}

/// Where each region is stored: offset, used bytes, stored bytes.
fn regions(sound: &[u8]) -> Vec<(usize, usize, usize)> {
    let footer = &sound[footer_start(sound)..];
    let craft = Craft::new(sound);
    let table = 32 + 8 * craft.groups.len();
    (0..craft.parts.len())
        .map(|i| {
            let at = |field| usize::try_from(u64_at(footer, table + i * 64 + field)).unwrap();
            (at(24), at(40), at(32))
        })
        .collect()
}

/// Catches a field of header, footer or tail that no check covers.
#[test]
fn flipped_bit_in_header_footer_or_tail_is_seen() {
    let _alone = alone();
    let bench = Bench::new();
    let sound = bench.sound();
    let places = (0..128).chain(footer_start(sound)..sound.len());
    for (byte, bit) in places.zip(scattered(usize::MAX, 8)) {
        let seen = bench.assert_seen(&flipped(sound, byte, bit), &format!("byte {byte}, bit {bit}"));
        assert!(!seen.errors.is_empty(), "byte {byte}, bit {bit}: the snapshot did not notice");
    }
    for byte in scattered(40, PAGE - 128) {
        let seen = bench.assert_seen(&flipped(sound, 128 + byte, byte % 8), &format!("byte {}", 128 + byte));
        assert!(!seen.errors.is_empty());
    }
}

/// Catches stored bytes that no checksum covers, in each kind of region and in its padding; the
/// message must say where.
#[test]
fn flipped_bit_in_a_region_is_seen() {
    let _alone = alone();
    let bench = Bench::new();
    let sound = bench.sound();
    for (offset, used, stored) in regions(sound) {
        let used_bytes = scattered(25, used).map(|at| offset + at);
        let padding = scattered(6, stored - used).map(|at| offset + used + at);
        for byte in used_bytes.chain(padding).chain([offset, offset + used - 1, offset + stored - 1]) {
            let what = format!("byte {byte} of the region at {offset}");
            let seen = bench.assert_seen(&flipped(sound, byte, byte % 8), &what);
            assert!(seen.all().contains(&format!("offset {offset}")), "{what}: {}", seen.all());
        }
    }
}

/// Catches a page that the disk has lost.
#[test]
fn zeroed_page_is_seen() {
    let _alone = alone();
    let bench = Bench::new();
    for page in 0..bench.sound().len().div_ceil(PAGE) {
        let mut bytes = bench.sound().to_vec();
        let end = bytes.len().min((page + 1) * PAGE);
        bytes[page * PAGE..end].fill(0);
        bench.assert_seen(&bytes, &format!("page {page}"));
    }
    bench.assert_seen(&vec![0; bench.sound().len()], "all pages");
}

/// Catches a file that is cut off or longer than it was written.
#[test]
fn other_length_is_seen() {
    let _alone = alone();
    let bench = Bench::new();
    let sound = bench.sound();
    let edges = regions(sound).into_iter().flat_map(|(offset, _, _)| [offset - 1, offset, offset + 1]);
    let end = sound.len();
    let short =
        [0, 1, 8, 127, 128, 4095, 8191, 8192, 8255, 8256, end - TAIL - 1, end - TAIL, end - 8, end - 1];
    for length in edges.chain(short) {
        let seen = bench.assert_seen(&sound[..length], &format!("cut to {length}"));
        assert!(!seen.errors.is_empty(), "cut to {length}");
    }
    for more in [1, 8, 64, PAGE, 3 * PAGE] {
        let mut bytes = sound.to_vec();
        bytes.resize(end + more, 0);
        assert!(!bench.assert_seen(&bytes, &format!("{more} zeros more")).errors.is_empty());
        // A tail at the end does not help.
        let mut bytes = sound.to_vec();
        bytes.resize(end - TAIL + more, 0);
        bytes.extend(&sound[end - TAIL..]);
        assert!(!bench.assert_seen(&bytes, &format!("{more} zeros in between")).errors.is_empty());
        let mut bytes = sound.to_vec();
        bytes.splice(PAGE..PAGE, vec![0; more]);
        assert!(!bench.assert_seen(&bytes, &format!("{more} zeros more at the front")).errors.is_empty());
    }
}

/// Catches checksums that do not say which chunk of which region of which segment they are for.
#[test]
fn misplaced_chunks_and_pages_are_seen() {
    let _alone = alone();
    let wide = Bench::with(&[("all", 2048, Encoding::F32)], &[], 48);
    let sound = wide.sound();
    let (offset, used, _) = regions(sound)[0];
    assert!(used >= 2 * 65_536 && sound[offset..offset + 65_536] != sound[offset + 65_536..offset + 131_072]);
    let mut bytes = sound.to_vec();
    let (first, second) = bytes[offset..].split_at_mut(65_536);
    first.swap_with_slice(&mut second[..65_536]);
    wide.assert_refused(&bytes, "two chunks of a region", "checksum of chunk 0");
    // The same chunk of the other segment.
    let mut bytes = sound.to_vec();
    bytes[offset..offset + 65_536].copy_from_slice(&wide.segments[1].1[offset..offset + 65_536]);
    wide.assert_refused(&bytes, "a chunk of another segment", "checksum of chunk 0");

    let bench = Bench::new();
    let sound = bench.sound();
    let regions = regions(sound);
    for (i, &(one, ..)) in regions.iter().enumerate() {
        for &(two, ..) in &regions[i + 1..] {
            let mut bytes = sound.to_vec();
            bytes.copy_within(one..one + PAGE, two);
            bytes[one..one + PAGE].copy_from_slice(&sound[two..two + PAGE]);
            bench.assert_seen(&bytes, &format!("pages at {one} and {two}"));
        }
    }
}

/// Catches a segment that is taken for another one of the same index.
#[test]
fn swapped_segments_are_seen() {
    let _alone = alone();
    let bench = Bench::new();
    let (one, two) = (bench.segments[0].1.clone(), bench.segments[1].1.clone());
    bench.assert_refused(&two, "a copy over another", "holds segment");
    bench.mend();
    bench.set(0, &two);
    bench.set(1, &one);
    let seen = bench.see();
    assert_eq!(seen.findings.len(), 2, "{seen:?}");
    assert!(seen.errors[0].contains("holds segment"), "{seen:?}");
    bench.mend();
    assert!(bench.see().all().is_empty());
    // A segment of another index, under the right name.
    let other = Bench::new();
    bench.assert_refused(other.sound(), "another index's", "belongs to index");
}
