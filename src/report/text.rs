//! Untrusted text: what is shown of it, and how it stands within the file.

use std::fmt::Write as _;

/// The text as it is shown. Control characters other than tab and line feed become their symbols (U+2400 and above);
/// overrides of the writing direction, which would reorder what stands beside them, and line separators become their
/// numbers.
pub(super) fn shown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    // A line ends with a line feed, or with a carriage return before one.
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' if characters.peek() == Some(&'\n') => {}
            '\t' | '\n' => safe.push(character),
            '\0'..='\x1f' => safe.push(char::from_u32(0x2400 + character as u32).unwrap_or('\u{fffd}')),
            '\x7f' => safe.push('\u{2421}'),
            '\u{80}'..='\u{9f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}' => {
                // Writing to a String cannot fail.
                let _ = write!(safe, "[U+{:04X}]", character as u32);
            }
            _ => safe.push(character),
        }
    }
    safe
}

/// Bytes that should be UTF-8, as they are shown: what is not becomes `\x` and two digits for each byte.
pub(super) fn shown_bytes(bytes: &[u8]) -> String {
    let mut safe = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        safe.push_str(&shown(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(safe, "\\x{byte:02x}");
        }
    }
    safe
}

/// JSON that cannot end the `<script>` it stands in, nor begin a comment there. These characters stand in JSON within
/// strings only.
pub(super) fn json_in_script(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(safe, "\\u{:04x}", character as u32);
            }
            _ => safe.push(character),
        }
    }
    safe
}

/// Text as the content of an element.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
