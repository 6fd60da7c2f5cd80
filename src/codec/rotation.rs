//! The seeded rotation of the `sign` tier, specified bit for bit by `format-spec/encodings.md`: plain sums,
//! differences and products, each rounded once, so that every machine computes the same numbers.

use std::array::from_fn;

use sha2::{Digest as _, Sha512};

use super::mix::mix;

/// Elements per word of signs.
const WORD: usize = 32;
/// Words of signs computed at once, so that the hashes vectorise.
const WORDS: usize = 16;
/// The levels below this width are computed within runs of this length.
const RUN: usize = 16;
/// The levels below this width are computed within runs of this length, which stay in L1.
const BLOCK: usize = 4096;

/// A rotation of a block's numbers: three rounds of random signs and Hadamard transforms.
///
/// The same seed, block and dims always give the same rotation. Rounding changes norms and scores by at most
/// 2^-16 of the norm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rotation {
    dims: usize,
    /// The keys of each round's signs.
    rounds: [(u32, u32); 3],
}

impl Rotation {
    /// The rotation of block `block`, which has `dims` numbers.
    pub fn new(seed: u64, block: u32, dims: usize) -> Self {
        let mut hash = Sha512::new();
        hash.update(b"gradix.rotation.1");
        hash.update(seed.to_le_bytes());
        hash.update(block.to_le_bytes());
        let digest: [u8; 64] = hash.finalize().into();
        let (words, _) = digest.as_chunks();
        let key = |i: usize| u32::from_le_bytes(words[i]);
        Self { dims, rounds: [0, 2, 4].map(|i| (key(i), key(i + 1))) }
    }

    /// The number of dims it rotates.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// Rotates in place.
    ///
    /// # Panics
    /// If there are not `dims` numbers.
    pub fn apply(&self, numbers: &mut [f32]) {
        assert_eq!(numbers.len(), self.dims, "numbers of other dims");
        for keys in self.rounds {
            round(numbers, keys);
        }
    }
}

#[inline(always)]
fn round(numbers: &mut [f32], keys: (u32, u32)) {
    let dims = numbers.len();
    if dims == 0 {
        return;
    }
    flip_signs(numbers, keys);
    let width = 1 << dims.ilog2();
    if width == dims {
        return hadamard(numbers);
    }
    mix_halves(numbers);
    hadamard(&mut numbers[..width]);
    hadamard(&mut numbers[dims - width..]);
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a block has at most 2^28 numbers")]
fn flip_signs(numbers: &mut [f32], (before, between): (u32, u32)) {
    const SIGN: u32 = 1 << 31;
    for (start, run) in numbers.chunks_mut(WORD * WORDS).enumerate() {
        let mut words = [0u32; WORDS];
        for (j, word) in words.iter_mut().enumerate() {
            let place = (start * WORDS + j) as u32;
            *word = mix(mix(place.wrapping_add(before)) ^ between);
        }
        for (numbers, word) in run.chunks_mut(WORD).zip(words) {
            for (i, number) in numbers.iter_mut().enumerate() {
                // A test and a mask: not every machine can shift each lane by another distance.
                let sign = if word & (1 << i) == 0 { 0 } else { SIGN };
                *number = f32::from_bits(number.to_bits() ^ sign);
            }
        }
    }
}

/// Rotates each pair of a number in the first half and one in the second by 45 degrees: the two Hadamard
/// transforms alone would hardly mix the halves if they overlap little.
#[inline(always)]
fn mix_halves(numbers: &mut [f32]) {
    let (first, second) = numbers.split_at_mut(numbers.len().div_ceil(2));
    for (a, b) in first.iter_mut().zip(second) {
        (*a, *b) = ((*a + *b) * std::f32::consts::FRAC_1_SQRT_2, (*a - *b) * std::f32::consts::FRAC_1_SQRT_2);
    }
}

/// The Hadamard transform of a power of two of numbers, scaled to preserve the norm.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the factor is rounded to f32, as fixed")]
fn hadamard(numbers: &mut [f32]) {
    let factor = (1.0 / (numbers.len() as f64).sqrt()) as f32;
    let (runs, rest) = numbers.as_chunks_mut::<RUN>();
    if runs.is_empty() {
        let mut width = 1;
        while width < rest.len() {
            radix_2(rest, width, 1.0);
            width *= 2;
        }
        rest.iter_mut().for_each(|number| *number *= factor);
        return;
    }
    let len = numbers.len();
    for block in numbers.chunks_mut(BLOCK) {
        first_levels(block);
        levels(block, RUN, if len <= BLOCK { factor } else { 1.0 });
    }
    if len > BLOCK {
        levels(numbers, BLOCK, factor);
    } else if len == RUN {
        numbers.iter_mut().for_each(|number| *number *= factor);
    }
}

/// The levels from `width` on, two at a time; the results of the last are multiplied by `factor`.
/// (A product with 1 changes nothing.)
#[inline(always)]
fn levels(numbers: &mut [f32], mut width: usize, factor: f32) {
    while width * 4 <= numbers.len() {
        let last = width * 4 == numbers.len();
        radix_4(numbers, width, if last { factor } else { 1.0 });
        width *= 4;
    }
    if width < numbers.len() {
        radix_2(numbers, width, factor);
    }
}

#[inline(always)]
fn radix_2(numbers: &mut [f32], width: usize, factor: f32) {
    for pair in numbers.chunks_exact_mut(width * 2) {
        let (a, b) = pair.split_at_mut(width);
        for (a, b) in a.iter_mut().zip(b) {
            (*a, *b) = ((*a + *b) * factor, (*a - *b) * factor);
        }
    }
}

/// Two levels in one pass, each sum rounded as if there were two.
#[inline(always)]
fn radix_4(numbers: &mut [f32], width: usize, factor: f32) {
    for four in numbers.chunks_exact_mut(width * 4) {
        let (ab, cd) = four.split_at_mut(width * 2);
        let (a, b) = ab.split_at_mut(width);
        let (c, d) = cd.split_at_mut(width);
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let (ab, cd) = ((*a + *b, *a - *b), (*c + *d, *c - *d));
            (*a, *c) = ((ab.0 + cd.0) * factor, (ab.0 - cd.0) * factor);
            (*b, *d) = ((ab.1 + cd.1) * factor, (ab.1 - cd.1) * factor);
        }
    }
}

/// Levels 1, 2, 4 and 8, written so that compilers vectorise them in vectors of four.
#[inline(always)]
fn first_levels(numbers: &mut [f32]) {
    for four in numbers.as_chunks_mut::<4>().0 {
        let [a, b, c, d] = *four;
        let (ab, cd) = ((a + b, a - b), (c + d, c - d));
        *four = [ab.0 + cd.0, ab.1 + cd.1, ab.0 - cd.0, ab.1 - cd.1];
    }
    for run in numbers.as_chunks_mut::<RUN>().0 {
        let [a, b, c, d]: [Four; 4] = from_fn(|i| from_fn(|j| run[4 * i + j]));
        let (ab, cd) = ((add(a, b), subtract(a, b)), (add(c, d), subtract(c, d)));
        let rows = [add(ab.0, cd.0), add(ab.1, cd.1), subtract(ab.0, cd.0), subtract(ab.1, cd.1)];
        *run = from_fn(|i| rows[i / 4][i % 4]);
    }
}

type Four = [f32; 4];

#[inline(always)]
fn add(a: Four, b: Four) -> Four {
    from_fn(|i| a[i] + b[i])
}

#[inline(always)]
fn subtract(a: Four, b: Four) -> Four {
    from_fn(|i| a[i] - b[i])
}
