//! The kernels of the fold, in CubeCL: one source for every device.
//!
//! `format-spec/sketch.md` ("The order on a device") fixes what they add in which order. Only integers,
//! signs and sums are in them: nothing that one compiler fuses or rounds otherwise than the next.

#![expect(
    clippy::needless_pass_by_value,
    clippy::used_underscore_binding,
    reason = "a launch takes its arguments by value, and the macro names the type's binding"
)]

use cubecl::prelude::*;

/// Elements of a tile, and lanes of a base.
pub(super) const TILE: u32 = 16;

/// How many numbers are summed one after the other, on every level.
pub(super) const RUN: u32 = 64;

/// Numbers of a row's record of what is not finite.
pub(super) const RECORD: u32 = 4;

/// What a kernel needs to know of a tensor.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Place {
    pub(super) factor_0: u32,
    pub(super) addend_0: u32,
    pub(super) factor_1: u32,
    pub(super) addend_1: u32,
    pub(super) factor_2: u32,
    pub(super) addend_2: u32,
    pub(super) factor_3: u32,
    pub(super) addend_3: u32,
    pub(super) shift: u32,
    pub(super) mask: u32,
    pub(super) turned: u32,
    pub(super) mix_0: u32,
    pub(super) mix_1: u32,
    pub(super) tiles: u32,
    pub(super) elements: u32,
    /// Elements from one row to the next.
    pub(super) stride: u32,
    pub(super) rows: u32,
    /// Runs of a row, and turns of a run.
    pub(super) runs: u32,
    pub(super) run: u32,
    /// The ordinal of the parameter in the batch, for the record.
    pub(super) ordinal: u32,
}

/// Where the sums of a row go.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Target {
    /// The first row of `sums`, and its number of elements.
    pub(super) row: u32,
    pub(super) dims: u32,
    /// The first tile of the block in a row.
    pub(super) start: u32,
    pub(super) base_step: u32,
    pub(super) base_first: u32,
}

#[cube]
fn mix(x: u32) -> u32 {
    let mut x = x;
    x ^= x >> 16;
    x *= 0x7FEB_352Du32;
    x ^= x >> 15;
    x *= 0x846C_A68Bu32;
    x ^ (x >> 16)
}

/// The tile of a turn: the four rounds of the fold, undone.
#[cube]
fn tile_of(place: &Place, turn: u32) -> u32 {
    let mut x = (turn - place.turned) & place.mask;
    x ^= x >> place.shift;
    x = (x * place.factor_0 + place.addend_0) & place.mask;
    x ^= x >> place.shift;
    x = (x * place.factor_1 + place.addend_1) & place.mask;
    x ^= x >> place.shift;
    x = (x * place.factor_2 + place.addend_2) & place.mask;
    x ^= x >> place.shift;
    (x * place.factor_3 + place.addend_3) & place.mask
}

/// The bits of four elements that follow each other; those behind the end are +0.
#[derive(CubeType)]
struct Four {
    bits_0: u32,
    bits_1: u32,
    bits_2: u32,
    bits_3: u32,
}

/// The elements from `at` on, of which the first is a multiple of 4 elements into the row. With vectors of 4 a
/// row ends behind a whole vector.
#[cube]
fn four<F: Numeric, N: Size>(input: &[Vector<F, N>], place: &Place, row: u32, at: u32) -> Four {
    let mut bits_0 = 0u32;
    let mut bits_1 = 0u32;
    let mut bits_2 = 0u32;
    let mut bits_3 = 0u32;
    let first = row * place.stride + at;
    let vector = N::value();
    if comptime!(vector == 4) {
        if at < place.elements {
            let x = input[(first / 4) as usize];
            bits_0 = u32::reinterpret(f32::cast_from(x.extract(0usize)));
            bits_1 = u32::reinterpret(f32::cast_from(x.extract(1usize)));
            bits_2 = u32::reinterpret(f32::cast_from(x.extract(2usize)));
            bits_3 = u32::reinterpret(f32::cast_from(x.extract(3usize)));
        }
    } else {
        if at < place.elements {
            bits_0 = u32::reinterpret(f32::cast_from(input[first as usize].extract(0usize)));
        }
        if at + 1 < place.elements {
            bits_1 = u32::reinterpret(f32::cast_from(input[(first + 1) as usize].extract(0usize)));
        }
        if at + 2 < place.elements {
            bits_2 = u32::reinterpret(f32::cast_from(input[(first + 2) as usize].extract(0usize)));
        }
        if at + 3 < place.elements {
            bits_3 = u32::reinterpret(f32::cast_from(input[(first + 3) as usize].extract(0usize)));
        }
    }
    Four { bits_0, bits_1, bits_2, bits_3 }
}

/// The larger of `most` and the magnitude, as bits: whether a number is finite is seen by its bits, since a
/// compiler may take for granted that it is.
#[cube]
fn larger(most: u32, bits: u32) -> u32 {
    let magnitude = bits & 0x7FFF_FFFFu32;
    select(magnitude > most, magnitude, most)
}

/// The number with the sign of the hash's bit `place`, counted from 31 down.
#[cube]
fn signed(bits: u32, hash: u32, #[comptime] place: u32) -> f32 {
    f32::reinterpret(bits ^ ((hash << place) & 0x8000_0000u32))
}

/// Notes an element that is not finite.
#[cube]
fn note(bad: &[Atomic<u32>], place: &Place, row: u32, bits: u32, at: u32) {
    let magnitude = bits & 0x7FFF_FFFFu32;
    if magnitude >= 0x7F80_0000u32 {
        let record = (row * RECORD) as usize;
        let before = bad[record].fetch_min(place.ordinal);
        // Launches follow each other, so an earlier parameter has been noted before this one came.
        if before >= place.ordinal {
            let mut kind = 1u32;
            if magnitude == 0x7F80_0000u32 {
                kind = 2u32 + (bits >> 31);
            }
            bad[record + kind as usize].fetch_min(at);
        }
    }
}

/// What four lanes get of a tile, and the largest magnitude among it, as bits.
#[derive(CubeType)]
struct Quarter {
    lane_0: f32,
    lane_1: f32,
    lane_2: f32,
    lane_3: f32,
    most: u32,
}

/// Lane l takes element l xor r, where r is the hash's top four bits; so a quarter of the lanes takes a quarter
/// of the elements.
#[cube]
fn quarter<F: Numeric, N: Size>(
    input: &[Vector<F, N>],
    place: &Place,
    row: u32,
    tile: u32,
    hash: u32,
    lanes: u32,
) -> Quarter {
    let part = (lanes ^ (hash >> 30)) * 4;
    let x = four::<F, N>(input, place, row, tile * TILE + part);
    let most = larger(larger(larger(larger(0u32, x.bits_0), x.bits_1), x.bits_2), x.bits_3);
    let signs = hash >> part;
    let x_0 = signed(x.bits_0, signs, 31u32);
    let x_1 = signed(x.bits_1, signs, 30u32);
    let x_2 = signed(x.bits_2, signs, 29u32);
    let x_3 = signed(x.bits_3, signs, 28u32);
    let odd = ((hash >> 28) & 1) == 1;
    let y_0 = select(odd, x_1, x_0);
    let y_1 = select(odd, x_0, x_1);
    let y_2 = select(odd, x_3, x_2);
    let y_3 = select(odd, x_2, x_3);
    let crossed = ((hash >> 29) & 1) == 1;
    let lane_0 = select(crossed, y_2, y_0);
    let lane_1 = select(crossed, y_3, y_1);
    let lane_2 = select(crossed, y_0, y_2);
    let lane_3 = select(crossed, y_1, y_3);
    Quarter { lane_0, lane_1, lane_2, lane_3, most }
}

/// Sums runs of turns, a unit each run.
///
/// With `whole`, a base's turns are one run, and its sum is added to `output`, the sums of the batch: [rows, dims];
/// else `output` is [rows, runs, 16].
#[cube(launch_unchecked)]
pub(super) fn sum_tiles<F: Numeric, N: Size>(
    input: &[Vector<F, N>],
    output: &mut [f32],
    bad: &[Atomic<u32>],
    place: Place,
    target: Target,
    #[comptime] whole: bool,
    #[define(F)] _dtype: ElemType,
) {
    let unit = ABSOLUTE_POS as u32;
    let run = unit % place.runs;
    let row = unit / place.runs;
    if row >= place.rows {
        terminate!();
    }
    let mut sum_0 = 0f32;
    let mut sum_1 = 0f32;
    let mut sum_2 = 0f32;
    let mut sum_3 = 0f32;
    let mut sum_4 = 0f32;
    let mut sum_5 = 0f32;
    let mut sum_6 = 0f32;
    let mut sum_7 = 0f32;
    let mut sum_8 = 0f32;
    let mut sum_9 = 0f32;
    let mut sum_10 = 0f32;
    let mut sum_11 = 0f32;
    let mut sum_12 = 0f32;
    let mut sum_13 = 0f32;
    let mut sum_14 = 0f32;
    let mut sum_15 = 0f32;
    let mut most = 0u32;
    let first = run * place.run;
    for turn in 0..place.run {
        let tile = tile_of(&place, first + turn);
        if tile < place.tiles {
            let hash = mix(mix(tile + place.mix_0) ^ place.mix_1);
            let x_0 = quarter::<F, N>(input, &place, row, tile, hash, 0u32);
            let x_1 = quarter::<F, N>(input, &place, row, tile, hash, 1u32);
            let x_2 = quarter::<F, N>(input, &place, row, tile, hash, 2u32);
            let x_3 = quarter::<F, N>(input, &place, row, tile, hash, 3u32);
            sum_0 += x_0.lane_0;
            sum_1 += x_0.lane_1;
            sum_2 += x_0.lane_2;
            sum_3 += x_0.lane_3;
            sum_4 += x_1.lane_0;
            sum_5 += x_1.lane_1;
            sum_6 += x_1.lane_2;
            sum_7 += x_1.lane_3;
            sum_8 += x_2.lane_0;
            sum_9 += x_2.lane_1;
            sum_10 += x_2.lane_2;
            sum_11 += x_2.lane_3;
            sum_12 += x_3.lane_0;
            sum_13 += x_3.lane_1;
            sum_14 += x_3.lane_2;
            sum_15 += x_3.lane_3;
            most = larger(larger(larger(larger(most, x_0.most), x_1.most), x_2.most), x_3.most);
        }
    }
    // Rare, so the run is read again to see where.
    if most >= 0x7F80_0000u32 {
        for turn in 0..place.run {
            let tile = tile_of(&place, first + turn);
            if tile < place.tiles {
                for part in 0..4u32 {
                    let at = tile * TILE + part * 4;
                    let x = four::<F, N>(input, &place, row, at);
                    note(bad, &place, target.row + row, x.bits_0, at);
                    note(bad, &place, target.row + row, x.bits_1, at + 1);
                    note(bad, &place, target.row + row, x.bits_2, at + 2);
                    note(bad, &place, target.row + row, x.bits_3, at + 3);
                }
            }
        }
    }
    if comptime!(whole) {
        let base = run * target.base_step + target.base_first;
        let at = ((target.row + row) * target.dims + (target.start + base) * TILE) as usize;
        output[at] += sum_0;
        output[at + 1] += sum_1;
        output[at + 2] += sum_2;
        output[at + 3] += sum_3;
        output[at + 4] += sum_4;
        output[at + 5] += sum_5;
        output[at + 6] += sum_6;
        output[at + 7] += sum_7;
        output[at + 8] += sum_8;
        output[at + 9] += sum_9;
        output[at + 10] += sum_10;
        output[at + 11] += sum_11;
        output[at + 12] += sum_12;
        output[at + 13] += sum_13;
        output[at + 14] += sum_14;
        output[at + 15] += sum_15;
    } else {
        let at = ((row * place.runs + run) * TILE) as usize;
        output[at] = sum_0;
        output[at + 1] = sum_1;
        output[at + 2] = sum_2;
        output[at + 3] = sum_3;
        output[at + 4] = sum_4;
        output[at + 5] = sum_5;
        output[at + 6] = sum_6;
        output[at + 7] = sum_7;
        output[at + 8] = sum_8;
        output[at + 9] = sum_9;
        output[at + 10] = sum_10;
        output[at + 11] = sum_11;
        output[at + 12] = sum_12;
        output[at + 13] = sum_13;
        output[at + 14] = sum_14;
        output[at + 15] = sum_15;
    }
}

/// Sums runs of sums, lane by lane: `input` is [rows, runs * run, 16]. `whole` and `output` as above.
#[cube(launch_unchecked)]
pub(super) fn sum_sums(
    input: &[f32],
    output: &mut [f32],
    rows: u32,
    runs: u32,
    run: u32,
    target: Target,
    #[comptime] whole: bool,
) {
    let unit = ABSOLUTE_POS as u32;
    let lane = unit % TILE;
    let ordinal = (unit / TILE) % runs;
    let row = unit / TILE / runs;
    if row >= rows {
        terminate!();
    }
    let first = (row * runs + ordinal) * run;
    let mut sum = 0f32;
    for step in 0..run {
        sum += input[((first + step) * TILE + lane) as usize];
    }
    if comptime!(whole) {
        let base = ordinal * target.base_step + target.base_first;
        output[((target.row + row) * target.dims + (target.start + base) * TILE + lane) as usize] += sum;
    } else {
        output[((row * runs + ordinal) * TILE + lane) as usize] = sum;
    }
}
