//! The `RapidGrad` fold on a device of CubeCL: wgpu or CUDA.
//!
//! A gradient is read once where it lies. Only the sums of the batch are kept, on the device, and they come to
//! the host in one transfer. `format-spec/sketch.md` ("The order on a device") fixes each sum.
//!
//! - `kernel`: the two kernels: sums of tiles by runs, and sums of those sums;
//! - `check`: known answers, before a device's first sketch counts;
//! - here: the sums of a batch, the launches, and what is read at the end.

mod check;
mod kernel;

#[cfg(test)]
mod tests;

pub use check::check_device;

use super::BurnError;
use crate::sketch::{Gather, Sketch, SketchError, Sketcher};
use ::burn::Tensor;
use ::burn::tensor::{DType, FloatDType};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{Cube, CubeDevice, kernel as cube_kernel};
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;
use kernel::{PlaceLaunch, RECORD, RUN, TILE, TargetLaunch};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A launch's indices are `u32`.
const MAX_INDEX: usize = u32::MAX as usize - TILE as usize;

/// The sums of a batch under construction, on the device of its gradients.
pub(super) struct DeviceFold {
    sketcher: Sketcher,
    rows: usize,
    dims: usize,
    /// `[rows, dims]`: bases of blocks, block after block, with 16 lanes each.
    sums: CubeTensor,
    /// `[rows, 4]` of `u32`: the ordinal of the first parameter that is not finite, and the first element that is
    /// NaN, plus infinity, minus infinity. All ones: none.
    bad: CubeTensor,
    /// The whole names of the parameters that were added, in order.
    parameters: Vec<String>,
    /// The maximum number of elements of a launch; tests make it small.
    most: usize,
}

/// CubeCL panics where its device cannot be used any more. What `run` was changing must be dropped then.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, BurnError>) -> Result<T, BurnError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        let said = payload.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| payload.downcast_ref::<&str>().copied());
        Err(BurnError::Device { reason: said.unwrap_or("it panicked").to_owned() })
    })
}

/// The tensor as CubeCL has it; `None` if its device is not one of CubeCL's.
pub(super) fn primitive<const D: usize>(tensor: Tensor<D>) -> Option<CubeTensor> {
    tensor.try_into_primitive::<Cube>().ok()
}

impl DeviceFold {
    /// No sums yet, for a batch of `rows` examples, on the device of `like`, which is checked at its first use.
    /// `None` if that device has no kernels.
    pub(super) fn start(
        sketcher: &Sketcher,
        rows: usize,
        like: &Tensor<2>,
    ) -> Result<Option<Self>, BurnError> {
        let Some(tensor) = primitive(like.clone()) else { return Ok(None) };
        if rows == 0 {
            return Ok(None);
        }
        check::check(&like.device(), &tensor.device)?;
        Self::unchecked(sketcher, rows, like).map(Some)
    }

    fn unchecked(sketcher: &Sketcher, rows: usize, like: &Tensor<2>) -> Result<Self, BurnError> {
        let dims = sketcher.spec().dims();
        if rows.checked_mul(dims).is_none_or(|numbers| numbers > MAX_INDEX) {
            let elements = rows.saturating_mul(dims);
            return Err(BurnError::DeviceLimit { what: "the sums of a batch".into(), elements });
        }
        let zeros = Tensor::<1>::zeros([rows * dims], (&like.device(), DType::F32));
        let Some(sums) = primitive(zeros) else {
            return Err(BurnError::Device { reason: "it is not one of CubeCL's".into() });
        };
        let none = vec![u32::MAX; rows * RECORD as usize];
        let handle = sums.client.create_from_slice(u32::as_bytes(&none));
        let bad = CubeTensor::new_contiguous(
            sums.client.clone(),
            sums.device.clone(),
            [none.len()].into(),
            handle,
            DType::U32,
        );
        let (sketcher, parameters) = (sketcher.clone(), Vec::new());
        Ok(Self { sketcher, rows, dims, sums, bad, parameters, most: MAX_INDEX })
    }

    /// Adds the gradients `[examples, elements]` of one parameter, from example `first`. The calls for one
    /// parameter must follow each other.
    pub(super) fn add(
        &mut self,
        parameter: &str,
        first: usize,
        gradients: &Tensor<2>,
    ) -> Result<(), BurnError> {
        let [rows, elements] = gradients.dims();
        let (name, start, gather) = self.sketcher.gather(parameter, elements)?;
        if rows == 0 || elements == 0 {
            return Ok(());
        }
        if elements > self.most {
            return Err(BurnError::DeviceLimit { what: name, elements });
        }
        if self.parameters.last() != Some(&name) {
            self.parameters.push(name);
        }
        let most = self.most / elements;
        for from in (0..rows).step_by(most) {
            let count = most.min(rows - from);
            let part =
                if count == rows { gradients.clone() } else { gradients.clone().narrow(0, from, count) };
            self.add_rows(start, &gather, first + from, part)?;
        }
        Ok(())
    }

    #[expect(clippy::cast_possible_truncation, reason = "indices are at most MAX_INDEX")]
    fn add_rows(
        &mut self,
        start: usize,
        gather: &Gather,
        first: usize,
        gradients: Tensor<2>,
    ) -> Result<(), BurnError> {
        let [rows, elements] = gradients.dims();
        let other =
            || BurnError::OtherDevice { parameter: self.parameters.last().cloned().unwrap_or_default() };
        let Some(input) = primitive(gradients.clone()) else { return Err(other()) };
        if input.device != self.sums.device {
            return Err(other());
        }
        let (input, dtype) = match input.dtype {
            DType::F32 | DType::Flex32 => (input, f32::elem_type_native()),
            DType::F16 => (input, half::f16::elem_type_native()),
            DType::BF16 => (input, half::bf16::elem_type_native()),
            _ => {
                let cast = primitive(gradients.cast(FloatDType::F32));
                (cast.ok_or_else(other)?, f32::elem_type_native())
            }
        };
        let input = cube_kernel::into_contiguous(input);
        let target = || {
            TargetLaunch::new(
                first as u32,
                self.dims as u32,
                start as u32,
                gather.base_step,
                gather.base_first,
            )
        };
        let mut left = gather.turns_of_base;
        let mut run = left.min(RUN);
        let mut runs = gather.turns / run;
        left /= run;
        let place = PlaceLaunch::new(
            gather.rounds[0].0,
            gather.rounds[0].1,
            gather.rounds[1].0,
            gather.rounds[1].1,
            gather.rounds[2].0,
            gather.rounds[2].1,
            gather.rounds[3].0,
            gather.rounds[3].1,
            gather.shift,
            gather.mask,
            gather.turned,
            gather.mix_keys.0,
            gather.mix_keys.1,
            gather.tiles,
            elements as u32,
            elements as u32,
            rows as u32,
            runs,
            run,
            self.parameters.len() as u32 - 1,
        );
        let client = self.sums.client.clone();
        let bad = self.bad.clone().into_buffer_arg();
        let mut sums = self.output(left == 1, rows, runs);
        let units = rows * runs as usize;
        let (count, dim) = shape(&client, units);
        let output = sums.clone().into_buffer_arg();
        // SAFETY: the kernel reads elements below `rows * elements` of `input`, and writes below `rows * runs * 16`
        // of partial sums or within rows `first..first + rows` of `self.sums`; units past the end stop.
        unsafe {
            kernel::sum_tiles::launch_unchecked(
                &client,
                count,
                dim,
                // A row of whole vectors starts at a whole vector.
                if elements.is_multiple_of(4) { 4 } else { 1 },
                input.into_buffer_arg(),
                output,
                bad,
                place,
                target(),
                left == 1,
                dtype,
            );
        }
        while left > 1 {
            run = left.min(RUN);
            runs /= run;
            left /= run;
            let output = self.output(left == 1, rows, runs);
            let (count, dim) = shape(&client, rows * runs as usize * TILE as usize);
            // SAFETY: `sums` has `rows * runs * run * 16` numbers; the rest is as above.
            unsafe {
                kernel::sum_sums::launch_unchecked(
                    &client,
                    count,
                    dim,
                    sums.into_buffer_arg(),
                    output.clone().into_buffer_arg(),
                    rows as u32,
                    runs,
                    run,
                    target(),
                    left == 1,
                );
            }
            sums = output;
        }
        Ok(())
    }

    /// Where sums go: to those of the batch if they are whole, else to a new tensor.
    fn output(&self, whole: bool, rows: usize, runs: u32) -> CubeTensor {
        if whole {
            return self.sums.clone();
        }
        let numbers = rows * runs as usize * TILE as usize;
        let handle = self.sums.client.empty(numbers * size_of::<f32>());
        CubeTensor::new_contiguous(
            self.sums.client.clone(),
            self.sums.device.clone(),
            [numbers].into(),
            handle,
            DType::F32,
        )
    }

    /// Reads the sums. The sketches are in the order of the batch; the first error of a parameter, and of it
    /// that of the first example, is returned.
    pub(super) fn finish(self) -> Result<Vec<Sketch>, BurnError> {
        let handles = vec![self.sums.handle.clone(), self.bad.handle.clone()];
        let read = self
            .sums
            .client
            .read(handles)
            .map_err(|error| BurnError::Device { reason: error.to_string() })?;
        let [sums, bad] = &read[..] else {
            return Err(BurnError::Device { reason: format!("{} buffers were read, not 2", read.len()) });
        };
        let (sums, bad) = (f32::from_bytes(sums), u32::from_bytes(bad));
        let worst =
            bad.chunks_exact(RECORD as usize).take(self.rows).enumerate().min_by_key(|(_, record)| record[0]);
        if let Some((example, &[ordinal, nan, plus, minus])) = worst
            && let Some(parameter) = self.parameters.get(ordinal as usize)
        {
            let kinds = [(nan, f32::NAN), (plus, f32::INFINITY), (minus, f32::NEG_INFINITY)];
            let (element, value) =
                kinds.into_iter().min_by_key(|(element, _)| *element).unwrap_or((0, f32::NAN));
            let element = element as usize;
            let source = SketchError::NotFinite { parameter: parameter.clone(), element, value };
            return Err(BurnError::Example { example, source });
        }
        let rows = sums.chunks_exact(self.dims).take(self.rows).enumerate();
        rows.map(|(example, row)| {
            self.sketcher.finish_row(row).map_err(|source| BurnError::Example { example, source })
        })
        .collect()
    }
}

/// The shape of a launch of so many units.
fn shape(client: &cubecl::client::Client, units: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(client, units);
    (calculate_cube_count_elemwise(client, units, dim), dim)
}
