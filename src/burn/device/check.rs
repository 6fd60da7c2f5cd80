//! Whether a device can be trusted: known answers, once for each device of a process.
//!
//! Some drivers compute wrong results without an error, and some failures of a runtime show only as memory
//! that no kernel has written.

use super::{CubeDevice, DeviceFold, guarded, primitive};
use crate::burn::BurnError;
use crate::sketch::{Sketch, SketchError, SketchSpec, Sketcher};
use ::burn::Tensor;
use ::burn::tensor::{Device, TensorData};
use std::sync::{Mutex, PoisonError};

/// The devices that have passed. Of the process, as the devices themselves are: CubeCL has one runtime for each. It
/// changes no result, only whether the check is made again.
static PASSED: Mutex<Vec<CubeDevice>> = Mutex::new(Vec::new());

/// Parameters of the check, with their lengths: many tiles of each base, in whole vectors, and a few tiles of
/// which the last is not full.
const PARAMETERS: [(&str, usize); 2] = [("long", 1 << 13), ("short", 37)];

const ROWS: usize = 2;

/// Checks that a device is there and that its kernels fold right, as the first sketch on it does.
///
/// The kernels sum small whole numbers, whose sums are exact in every order, and must find a NaN. A device
/// that has passed is not checked again in this process. A device without kernels here (flex) passes. What
/// burn itself computes on the device is not checked.
///
/// With the feature `wgpu` or `cuda`.
///
/// ```
/// # fn main() -> Result<(), gradix::burn::BurnError> {
/// gradix::burn::check_device(&burn::tensor::Device::flex())
/// # }
/// ```
///
/// # Errors
/// [`BurnError::DeviceCheck`] says what is missing, or which answer is wrong.
pub fn check_device(device: &Device) -> Result<(), BurnError> {
    let device = &device.clone().inner();
    let wrong = |failed: String| BurnError::DeviceCheck { device: format!("{device:?}"), failed };
    missing(device).map_or(Ok(()), |missing| Err(wrong(missing)))?;
    let cube = guarded(|| Ok(primitive(Tensor::<1>::zeros([1], device)).map(|tensor| tensor.device)))
        .map_err(|error| wrong(format!("it cannot be used: {error}")))?;
    cube.map_or(Ok(()), |cube| check(device, &cube))
}

/// Checks the device if it has not passed yet.
pub(super) fn check(device: &Device, cube: &CubeDevice) -> Result<(), BurnError> {
    // Held during the check, so that of several threads one checks. A poisoned lock holds whole entries.
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    if !passed.contains(cube) {
        known_answers(|sketcher, tensors| guarded(|| folded(sketcher, tensors, device)))
            .map_err(|failed| BurnError::DeviceCheck { device: format!("{cube:?}"), failed })?;
        passed.push(cube.clone());
    }
    Ok(())
}

/// What a CUDA device lacks. Its runtime would panic in another thread.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn missing(device: &Device) -> Option<String> {
    use ::burn::backend::DispatchDevice;
    let DispatchDevice::Cube(CubeDevice::Cuda(cuda)) = device.as_dispatch() else { return None };
    // Without a driver the machine has none.
    CubeDevice::cuda(cuda.index).err().map(|error| error.to_string())
}

#[cfg(not(any(feature = "wgpu", feature = "cuda")))]
fn missing(_: &Device) -> Option<String> {
    None
}

/// Folds two batches by `fold` and on the host, and says where they differ.
pub(super) fn known_answers(
    fold: impl Fn(&Sketcher, &[(&str, Vec<f32>)]) -> Result<Vec<Sketch>, BurnError>,
) -> Result<(), String> {
    let sketcher =
        Sketcher::new(SketchSpec::rapid_grad(0x6772_6164, 64)).map_err(|error| error.to_string())?;
    let mut tensors = PARAMETERS.map(|(name, length)| (name, whole_numbers(ROWS * length)));
    let sketches =
        fold(&sketcher, &tensors).map_err(|error| format!("the fold of whole numbers: {error}"))?;
    if sketches.len() != ROWS {
        return Err(format!("the fold of whole numbers has {} rows, not {ROWS}", sketches.len()));
    }
    for (row, sketch) in sketches.iter().enumerate() {
        let parts = tensors.iter().map(|(name, values)| {
            let length = values.len() / ROWS;
            (*name, &values[row * length..][..length])
        });
        let expected = sketcher.sketch(parts).map_err(|error| error.to_string())?;
        let mut both = expected.values().iter().zip(sketch.values()).enumerate();
        if let Some((bucket, (expected, given))) = both.find(|(_, (expected, given))| expected != given) {
            return Err(format!("the fold of whole numbers, bucket {bucket}: {given}, not {expected}"));
        }
    }
    let (name, values) = &mut tensors[1];
    let (length, element) = (values.len() / ROWS, 35);
    values[length + element] = f32::NAN;
    let name = *name;
    match fold(&sketcher, &tensors) {
        Err(BurnError::Example {
            example: 1,
            source: SketchError::NotFinite { parameter, element: given, value },
        }) if parameter == name && given == element && value.is_nan() => Ok(()),
        Err(other) => Err(format!("a NaN at element {element} of {name:?}, example 1: {other}")),
        Ok(_) => Err(format!("a NaN at element {element} of {name:?}, example 1: it was not found")),
    }
}

/// Numbers from -8 to 8, not 0: no sum of a bucket of the check comes near 2^24.
fn whole_numbers(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let magnitude = f32::from((state >> 24) as u8 % 8 + 1);
            if state >> 23 & 1 == 1 { -magnitude } else { magnitude }
        })
        .collect()
}

/// The batch's sketches on the device.
fn folded(
    sketcher: &Sketcher,
    tensors: &[(&str, Vec<f32>)],
    device: &Device,
) -> Result<Vec<Sketch>, BurnError> {
    let mut fold: Option<DeviceFold> = None;
    for (name, values) in tensors {
        let data = TensorData::new(values.clone(), [ROWS, values.len() / ROWS]);
        let tensor = Tensor::<2>::from_data(data, device);
        let fold = match &mut fold {
            Some(fold) => fold,
            none => none.insert(DeviceFold::unchecked(sketcher, ROWS, &tensor)?),
        };
        fold.add(name, 0, &tensor)?;
    }
    fold.map_or(Ok(Vec::new()), DeviceFold::finish)
}
