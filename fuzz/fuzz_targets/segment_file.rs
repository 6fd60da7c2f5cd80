//! A segment of any bytes: opened, read in full, scanned and verified.
//!
//! The input is a list of edits to a sound segment, after which the checksums are made right: three
//! bytes of place, one of length, and `length` new bytes; a length of 255 truncates the file there.
#![no_main]

use std::sync::OnceLock;

use gradix_fuzz::{Bench, mend_segment};
use libfuzzer_sys::fuzz_target;

fn edited(sound: &[u8], mut edits: &[u8]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    while let Some((&[a, b, c, length], rest)) = edits.split_first_chunk::<4>() {
        let at = u32::from_le_bytes([a, b, c, 0]) as usize % bytes.len().max(1);
        edits = rest;
        if length == 255 {
            bytes.truncate(at);
            continue;
        }
        let end = (at + usize::from(length)).min(bytes.len());
        let new = &edits[..edits.len().min(end - at)];
        bytes[at..at + new.len()].copy_from_slice(new);
        edits = &edits[new.len()..];
    }
    bytes
}

fuzz_target!(|edits: &[u8]| {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    let bench = BENCH.get_or_init(Bench::new);
    // An odd first byte leaves the checksums as they are.
    let Some((&first, edits)) = edits.split_first() else { return };
    let mut bytes = edited(&bench.sound, edits);
    if first % 2 == 0 {
        mend_segment(&mut bytes, &bench.sound);
    }
    let is_sound = bytes == bench.sound;
    bench.set(bytes);
    if let Ok(snapshot) = bench.index.snapshot() {
        for id in &bench.ids {
            let _ = snapshot.get(id);
        }
        let queries = [bench.query.clone()];
        let _ = snapshot.scan(&queries).and_then(|scan| scan.top_k(3).run());
        let _ = (format!("{snapshot:?}"), snapshot.listing(), snapshot.stats());
    }
    let report = bench.index.verify().expect("verification reports and does not fail");
    assert_eq!(report.is_sound(), is_sound, "{report:?}");
});
