use super::{CodeFault, Encoding};

/// Checks that the stored codes of one row in one block are codes that a writer can have written. For `f32`
/// the scale is ignored.
///
/// # Errors
/// The first fault, in the order length, scale, codes, padding.
pub(crate) fn check_codes(
    encoding: Encoding,
    codes: &[u8],
    dims: usize,
    scale: f32,
) -> Result<(), CodeFault> {
    let expected = encoding.stride(dims);
    if codes.len() != expected {
        return Err(CodeFault::Length { given: codes.len(), expected });
    }
    if encoding.has_scale() && !encoding.may_scale_by(scale) {
        return Err(CodeFault::Scale { encoding, scale });
    }
    let used = dims * encoding.code_bytes();
    let (codes, padding) = codes.split_at(used);
    if encoding.has_scale()
        && scale == 0.0
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

/// The position of the first wrong code. Checks runs without a branch per code, so that a full verification
/// keeps up with the disk.
fn first<T>(codes: &[T], is_wrong: impl Fn(&T) -> bool) -> Option<usize> {
    const RUN: usize = 256;
    let run = codes.chunks(RUN).position(|run| run.iter().fold(false, |any, code| any | is_wrong(code)))?;
    let start = run * RUN;
    codes[start..].iter().position(is_wrong).map(|position| start + position)
}
