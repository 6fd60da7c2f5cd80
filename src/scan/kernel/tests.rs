use proptest::prelude::*;

use super::*;

/// The oracle first.
fn all() -> Vec<&'static dyn Kernel> {
    KernelChoice::available().chain(variants()).collect()
}

/// Kernels as they are on other machines than this one.
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
fn variants() -> Option<&'static dyn Kernel> {
    aarch64::Neon::without_dotprod().map(|kernel| kernel as &dyn Kernel)
}

#[cfg(not(all(target_arch = "aarch64", target_endian = "little")))]
fn variants() -> Option<&'static dyn Kernel> {
    None
}

/// Dims around every register and cache line width, and the usual ones.
fn dims() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..=130, Just(255), Just(256), Just(4095), Just(4096), Just(4097), Just(8192 + 33)]
}

/// Numbers of all kinds that a row or a query may hold: zeros of both signs, subnormals, large ones.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -1f32..1.0,
        1 => Just(0.0),
        1 => Just(-0.0),
        1 => Just(f32::from_bits(1)),
        1 => Just(-f32::MIN_POSITIVE / 3.0),
        1 => Just(1e-30f32),
        1 => Just(-3e15f32),
        1 => any::<f32>().prop_map(|x| if x.abs() < 1e17 { x } else { 7.0 }),
    ]
}

/// Numbers from a pool, so that long rows cost few draws: `(i * step + start) mod pool`.
fn spread(pool: &[f32], len: usize, salt: usize) -> Vec<f32> {
    (0..len).map(|i| pool[(i * (2 * salt + 3) + i / 7 + salt) % pool.len()]).collect()
}

#[derive(Debug)]
struct Case {
    dims: usize,
    stride: usize,
    rows: usize,
    offset: usize,
    list: Option<Vec<u32>>,
}

impl Case {
    fn bytes(&self, code_bytes: usize, mut row: impl FnMut(usize) -> Vec<u8>) -> Vec<u8> {
        // Padding that must not be read as codes.
        let mut bytes = vec![0xA5; self.offset + self.rows * self.stride];
        for i in 0..self.rows {
            let at = self.offset + i * self.stride;
            bytes[at..at + self.dims * code_bytes].copy_from_slice(&row(i));
        }
        bytes
    }

    fn rows<'a>(&'a self, bytes: &'a [u8], code_bytes: usize) -> Rows<'a> {
        let select = match &self.list {
            Some(list) => Select::List(list),
            None => Select::First(self.rows),
        };
        Rows::new(&bytes[self.offset..], self.stride, self.dims * code_bytes, select).unwrap()
    }
}

fn case() -> impl Strategy<Value = Case> {
    (dims(), 1usize..=9, 0usize..3, 0usize..70, any::<Option<u64>>()).prop_map(
        |(dims, rows, offset, pad, pick)| Case {
            dims,
            stride: dims * 4 + pad,
            rows,
            offset,
            list: pick.map(|bits| (0..rows as u32).filter(|row| bits >> row & 1 == 1).collect()),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Catches another order of the sixteen lanes, a product rounded before the sum, a tail that is
    /// skipped or reads the padding, and an aligned load of an unaligned row.
    #[test]
    fn float_kernels_equal_the_oracle(
        case in case(),
        pool in prop::collection::vec(number(), 5..60),
        batch in 1usize..=11,
        skip in 0usize..3,
    ) {
        let mut queries = FloatQueries::new(case.dims);
        for query in 0..batch {
            queries.push(&spread(&pool, case.dims, 17 + query));
        }
        let range = skip.min(batch - 1)..batch;
        let singles = case.bytes(4, |i| spread(&pool, case.dims, i).iter().flat_map(|x| x.to_le_bytes()).collect());
        let halves = case.bytes(2, |i| {
            spread(&pool, case.dims, i).iter().flat_map(|x| half::f16::from_f32(x.clamp(-6e4, 6e4)).to_le_bytes()).collect()
        });
        let len = range.len() * case.rows(&singles, 4).len();
        let mut expected = vec![[f32::NAN; 2]; len];
        for (n, kernel) in all().into_iter().enumerate() {
            let (mut f32s, mut f16s) = (vec![f32::NAN; len], vec![f32::NAN; len]);
            kernel.f32(&case.rows(&singles, 4), &queries, range.clone(), &mut f32s);
            kernel.f16(&case.rows(&halves, 2), &queries, range.clone(), &mut f16s);
            for (i, expected) in expected.iter_mut().enumerate() {
                if n == 0 {
                    *expected = [f32s[i], f16s[i]];
                }
                prop_assert_eq!(f32s[i].to_bits(), expected[0].to_bits(), "f32 {} at {}", kernel.name(), i);
                prop_assert_eq!(f16s[i].to_bits(), expected[1].to_bits(), "f16 {} at {}", kernel.name(), i);
            }
        }
    }

    /// Catches lost pairs, wrong sign extension and padding that is added up.
    #[test]
    fn integer_kernels_equal_the_oracle(
        case in case(),
        codes in prop::collection::vec(any::<i8>(), 1..80),
        query in prop::collection::vec(-32512i16..=32512, 1..80),
        batch in 1usize..=11,
    ) {
        let mut queries = IntegerQueries::new(case.dims);
        for j in 0..batch {
            let codes: Vec<i16> = (0..case.dims).map(|i| query[(i * (j + 1) + j) % query.len()]).collect();
            queries.push(&codes);
        }
        let bytes = case.bytes(1, |row| {
            (0..case.dims).map(|i| codes[(i * (row + 2) + row) % codes.len()].cast_unsigned()).collect()
        });
        let rows = case.rows(&bytes, 1);
        let mut expected = Vec::new();
        for kernel in all() {
            let mut out = vec![i64::MIN; batch * rows.len()];
            kernel.i8(&rows, &queries, 0..batch, &mut out);
            if expected.is_empty() {
                expected.clone_from(&out);
            }
            prop_assert_eq!(&out, &expected, "{}", kernel.name());
        }
    }

    /// Catches a quad of dims in the wrong place, a signed byte taken for an unsigned one, a query
    /// that leaks into its neighbour's lane, and padding that is added up.
    #[test]
    fn byte_kernels_equal_the_oracle(
        case in case(),
        codes in prop::collection::vec(any::<i8>(), 1..80),
        query in prop::collection::vec(any::<i8>(), 1..80),
        batch in prop_oneof![1usize..=11, 15usize..=18, Just(33), Just(64), Just(67)],
        skip in 0usize..20,
    ) {
        let of = |j| (0..case.dims).map(|i| query[(i * (j + 1) + j) % query.len()]).collect::<Vec<_>>();
        let queries = ByteQueries::new(case.dims, &(0..batch).map(of).collect::<Vec<_>>());
        let range = skip.min(batch - 1)..batch;
        let bytes = case.bytes(1, |row| {
            (0..case.dims).map(|i| codes[(i * (row + 2) + row) % codes.len()].cast_unsigned()).collect()
        });
        let rows = case.rows(&bytes, 1);
        let mut expected = Vec::new();
        for kernel in all() {
            let mut out = vec![i32::MIN; range.len() * rows.len()];
            kernel.bytes(&rows, &queries, range.clone(), &mut out);
            if expected.is_empty() {
                expected.clone_from(&out);
            }
            prop_assert_eq!(&out, &expected, "{}", kernel.name());
        }
    }

    /// Catches a plane with the wrong weight, and bits beyond the last dim that count.
    #[test]
    fn plane_kernels_equal_the_oracle(
        case in case(),
        codes in prop::collection::vec(any::<u8>(), 1..80),
        query in prop::collection::vec(-7i8..=7, 1..80),
        batch in 1usize..=5,
        skip in 0usize..3,
    ) {
        let mut queries = PlaneQueries::new(case.dims);
        let numbers: Vec<Vec<i8>> = (0..batch)
            .map(|j| (0..case.dims).map(|i| query[(i * (j + 1) + j) % query.len()]).collect())
            .collect();
        numbers.iter().for_each(|query| queries.push(query));
        let range = skip.min(batch - 1)..batch;
        let width = case.dims.div_ceil(8);
        let mut bytes = vec![0xA5; case.offset + case.rows * case.stride];
        for i in 0..case.rows {
            for j in 0..width {
                bytes[case.offset + i * case.stride + j] = codes[(j * (i + 2) + i) % codes.len()];
            }
        }
        let select = case.list.as_deref().map_or(Select::First(case.rows), Select::List);
        let rows = Rows::new(&bytes[case.offset..], case.stride, width, select).unwrap();
        let mut expected = Vec::new();
        for i in 0..range.len() * rows.len() {
            let (query, row) = (&numbers[range.start + i / rows.len()], rows.row(i % rows.len()));
            let set = query.iter().enumerate().filter(|(j, _)| row[j / 8] >> (j % 8) & 1 == 1);
            expected.push(set.map(|(_, &p)| i32::from(p)).sum::<i32>());
        }
        for kernel in all() {
            let mut out = vec![i32::MIN; expected.len()];
            kernel.planes(&rows, &queries, range.clone(), &mut out);
            prop_assert_eq!(&out, &expected, "{}", kernel.name());
        }
    }

    /// Catches a code, scale or residual of another bit, codes left over from the last tile in the
    /// padding, and a residual below what the codes miss of the row.
    #[test]
    fn narrow_kernels_equal_the_oracle(
        case in case(),
        pool in prop::collection::vec(number(), 5..60),
        shrink in prop_oneof![Just(0i32), -60..0, 0..15],
    ) {
        let row = |i| spread(&pool, case.dims, i).into_iter().map(|x| x * 2f32.powi(shrink)).collect::<Vec<_>>();
        let singles = case.bytes(4, |i| row(i).iter().flat_map(|x| x.to_le_bytes()).collect());
        let halves = case.bytes(2, |i| row(i).iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect());
        let mut expected: Option<[Narrowed; 2]> = None;
        for kernel in all() {
            let mut out = Narrow::default();
            // Another tile before, so that the buffers are not all zero.
            let before = [1.0f32.to_le_bytes(), 2.0f32.to_le_bytes()].concat().repeat(1024);
            kernel.narrow_f32(&Rows::new(&before, 512, 512, Select::First(16)).unwrap(), &mut out);
            kernel.narrow_f32(&case.rows(&singles, 4), &mut out);
            let f32s = narrowed(&out);
            kernel.narrow_f16(&case.rows(&halves, 2), &mut out);
            let both = [f32s, narrowed(&out)];
            match &expected {
                Some(expected) => prop_assert!(expected == &both, "{}", kernel.name()),
                None => expected = Some(both),
            }
        }
        let rows = case.rows(&singles, 4);
        let f32s = &expected.unwrap()[0];
        for i in 0..rows.len() {
            let numbers = rows.row(i).chunks(4).map(|x| f64::from(f32::from_le_bytes(x.try_into().unwrap())));
            let missed = numbers.zip(&f32s.codes[i]).map(|(x, &c)| x - f64::from(c) * f64::from(f32::from_bits(f32s.scales[i])));
            let length = missed.map(|r| r * r).sum::<f64>().sqrt();
            prop_assert!(f64::from(f32::from_bits(f32s.residuals[i])) >= length, "{length:e}");
        }
    }
}

/// The bits of a [`Narrow`], padding included.
#[derive(Debug, PartialEq)]
struct Narrowed {
    codes: Vec<Vec<i8>>,
    scales: Vec<u32>,
    residuals: Vec<u32>,
}

fn narrowed(narrow: &Narrow) -> Narrowed {
    let rows = narrow.rows();
    assert_eq!(rows.stride, rows.row_bytes.next_multiple_of(64));
    assert_eq!(rows.bytes.as_ptr() as usize % 64, 0);
    let row = |i: usize| {
        rows.bytes[i * rows.stride..][..rows.stride].iter().map(|code| code.cast_signed()).collect()
    };
    Narrowed {
        codes: (0..rows.len()).map(row).collect(),
        scales: narrow.scales().iter().map(|x| x.to_bits()).collect(),
        residuals: narrow.residuals().iter().map(|x| x.to_bits()).collect(),
    }
}

/// Catches a row of zeros that is called unknown, a tiny or broken one that is trusted, and a code
/// of -128.
#[test]
fn narrow_rows_of_odd_numbers() {
    let tiny = f32::MIN_POSITIVE;
    // A row of each, and its scale, first code and whether the residual is finite.
    let cases = [
        (0.0, 0.0, 0, true),
        (-0.0, 0.0, 0, true),
        (tiny, 0.0, 0, false),
        (f32::NAN, 0.0, 0, false),
        (f32::NEG_INFINITY, 0.0, 0, false),
        // What the codes miss has a square beyond f32.
        (-f32::MAX, f32::MAX / 127.0, -127, false),
        (-1.0, 1.0 / 127.0, -127, true),
    ];
    for kernel in all() {
        for (x, scale, code, finite) in cases {
            let bytes: Vec<u8> = [x; 70].iter().flat_map(|x| x.to_le_bytes()).collect();
            let mut out = Narrow::default();
            kernel.narrow_f32(&Rows::new(&bytes, 280, 280, Select::First(1)).unwrap(), &mut out);
            assert_eq!(out.scales(), [scale], "{} {x}", kernel.name());
            assert_eq!(out.rows().row(0), [i8::cast_unsigned(code); 70], "{} {x}", kernel.name());
            assert_eq!(out.residuals()[0].is_finite(), finite, "{} {x}", kernel.name());
            assert!(!finite || out.residuals()[0] <= scale / 2.0 * 70.0, "{} {x}", kernel.name());
        }
    }
}

/// Catches sums of 32 bits that overflow before they are flushed: every code is -128, as only a
/// crafted file has it, and every query code the largest.
#[test]
fn integer_kernels_with_extreme_codes_do_not_overflow() {
    for dims in [4096, 8192, 8224, 65_536, 200_003] {
        let (bytes, mut queries) = (vec![0x80u8; dims * 5], IntegerQueries::new(dims));
        for j in 0..5 {
            queries.push(&vec![if j % 2 == 0 { 32_512 } else { -32_512 }; dims]);
        }
        let rows = Rows::new(&bytes, dims, dims, Select::First(5)).unwrap();
        let one = -128 * 32_512 * dims as i64;
        for kernel in all() {
            let mut out = vec![0; 25];
            kernel.i8(&rows, &queries, 0..5, &mut out);
            for (at, product) in out.into_iter().enumerate() {
                let expected = if at / 5 % 2 == 0 { one } else { -one };
                assert_eq!(product, expected, "{} at {at}, {dims} dims", kernel.name());
            }
        }
    }
}

/// Catches sums of 32 bits that saturate, or of 16 bits that overflow: every code is -128, and the
/// sum of the last dims is the largest there is.
#[test]
fn byte_kernels_with_extreme_codes_do_not_overflow() {
    for dims in [4096, 65_537, ByteQueries::MOST_DIMS] {
        let queries: Vec<_> = (0..5).map(|j| vec![if j % 2 == 0 { -128 } else { 127 }; dims]).collect();
        let (bytes, queries) = (vec![0x80u8; dims * 5], ByteQueries::new(dims, &queries));
        let rows = Rows::new(&bytes, dims, dims, Select::First(5)).unwrap();
        for kernel in all() {
            let mut out = vec![0; 25];
            kernel.bytes(&rows, &queries, 0..5, &mut out);
            for (at, product) in out.into_iter().enumerate() {
                let code = if at / 5 % 2 == 0 { -128 } else { 127 };
                assert_eq!(product, -128 * code * dims as i32, "{} at {at}, {dims} dims", kernel.name());
            }
        }
    }
}

/// Catches counts in 8 or 16 bits that overflow before they are flushed: every bit of the rows is set,
/// and every number of a query is the same, so that its planes are full or empty.
#[test]
fn plane_kernels_with_full_planes_do_not_overflow() {
    let numbers = [7, -7, -5, 3, 4, -1];
    for dims in [4096usize, 65_536, 65_537, 200_003] {
        let (width, mut queries) = (dims.div_ceil(8), PlaneQueries::new(dims));
        numbers.iter().for_each(|&number| queries.push(&vec![number; dims]));
        let bytes = vec![0xFF; width * 3];
        let rows = Rows::new(&bytes, width, width, Select::First(3)).unwrap();
        for kernel in all() {
            let mut out = vec![0; 3 * numbers.len()];
            kernel.planes(&rows, &queries, 0..numbers.len(), &mut out);
            for (at, product) in out.into_iter().enumerate() {
                let expected = i32::from(numbers[at / 3]) * dims as i32;
                assert_eq!(product, expected, "{} at {at}, {dims} dims", kernel.name());
            }
        }
    }
}

/// The specification's lanes on numbers whose sum depends on the order. Catches an oracle that adds
/// from left to right.
#[test]
fn oracle_adds_in_sixteen_lanes() {
    let mut row = [0f32; 40];
    // Lanes 0, 1 and 8: in halves, (1e8 - 1e8) + 1 = 1; from left to right 1e8 + 1 - 1e8 = 0.
    (row[0], row[1], row[8]) = (1e8, 1.0, -1e8);
    let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut queries = FloatQueries::new(40);
    queries.push(&[1.0; 40]);
    let rows = Rows::new(&bytes, 160, 160, Select::First(1)).unwrap();
    for kernel in all() {
        let mut out = [0.0];
        kernel.f32(&rows, &queries, 0..1, &mut out);
        assert_eq!(out[0].to_bits(), 1f32.to_bits(), "{}", kernel.name());
    }
}

/// Catches a check that forgets the last row, or multiplies beyond the address space.
#[test]
fn rows_beyond_their_bytes_are_refused() {
    let bytes = [0u8; 192];
    assert!(Rows::new(&bytes, 64, 64, Select::First(3)).is_some());
    assert!(Rows::new(&bytes, 64, 64, Select::First(4)).is_none());
    assert!(Rows::new(&bytes, 64, 68, Select::First(3)).is_none());
    assert!(Rows::new(&bytes, 64, 64, Select::List(&[0, 3])).is_none());
    assert!(Rows::new(&bytes, 64, 64, Select::List(&[])).is_some());
    assert!(Rows::new(&bytes, usize::MAX, 64, Select::First(3)).is_none());
    assert!(Rows::new(&bytes, 64, usize::MAX, Select::First(1)).is_none());
}

/// Catches a kernel that stands in the list where `Auto` takes it before a faster one.
#[test]
fn kernels_stand_slowest_first() {
    let kernels: Vec<_> = KernelChoice::available().collect();
    for pair in kernels.windows(2) {
        let [before, after] = [pair[0], pair[1]].map(|kernel| kernel.speeds().f32.further);
        assert!(after <= before, "{} before {}", pair[0].name(), pair[1].name());
    }
}

/// Catches a name that panics or falls back in silence, and a variable that beats the caller.
#[test]
fn kernel_choice_by_name() {
    let unknown = KernelError::Unknown { name: "sse9".into() };
    assert_eq!(KernelChoice::Auto.or_named(Some("sse9")).unwrap_err(), unknown);
    assert_eq!(KernelChoice::Auto.or_named(Some("scalar")).unwrap().name(), "scalar");
    assert_eq!(KernelChoice::Scalar.or_named(Some("sse9")).unwrap().name(), "scalar");
    let best = all().pop().unwrap().name();
    assert_eq!(KernelChoice::Auto.or_named(None).unwrap().name(), best);
    assert_eq!(KernelChoice::Auto.or_named(Some("")).unwrap().name(), best);
    for kernel in KernelChoice::ALL {
        match kernel.or_named(None) {
            Ok(found) => assert_eq!(found.name(), kernel.to_string()),
            Err(error) => assert_eq!(error, KernelError::Unsupported { kernel }),
        }
    }
}
