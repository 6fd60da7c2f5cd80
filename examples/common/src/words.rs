//! Words and marks.
//!
//! A token is a run of letters and digits (with hyphens and apostrophes inside), or one other
//! visible character. Case is kept. `examples/data/make_data.py` splits the same way.

/// Splits a text into its tokens, in order.
pub fn split(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((start, first)) = chars.next() {
        if first.is_whitespace() {
            continue;
        }
        let mut end = start + first.len_utf8();
        if first.is_alphanumeric() {
            while let Some(&(at, next)) = chars.peek() {
                let after = text[at + next.len_utf8()..].chars().next();
                let inside = matches!(next, '\'' | '’' | '-') && after.is_some_and(char::is_alphanumeric);
                if !next.is_alphanumeric() && !inside {
                    break;
                }
                end = at + next.len_utf8();
                chars.next();
            }
        }
        tokens.push(&text[start..end]);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    // Would catch a split that cuts "N'Djamena", glues marks to words, or loses a trailing hyphen.
    #[test]
    fn split_words_and_marks() {
        assert_eq!(
            split("Howdy! N'Djamena, a two-masted ship-"),
            ["Howdy", "!", "N'Djamena", ",", "a", "two-masted", "ship", "-"]
        );
        assert_eq!(split("  "), Vec::<&str>::new());
        assert_eq!(split("Köln's É'"), ["Köln's", "É", "'"]);
    }
}
