//! A pickle of any bytes, as in a file of torch: read, and never executed. What is a tensor lies in its storage.
#![no_main]

use gradix::fuzzing::tensor_of_pickle;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some((last, length)) = tensor_of_pickle(input) {
        assert!(last < length);
    }
});
