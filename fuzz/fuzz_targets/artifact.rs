//! An artifact file of any bytes: opened, verified and read in all ways; what can be read is all that the file says.
//!
//! The first byte: bit 0 leaves the checksums as they are, bit 1 takes the file with sums or the one with self-influence. Then
//! edits of the sound file: a byte of place, modulo the length from its beginning or from its end, and the new byte; what follows an
//! edit with the place 255 is put in place of the rest.
#![no_main]

use gradix::fuzzing::{check_artifact, sound_artifact};
use libfuzzer_sys::fuzz_target;

const HEADER: usize = 128;
const ENTRY: usize = 96;
const TAIL: usize = 64;

fn edited(sound: &[u8], mut edits: &[u8]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    while let Some((&[side, at, new], rest)) = edits.split_first_chunk::<3>() {
        edits = rest;
        let length = bytes.len();
        if side == 255 {
            bytes.truncate(usize::from(at));
            bytes.extend(rest);
            break;
        }
        let place = usize::from(at) % length.max(1);
        let place = if side % 2 == 0 { place } else { length - 1 - place };
        bytes[place] = new;
    }
    bytes
}

fn u64_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)).ok()
}

fn put_crc(bytes: &mut [u8], at: usize, of: std::ops::Range<usize>) -> Option<()> {
    let crc = crc32fast::hash(bytes.get(of)?).to_le_bytes();
    bytes.get_mut(at..at + 4)?.copy_from_slice(&crc);
    Some(())
}

/// Makes the checksums right again, as far as the tables can be followed. All regions are shorter than a chunk.
fn mend(bytes: &mut [u8]) -> Option<()> {
    put_crc(bytes, 124, 0..124)?;
    let tail = bytes.len().checked_sub(TAIL)?;
    let (table, width) = (u64_at(bytes, tail)?, if bytes.get(12) == Some(&1) { 8 } else { 4 });
    let regions = usize::from(*bytes.get(tail + 16)?);
    let (mut offset, checksums) = (HEADER, table.checked_add(ENTRY * regions)?);
    for region in 0..regions {
        let count = u64_at(bytes, table.checked_add(ENTRY * region + 72)?)?;
        let end = offset.checked_add(count.checked_mul(width)?)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[56..72]);
        hasher.update(&u32::try_from(region).ok()?.to_le_bytes());
        hasher.update(&[0; 4]);
        hasher.update(bytes.get(offset..end)?);
        let at = checksums.checked_add(4 * region)?;
        bytes.get_mut(at..at.checked_add(4)?)?.copy_from_slice(&hasher.finalize().to_le_bytes());
        offset = end;
    }
    put_crc(bytes, tail + 20, table..tail)?;
    put_crc(bytes, tail + 52, tail..tail + 52)
}

fuzz_target!(|input: &[u8]| {
    let Some((&mode, edits)) = input.split_first() else { return };
    let sound = sound_artifact(mode & 2 == 0).unwrap();
    let mut bytes = edited(&sound, edits);
    if mode % 2 == 0 {
        // Where the tables lead nowhere, the checksums before are right.
        let _ = mend(&mut bytes);
    }
    let is_read = check_artifact(&bytes);
    assert!(is_read || bytes != sound);
    // Without its checksums made right, no other file is sound.
    assert!(!is_read || mode % 2 == 0 || bytes == sound || edits.first() == Some(&255));
});
