//! Seeds in the schema's JSON: strings of decimal digits, because many programs read a JSON number as an
//! `f64` and lose digits above 2^53. `format-spec/index-file.md` specifies the form.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(seed: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(seed)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_str(Digits)
}

struct Digits;

impl Visitor<'_> for Digits {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a seed: a string of decimal digits without leading zeros, such as \"7\", at most 2^64 - 1",
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        // `parse` accepts a plus sign and leading zeros; comparing with the canonical text excludes them.
        let seed = text.parse().ok().filter(|seed: &u64| seed.to_string() == text);
        seed.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Seed(#[serde(with = "super")] u64);

    /// Catches a seed that is written as a number, which others round, or two texts for one seed, which
    /// would give one spec two digests.
    #[test]
    fn seed_has_one_text() {
        for (seed, text) in [(0, r#""0""#), (7, r#""7""#), (u64::MAX, r#""18446744073709551615""#)] {
            assert_eq!(serde_json::to_string(&Seed(seed)).unwrap(), text);
            assert_eq!(serde_json::from_str::<Seed>(text).unwrap(), Seed(seed));
        }
        let refused = [
            "7",
            "7.0",
            "null",
            "true",
            r#""""#,
            r#""00""#,
            r#""07""#,
            r#""+7""#,
            r#""-7""#,
            r#""-0""#,
            r#"" 7""#,
            r#""7 ""#,
            r#""7\n""#,
            r#""1_000""#,
            r#""1e3""#,
            r#""7.0""#,
            r#""0x7""#,
            r#""٧""#,
            r#""18446744073709551616""#,
            r#""99999999999999999999999""#,
        ];
        for text in refused {
            let error = serde_json::from_str::<Seed>(text).unwrap_err().to_string();
            assert!(error.contains("a seed: a string of decimal digits"), "{text}: {error}");
        }
    }
}
