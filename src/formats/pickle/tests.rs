use super::*;

const FLOATS: &[u8] = b"ctorch\nFloatStorage\n";
const REBUILD: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n";
const ORDERED: &[u8] = b"ccollections\nOrderedDict\n)R";

fn joined(pieces: &[&[u8]]) -> Vec<u8> {
    [&[0x80, 2], pieces.concat().as_slice(), b"."].concat()
}

/// What torch writes for a tensor of 12 floats, with these sizes.
fn tensor(elements: &[u8], offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let storage =
        [b"((X\x07\0\0\0storage".as_slice(), FLOATS, b"X\x01\0\0\x000X\x03\0\0\0cpu", elements, b"tQ"]
            .concat();
    joined(&[REBUILD, &storage, offset, shape, strides, &[0x89], ORDERED, b"tR"])
}

fn told(bytes: &[u8]) -> String {
    match Pickle::read(bytes) {
        Err(error) => error.what,
        Ok(pickle) => pickle.tensor().unwrap_err(),
    }
}

/// Catches a tensor that is misread, or refused.
#[test]
fn tensor_as_torch_writes_it() {
    let bytes = tensor(b"K\x0c", b"K\x02", b"K\x02K\x03\x86", b"K\x01K\x04\x86");
    let tensor = Pickle::read(&bytes).unwrap().tensor().unwrap();
    let expected = Tensor {
        number: Number::F32,
        storage: "0".into(),
        elements: 12,
        offset: 2,
        shape: vec![2, 3],
        strides: vec![1, 4],
    };
    assert_eq!(tensor, expected);
}

/// Catches numbers outside of the storage, by any of the sizes, and a few numbers that stand for many.
#[test]
fn tensor_out_of_its_storage() {
    let sizes = |elements: &[u8], offset: &[u8], shape: &[u8], strides: &[u8]| {
        told(&tensor(elements, offset, shape, strides))
    };
    let ok =
        (b"K\x0c".as_slice(), b"K\0".as_slice(), b"K\x03K\x04\x86".as_slice(), b"K\x04K\x01\x86".as_slice());
    assert!(Pickle::read(&tensor(ok.0, ok.1, ok.2, ok.3)).unwrap().tensor().is_ok());
    let max = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f".as_slice();
    assert!(sizes(b"K\x0b", ok.1, ok.2, ok.3).contains("more numbers than the 11"));
    assert!(sizes(ok.0, b"K\x01", ok.2, ok.3).contains("out of the 12 numbers"));
    assert!(sizes(ok.0, max, ok.2, ok.3).contains("out of the 12"));
    assert!(sizes(ok.0, ok.1, ok.2, b"K\x05K\x01\x86").contains("out of the 12"));
    assert!(sizes(ok.0, ok.1, ok.2, &[max, max, &[0x86]].concat()).contains("out of the 12"));
    assert!(sizes(ok.0, ok.1, &[max, max, &[0x86]].concat(), b"K\0K\0\x86").contains("more numbers"));
    assert!(sizes(ok.0, ok.1, b"K\x0d\x85", b"K\0\x85").contains("more numbers than the 12"));
    assert!(sizes(ok.0, ok.1, ok.2, b"K\x01\x85").contains("shape [3, 4] and strides [1]"));
    assert!(sizes(ok.0, b"J\xff\xff\xff\xff", ok.2, ok.3).contains("rebuilds no tensor"));
    assert!(sizes(ok.0, ok.1, b"J\xff\xff\xff\xffK\x04\x86", ok.3).contains("no sizes"));
    assert!(sizes(b"J\xff\xff\xff\xff", ok.1, ok.2, ok.3).contains("no storage"));
    // No number at all is nowhere.
    assert!(Pickle::read(&tensor(b"K\0", ok.1, b"K\0K\x04\x86", ok.3)).unwrap().tensor().is_ok());
}

/// Catches a parameter that is not taken for its tensor, and a call with other arguments that is.
#[test]
fn parameter_is_its_tensor() {
    let parameter = b"ctorch._utils\n_rebuild_parameter\n".as_slice();
    let whole = tensor(b"K\x0c", b"K\0", b"K\x03K\x04\x86", b"K\x04K\x01\x86");
    let inner = &whole[2..whole.len() - 1];
    let bytes = joined(&[parameter, inner, &[0x88], ORDERED, &[0x87], b"R"]);
    assert_eq!(Pickle::read(&bytes).unwrap().tensor(), Pickle::read(&whole).unwrap().tensor());
    assert!(
        told(&joined(&[parameter, b"K\x01", &[0x88], ORDERED, &[0x87], b"R"])).contains("rebuilds no tensor")
    );
    assert!(told(&joined(&[parameter, inner, &[0x85], b"R"])).contains("rebuilds no tensor"));
}

/// Catches a name that is imported, whatever it is, and an error that does not say it.
#[test]
fn imports_are_refused_by_name() {
    for (module, name) in
        [("os", "system"), ("torch", "LongStorage"), ("builtins", "eval"), ("torch._utils", "_rebuild")]
    {
        let call = format!("c{module}\n{name}\n(X\x02\0\0\0lstR");
        let error = Pickle::read(&joined(&[call.as_bytes()])).unwrap_err();
        assert!(error.what.contains(&format!("{module}.{name}")), "{error:?}");
        assert_eq!(error.offset, 2);
    }
    // What is known is not called with what else a pickle has.
    assert!(told(&joined(&[FLOATS, b")R"])).contains("rebuilds no tensor"));
    assert!(told(&joined(&[b"ccollections\nOrderedDict\n(K\x01tR"])).contains("rebuilds no tensor"));
}

/// Catches containers whose contents are lost count of, or taken from below a mark.
#[test]
fn containers_are_counted() {
    let is_empty = |pieces: &[&[u8]]| Pickle::read(&joined(pieces)).unwrap().is_empty_dictionary();
    assert!(is_empty(&[b"}q\0"]));
    assert!(is_empty(&[ORDERED]));
    assert!(!is_empty(&[b"}q\0(X\x01\0\0\0aNX\x01\0\0\0bG\0\0\0\0\0\0\0\0u"]));
    assert_eq!(told(&joined(&[b"}q\0X\x01\0\0\0a]q\x01s"])), "a dictionary of 1");
    assert_eq!(told(&joined(&[b"](NNh\0e".as_slice()])), "value 0 is asked for, and not noted before");
    assert_eq!(told(&joined(&[b"]q\0(NNh\0eNa"])), "a list of 4");
    assert_eq!(told(&joined(&[b"(NM\x01\x02J\0\0\0\0\x89t"])), "a tuple of 4");
    assert!(told(&joined(&[b"}(Nu"])).contains("items without"));
    assert!(told(&joined(&[b"N(Nu"])).contains("items without"));
    assert!(told(&joined(&[b"N(\x85t"])).contains("missing on the stack"));
    assert!(told(&joined(&[b"Nt"])).contains("a mark is missing"));
    assert!(told(&joined(&[b"NN"])).contains("leaves something over"));
    assert!(told(b"\x80\x02N.N").contains("leaves something over"));
    assert!(told(b"\x80\x04N.").contains("protocol 4"));
    assert!(told(b"\x80\x02\x8a\x09123456789.").contains("an integer of 9 bytes"));
    assert!(told(b"\x80\x02X\x02\0\0\0\xff\xff.").contains("no UTF-8"));
    assert!(told(b"\x80\x02i.").contains("opcode 0x69"));
}

/// Catches a pickle that is cut off and read all the same, and a panic at any byte.
#[test]
fn pickles_cut_off_are_refused() {
    let whole = tensor(b"K\x0c", b"K\0", b"K\x03K\x04\x86", b"K\x04K\x01\x86");
    for length in 0..whole.len() {
        assert!(Pickle::read(&whole[..length]).is_err(), "{length}");
    }
    for at in 0..whole.len() {
        for byte in 0..=u8::MAX {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            // Some are other sound pickles.
            if let Ok(pickle) = Pickle::read(&bytes) {
                let _ = pickle.tensor();
            }
        }
    }
}

/// Catches nesting that ends the stack, and references that multiply what they mean.
#[test]
fn nesting_costs_no_stack() {
    let deep = joined(&[b"N", &[0x85; 500_000]]);
    assert_eq!(told(&deep), "a tuple of 1");
    // Each tuple twice in the next: 2^200 items, if they were copied.
    let step: Vec<u8> = (0..200u8).flat_map(|at| [b'q', at, b'h', at, 0x86]).collect();
    assert_eq!(told(&joined(&[b"N", &step])), "a tuple of 2");
    assert!(told(&vec![b'N'; LONGEST + 1]).contains("at most"));
}
