//! The `Kronecker` sketcher on a device: `(P_in a) ⊗ (P_out g)` from the factors, without the matrix.

use std::sync::{Arc, Mutex, PoisonError};

use super::BurnError;
use super::factors::{Factors, Parameter, Use, times};
use crate::sketch::{Projections, Side, Sketch, Sketcher};
use ::burn::Tensor;
use ::burn::tensor::{DType, Device, TensorData};

/// The maximum number of entries of a sketcher's projections that stay on devices (128 MiB of f32).
const CACHED_ENTRIES: usize = 1 << 25;

/// The sketches of all rows. Each use of a parameter is projected on both sides, `[rows, time, p_in]` and
/// `[rows, time, p_out]`, and one product over time makes `[rows, p_in, p_out]`; all values are read at once.
pub(super) fn sketch_rows(sketcher: &Sketcher, factors: &Factors) -> Result<Vec<Sketch>, BurnError> {
    let rows = factors.rows();
    let mut sums = Sums::new(sketcher);
    for parameter in factors.selected() {
        let Parameter { path, shape, .. } = parameter;
        let Projections { block, inputs, outputs, .. } = projections(sketcher, path, shape)?;
        for used in factors.uses(parameter, 0, rows) {
            let Use::Matrix(left, right) = used else { return Err(not_a_matrix(path, shape)) };
            let right = right.cast(DType::F32);
            let device = right.device();
            let left = left.wide().times(on_device(sketcher, &inputs, &device));
            let right = times(right, on_device(sketcher, &outputs, &device));
            sums.add(block, left.swap_dims(1, 2).matmul(right));
        }
    }
    sums.finish(rows)
}

fn projections(sketcher: &Sketcher, path: &str, shape: &[usize]) -> Result<Projections, BurnError> {
    let &[n_in, n_out] = shape else { return Err(not_a_matrix(path, shape)) };
    Ok(sketcher.projections(path, n_in, n_out)?)
}

fn not_a_matrix(path: &str, shape: &[usize]) -> BurnError {
    BurnError::NotAMatrix { parameter: path.to_owned(), shape: shape.to_vec() }
}

/// The sums of each block on the device: `[rows, p_in, p_out]`.
pub(super) struct Sums<'a> {
    sketcher: &'a Sketcher,
    blocks: Vec<Option<Tensor<3>>>,
}

impl<'a> Sums<'a> {
    pub(super) fn new(sketcher: &'a Sketcher) -> Self {
        Self { sketcher, blocks: vec![None; sketcher.spec().blocks().len()] }
    }

    /// Adds the gradients `[rows, elements]` of one parameter.
    pub(super) fn add_matrices(
        &mut self,
        path: &str,
        shape: &[usize],
        gradients: Tensor<2>,
    ) -> Result<(), BurnError> {
        let part = self.project(path, shape, gradients)?;
        self.add_parts(vec![part]);
        Ok(())
    }

    /// The projections of the gradients `[rows, elements]` of one parameter, with the ordinal of its block.
    pub(super) fn project(
        &self,
        path: &str,
        shape: &[usize],
        gradients: Tensor<2>,
    ) -> Result<(usize, Tensor<3>), BurnError> {
        let Projections { block, inputs, outputs, .. } = projections(self.sketcher, path, shape)?;
        let device = gradients.device();
        let [rows, _] = gradients.dims();
        let gradients = gradients.cast(DType::F32).reshape([rows, inputs.columns(), outputs.columns()]);
        let inputs = on_device(self.sketcher, &inputs, &device).transpose().unsqueeze::<3>();
        Ok((block, times(inputs.matmul(gradients), on_device(self.sketcher, &outputs, &device))))
    }

    /// Adds what was projected of one parameter, run of rows after run of rows.
    pub(super) fn add_parts(&mut self, parts: Vec<(usize, Tensor<3>)>) {
        let Some(&(block, _)) = parts.first() else { return };
        self.add(block, Tensor::cat(parts.into_iter().map(|(_, part)| part).collect(), 0));
    }

    fn add(&mut self, block: usize, part: Tensor<3>) {
        let sum = &mut self.blocks[block];
        *sum = Some(match sum.take() {
            Some(sum) => sum + part,
            None => part,
        });
    }

    /// Reads all rows in one transfer.
    pub(super) fn finish(self, rows: usize) -> Result<Vec<Sketch>, BurnError> {
        let spec = Arc::new(self.sketcher.spec().clone());
        let Some(device) = self.blocks.iter().flatten().next().map(Tensor::device) else {
            return Ok(Vec::new());
        };
        let blocks = spec.blocks().iter().zip(self.blocks).map(|(block, sum)| {
            let dims = [rows, block.dims as usize];
            sum.map_or_else(|| Tensor::zeros(dims, (&device, DType::F32)), |sum| sum.reshape(dims))
        });
        let values = Tensor::<2>::cat(blocks.collect(), 1)
            .try_into_vec_as::<f32>()
            .map_err(|source| BurnError::Read { tensor: "sketches".into(), source })?;
        let sketches = values.chunks_exact(spec.dims()).enumerate();
        sketches
            .map(|(example, values)| {
                Sketch::dense(Arc::clone(&spec), values.to_vec())
                    .map_err(|source| BurnError::Example { example, source })
            })
            .collect()
    }
}

/// A sketcher's projections that are on a device, the last used last. Its clones share them.
#[derive(Default)]
struct OnDevices(Mutex<Vec<Kept>>);

struct Kept {
    side: Side,
    device: Device,
    /// `[n, p]`.
    matrix: Tensor<2>,
}

/// The transposed matrix of a side, `[n, p]`, from those that are on the device already, if it is one.
///
/// A side is all that determines its matrix, so models share them. The least recently used leave when they are too
/// many.
fn on_device(sketcher: &Sketcher, side: &Side, device: &Device) -> Tensor<2> {
    let make = || {
        let data = TensorData::new(side.matrix(), [side.rows(), side.columns()]);
        Tensor::<2>::from_data(data, (device, DType::F32)).transpose()
    };
    let Some(OnDevices(all)) = sketcher.kept() else { return make() };
    // A poisoned lock is safe to use: nothing here panics between two changes.
    let lock = || all.lock().unwrap_or_else(PoisonError::into_inner);
    {
        let mut kept = lock();
        if let Some(at) = kept.iter().position(|kept| kept.side == *side && kept.device == *device) {
            let found = kept.remove(at);
            let matrix = found.matrix.clone();
            kept.push(found);
            return matrix;
        }
    }
    let matrix = make();
    let mut kept = lock();
    kept.push(Kept { side: side.clone(), device: device.clone(), matrix: matrix.clone() });
    let entries =
        |kept: &[Kept]| kept.iter().map(|kept| kept.side.rows() * kept.side.columns()).sum::<usize>();
    while entries(&kept) > CACHED_ENTRIES {
        kept.remove(0);
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sketch::SketchSpec;

    /// Catches projections that are made anew for each batch or each device thread, and those that outlive their
    /// sketcher.
    #[test]
    fn clones_of_a_sketcher_share_its_projections() {
        let sketcher = || Sketcher::new(SketchSpec::kronecker(7, [("a", 2, 3)])).unwrap();
        let (one, other, device) = (sketcher(), sketcher(), Device::flex());
        for sketcher in [&one, &one.clone(), &one.under("a")] {
            let found = sketcher.projections("a.weight", 8, 9).unwrap();
            let matrix = on_device(sketcher, &found.inputs, &device);
            let values = matrix.transpose().try_into_vec_as::<f32>().unwrap();
            assert_eq!(values, found.inputs.matrix());
        }
        let kept = |sketcher: &Sketcher| {
            let OnDevices(kept) = sketcher.kept().unwrap();
            kept.lock().unwrap().iter().map(|kept| kept.side.clone()).collect::<Vec<_>>()
        };
        let sides = ["a.weight", "a.a.weight"].map(|name| one.projections(name, 8, 9).unwrap().inputs);
        assert_eq!((kept(&one), kept(&other)), (sides.into(), vec![]));
    }
}
