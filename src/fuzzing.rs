//! Entry points to private code for the fuzz targets. Compiled only with `--cfg fuzzing`.

/// See [`crate::manifest::fuzz_record`].
pub fn manifest_record(kind: u8, bytes: &[u8]) {
    crate::manifest::fuzz_record(kind, bytes);
}

/// See [`crate::artifact::fuzz::sound`].
pub fn sound_artifact(sums: bool) -> Option<Vec<u8>> {
    crate::artifact::fuzz::sound(sums)
}

/// See [`crate::artifact::fuzz::check`].
pub fn check_artifact(bytes: &[u8]) -> bool {
    crate::artifact::fuzz::check(bytes)
}
