//! Entry points to private code for the fuzz targets. Compiled only with `--cfg fuzzing`.

/// See [`crate::manifest::fuzz_record`].
pub fn manifest_record(kind: u8, bytes: &[u8]) {
    crate::manifest::fuzz_record(kind, bytes);
}
