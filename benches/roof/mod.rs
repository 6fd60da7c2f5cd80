//! The memory bandwidth of a core: the roof that the benchmarks are compared with.
//!
//! The fastest of several loops of plain loads over memory in huge pages. The loops differ in concurrent
//! streams and prefetch distance, because no single loop is the fastest on every machine.

use std::io;
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::Instant;

use memmap2::{Advice, MmapMut};

/// Repeats of each access pattern.
const PASSES: usize = 5;

/// Memory to read, in huge pages if the kernel has them, with all pages mapped.
pub struct Memory {
    map: MmapMut,
}

impl Memory {
    pub fn new(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.next_multiple_of(1 << 21);
        let mut map = MmapMut::map_anon(bytes)?;
        map.advise(Advice::HugePage)?;
        let threads = std::thread::available_parallelism()?.get();
        std::thread::scope(|scope| {
            for part in map.chunks_mut(bytes.div_ceil(threads).next_multiple_of(1 << 21)) {
                scope.spawn(|| part.fill(1));
            }
        });
        Ok(Self { map })
    }

    /// The bytes, all 1 at first.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.map
    }

    /// The bytes as numbers.
    pub fn floats(&mut self) -> &mut [f32] {
        // SAFETY: a map begins at a page, and every four bytes are an `f32`.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.map.len() / 4) }
    }

    /// Seconds to read the first `bytes`: the best of several passes of each access pattern.
    pub fn seconds(&self, bytes: usize, threads: usize) -> f64 {
        let bytes = bytes.min(self.map.len());
        let part = bytes.div_ceil(threads).next_multiple_of(4096);
        let mut best = f64::INFINITY;
        for pattern in PATTERNS {
            for _ in 0..PASSES {
                let clock = Clock::new(self.map[..bytes].chunks(part).len());
                std::thread::scope(|scope| {
                    for bytes in self.map[..bytes].chunks(part) {
                        scope.spawn(|| clock.time(|| std::hint::black_box(sum(bytes, pattern))));
                    }
                });
                best = best.min(clock.seconds());
            }
        }
        best
    }
}

/// Times the work of several threads, without the time to start them.
pub struct Clock {
    barrier: Barrier,
    spans: Mutex<Vec<(Instant, Instant)>>,
}

impl Clock {
    pub fn new(threads: usize) -> Self {
        Self { barrier: Barrier::new(threads), spans: Mutex::default() }
    }

    pub fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        self.barrier.wait();
        let started = Instant::now();
        let result = work();
        let span = (started, Instant::now());
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).push(span);
        result
    }

    /// From the first thread's start to the last one's end.
    pub fn seconds(self) -> f64 {
        let spans = self.spans.into_inner().unwrap_or_else(PoisonError::into_inner);
        let started = spans.iter().map(|span| span.0).min();
        let ended = spans.iter().map(|span| span.1).max();
        started.zip(ended).map_or(f64::NAN, |(started, ended)| (ended - started).as_secs_f64())
    }
}

/// An access pattern: the number of concurrent streams of a thread, and the prefetch distance in bytes.
#[derive(Clone, Copy)]
struct Pattern {
    streams: usize,
    ahead: usize,
}

const PATTERNS: [Pattern; 4] = [
    Pattern { streams: 1, ahead: 0 },
    Pattern { streams: 1, ahead: 4096 },
    Pattern { streams: 4, ahead: 0 },
    Pattern { streams: 4, ahead: 2048 },
];

fn sum(bytes: &[u8], pattern: Pattern) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature was just detected.
        return unsafe { sum_avx512(bytes, pattern) };
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just detected.
        return unsafe { sum_avx2(bytes) };
    }
    let _ = (pattern.streams, pattern.ahead);
    sum_words(bytes)
}

/// Vectorised by the compiler with its caller's target features.
#[inline(always)]
fn sum_words(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 32];
    for chunk in bytes.as_chunks::<256>().0 {
        for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(bytes: &[u8]) -> u64 {
    sum_words(bytes)
}

/// 64 bytes per load, and eight sums, so that no load waits for an addition.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_avx512(bytes: &[u8], pattern: Pattern) -> u64 {
    use std::arch::x86_64::{
        _MM_HINT_T0, _mm_prefetch, _mm512_add_epi64, _mm512_loadu_si512, _mm512_reduce_add_epi64,
        _mm512_setzero_si512,
    };
    const UNROLL: usize = 8 * 64;
    let length = bytes.len() / pattern.streams / UNROLL * UNROLL;
    let mut sums = [_mm512_setzero_si512(); 8];
    for at in (0..length).step_by(UNROLL) {
        for stream in 0..pattern.streams {
            let start = bytes[stream * length + at..][..UNROLL].as_ptr();
            for (line, sum) in sums.iter_mut().enumerate() {
                if pattern.ahead > 0 {
                    _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line * 64 + pattern.ahead).cast());
                }
                // SAFETY: the eight lines lie within the slice of UNROLL bytes.
                *sum = _mm512_add_epi64(*sum, unsafe { _mm512_loadu_si512(start.add(line * 64).cast()) });
            }
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(_mm512_reduce_add_epi64(*sum) as u64))
}
