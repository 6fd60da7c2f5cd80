//! Keys and values of the manifest, of any bytes: an error, or a record that encodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some((&kind, bytes)) = input.split_first() {
        gradix::fuzzing::manifest_record(kind, bytes);
    }
});
