//! What a package's YAML files say, as words of a digest.

use std::path::Path;

use serde_json::{Map, Value};

use super::super::FormatError;
use super::super::input::unsupported;
use super::files;

/// The mapping in a YAML file; none if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<Map<String, Value>>, FormatError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = files::read_text(path)?;
    match serde_saphyr::from_str(&text) {
        Ok(Value::Object(map)) => Ok(Some(map)),
        Ok(_) => Err(unsupported(path, "a YAML file that is not a mapping")),
        Err(error) => Err(unsupported(path, format!("not valid YAML: {}", first_line(&error)))),
    }
}

fn first_line(error: &serde_saphyr::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// `key=value` for each of `keys` that is there, with values as JSON.
pub(super) fn words<'a>(
    map: &'a Map<String, Value>,
    keys: impl IntoIterator<Item = &'a str>,
) -> impl Iterator<Item = String> {
    keys.into_iter().filter_map(|key| map.get(key).map(|value| format!("{key}={value}")))
}
