//! Ids on a command line, in text and in JSON: they are bytes, and usually UTF-8.

use std::fmt::Write as _;
use std::str::FromStr;

use serde_json::Value;

/// An id as people write it: text, with `\xNN` for a byte that cannot be written, and `\\` for a backslash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id(pub Vec<u8>);

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut id = Vec::with_capacity(text.len());
        let mut parts = text.split('\\');
        id.extend(parts.next().unwrap_or_default().bytes());
        while let Some(part) = parts.next() {
            if part.is_empty() {
                // Two in a row stand for one, and what follows is text.
                let Some(next) = parts.next() else {
                    return Err(format!("{text:?} ends in a single backslash: write \\\\ for a backslash"));
                };
                id.push(b'\\');
                id.extend(next.bytes());
                continue;
            }
            let byte = part.strip_prefix('x').and_then(|rest| rest.get(..2));
            let Some(byte) = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
                return Err(format!("\\{part}: write \\\\ for a backslash, or \\xNN for a byte"));
            };
            id.push(byte);
            id.extend(part.bytes().skip(3));
        }
        Ok(Self(id))
    }
}

/// An id as [`Id`] takes it: on one line, whatever its bytes are.
pub fn shown(id: &[u8]) -> String {
    let mut shown = String::with_capacity(id.len());
    for chunk in id.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => shown.push_str("\\\\"),
                letter if letter.is_control() => {
                    let mut bytes = [0; 4];
                    escape(letter.encode_utf8(&mut bytes).as_bytes(), &mut shown);
                }
                letter => shown.push(letter),
            }
        }
        escape(chunk.invalid(), &mut shown);
    }
    shown
}

fn escape(bytes: &[u8], shown: &mut String) {
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(shown, "\\x{byte:02x}");
    }
}

/// Bytes as the library serialises them: text if they are UTF-8, otherwise a list of numbers.
pub fn json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches an id that is shown and cannot be given back, or stands for another one.
    #[test]
    fn shown_ids_are_read_back() {
        for id in [&b"page 7"[..], b"a\\xff", b"\xff\x00a", b"two\nlines", "\u{85}é".as_bytes(), b"\\\\", b""]
        {
            assert_eq!(shown(id).parse(), Ok(Id(id.to_owned())), "{}", shown(id));
        }
        assert_eq!(shown(b"C:\\x\xff\n"), r"C:\\x\xff\x0a");
    }

    /// Catches a backslash that is taken for itself where it was the begin of something else.
    #[test]
    fn backslashes_that_say_nothing_are_errors() {
        for text in [r"\n", r"\x", r"\x4", r"\xg0", r"a\", r"\\\", r"\xé"] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
