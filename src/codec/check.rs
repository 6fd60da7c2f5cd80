use super::{CodeFault, Encoding};

/// Checks the stored codes of one row in one block: what a reader can compute with but a writer
/// would never write. For `f32` the scale does not count.
///
/// Codes that pass decode to numbers that are finite unless the scale itself is too large for the
/// greatest code; that shows in the norm, which verification computes anyway.
///
/// # Errors
/// The first fault, looked for in the order length, scale, codes, padding.
pub fn check_codes(encoding: Encoding, codes: &[u8], dims: usize, scale: f32) -> Result<(), CodeFault> {
    let expected = encoding.stride(dims);
    if codes.len() != expected {
        return Err(CodeFault::Length { given: codes.len(), expected });
    }
    let is_zero = scale.to_bits() == 0;
    let is_valid = match encoding {
        Encoding::F32 => true,
        Encoding::F16 => is_zero || is_positive_normal(scale) && scale.to_bits() << 9 == 0,
        Encoding::I8 => is_zero || is_positive_normal(scale),
    };
    if !is_valid {
        return Err(CodeFault::Scale { encoding, scale });
    }
    let used = dims * encoding.code_bytes();
    let (codes, padding) = codes.split_at(used);
    if encoding.has_scale()
        && is_zero
        && let Some(byte) = codes.iter().position(|&byte| byte != 0)
    {
        return Err(CodeFault::CodeWithoutScale { position: byte / encoding.code_bytes() });
    }
    let is_infinite = |bits: u32, exponent: u32| bits & exponent == exponent;
    let not_finite = |position| CodeFault::NotFinite { position };
    let fault = match encoding {
        Encoding::F32 => {
            first(codes.as_chunks().0, |&code| is_infinite(u32::from_le_bytes(code), 0x7F80_0000))
                .map(not_finite)
        }
        Encoding::F16 => {
            first(codes.as_chunks().0, |&code| is_infinite(u16::from_le_bytes(code).into(), 0x7C00))
                .map(not_finite)
        }
        Encoding::I8 => first(codes, |&code| code == 0x80).map(|position| CodeFault::BelowRange { position }),
    };
    if let Some(fault) = fault {
        return Err(fault);
    }
    match padding.iter().position(|&byte| byte != 0) {
        Some(byte) => Err(CodeFault::Padding { offset: used + byte }),
        None => Ok(()),
    }
}

/// The position of the first code that is wrong. Runs are looked through without a branch for each
/// code, which is what lets a full verification keep up with the disk.
fn first<T>(codes: &[T], is_wrong: impl Fn(&T) -> bool) -> Option<usize> {
    const RUN: usize = 256;
    let run = codes.chunks(RUN).position(|run| run.iter().fold(false, |any, code| any | is_wrong(code)))?;
    let start = run * RUN;
    codes[start..].iter().position(is_wrong).map(|position| start + position)
}

fn is_positive_normal(scale: f32) -> bool {
    scale.is_normal() && scale > 0.0
}
