//! The sums of a batch of sketches, on the host or on the device of the gradients.

use super::BurnError;
#[cfg(feature = "cubecl")]
use super::device::{DeviceFold, guarded};
use crate::sketch::{Fold, Sketch, SketchError, Sketcher};
use ::burn::Tensor;
use rayon::prelude::*;

/// The sketches of a batch under construction. The first gradient decides where they are summed.
pub(super) struct Folds<'a> {
    sketcher: &'a Sketcher,
    rows: usize,
    sums: Option<Sums>,
}

enum Sums {
    Host(Vec<Fold>),
    #[cfg(feature = "cubecl")]
    Device(Box<DeviceFold>),
}

impl<'a> Folds<'a> {
    pub(super) fn start(sketcher: &'a Sketcher, rows: usize) -> Self {
        Self { sketcher, rows, sums: None }
    }

    /// Adds the gradients `[examples, elements]` of one parameter, from example `first`. All examples of a
    /// parameter are added before the next parameter. After an error the sums are incomplete.
    pub(super) fn add(&mut self, path: &str, first: usize, gradients: Tensor<2>) -> Result<(), BurnError> {
        if self.sums.is_none() {
            self.sums = Some(Sums::start(self.sketcher, self.rows, &gradients)?);
        }
        match &mut self.sums {
            Some(Sums::Host(folds)) => add(&mut folds[first..], path, first, gradients),
            #[cfg(feature = "cubecl")]
            Some(Sums::Device(fold)) => guarded(|| fold.add(path, first, &gradients)),
            None => Ok(()),
        }
    }

    /// The sketches, in the order of the batch.
    pub(super) fn finish(self) -> Result<Vec<Sketch>, BurnError> {
        let folds = match self.sums {
            Some(Sums::Host(folds)) => folds,
            #[cfg(feature = "cubecl")]
            Some(Sums::Device(fold)) => return guarded(|| fold.finish()),
            None => (0..self.rows).map(|_| self.sketcher.start()).collect(),
        };
        let finished = folds.into_iter().enumerate();
        finished.map(|(row, fold)| fold.finish().map_err(|source| named(row, source))).collect()
    }
}

impl Sums {
    #[cfg_attr(
        not(feature = "cubecl"),
        expect(clippy::unnecessary_wraps, reason = "a device may not be usable")
    )]
    fn start(sketcher: &Sketcher, rows: usize, first: &Tensor<2>) -> Result<Self, BurnError> {
        #[cfg(feature = "cubecl")]
        if sketcher.sums_on_devices()
            && let Some(fold) = guarded(|| DeviceFold::start(sketcher, rows, first))?
        {
            return Ok(Self::Device(Box::new(fold)));
        }
        #[cfg(not(feature = "cubecl"))]
        let _ = first;
        Ok(Self::Host((0..rows).map(|_| sketcher.start()).collect()))
    }
}

fn named(example: usize, source: SketchError) -> BurnError {
    BurnError::Example { example, source }
}

/// Reads the gradients and folds those of each example, on all cores.
fn add(folds: &mut [Fold], path: &str, first: usize, gradients: Tensor<2>) -> Result<(), BurnError> {
    let [_, elements] = gradients.dims();
    let values = gradients
        .try_into_vec_as::<f32>()
        .map_err(|source| BurnError::Read { tensor: path.to_owned(), source })?;
    // A tensor without elements has no rows to cut out, but a block must take it all the same.
    if elements == 0 {
        return folds.iter_mut().try_for_each(|fold| fold.add(path, &[])).map_err(BurnError::from);
    }
    folds.par_iter_mut().zip(values.par_chunks_exact(elements)).enumerate().try_for_each(
        |(row, (fold, gradient))| fold.add(path, gradient).map_err(|source| named(first + row, source)),
    )
}
