//! A segment in which one region holds any bytes, raw or as a zstd frame, with right lengths and checksums:
//! what parses ids, spans, sources, metadata, names, norms, scales, factors and codes sees them.
//!
//! The first byte chooses the region, the second what is done with the rest of the input.
#![no_main]

use std::sync::OnceLock;

use gradix_fuzz::Bench;
use gradix_fuzz::craft::{Craft, Part};
use libfuzzer_sys::fuzz_target;

/// Changes some bytes of what the region holds: two of place, one of value.
fn edited(mut bytes: Vec<u8>, edits: &[u8]) -> Vec<u8> {
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = edit[2];
        }
    }
    bytes
}

fn change(part: &mut Part, how: u8, rest: &[u8]) {
    let raw_len = part.raw_len;
    match how % 6 {
        0 => part.set_raw(rest.to_vec()),
        1 => part.set_raw(edited(part.raw(), rest)),
        // The length stays that of what was there.
        2 => part.set_frame(zstd::bulk::compress(&edited(part.raw(), rest), 1).unwrap(), raw_len),
        3 => part.set_frame(rest.to_vec(), raw_len),
        4 => part.set_frame(edited(zstd::bulk::compress(&part.raw(), 1).unwrap(), rest), raw_len),
        _ => {
            let raw = zstd::bulk::compress(rest, 1).unwrap();
            part.set_frame(raw, rest.len() as u64);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    static BENCH: OnceLock<(Bench, Craft)> = OnceLock::new();
    let (bench, sound) = BENCH.get_or_init(|| {
        let bench = Bench::new();
        let craft = Craft::new(&bench.sound);
        assert_eq!(craft.build(), bench.sound);
        (bench, craft)
    });
    let [region, how, rest @ ..] = input else { return };
    let mut craft = sound.clone();
    let count = craft.parts.len();
    change(&mut craft.parts[usize::from(*region) % count], *how, rest);
    let bytes = craft.build();
    let is_sound = bytes == bench.sound;
    bench.set(bytes);
    if let Ok(snapshot) = bench.index.snapshot() {
        for id in &bench.ids {
            let _ = snapshot.get(id);
        }
        let _ = snapshot.sources();
        for row in snapshot.iter().with_sketches() {
            let Ok(row) = row else { break };
            assert!(row.span.is_valid() && row.norms.iter().all(|norm| norm.is_finite() && *norm >= 0.0));
        }
        let queries = [bench.query.clone()];
        let _ = snapshot.scan(&queries).and_then(|scan| scan.top_k(3).metadata(true).run());
    }
    let report = bench.index.verify().expect("verification reports and does not fail");
    assert!(report.is_sound() || !is_sound, "{report:?}");
});
