//! TRAK's estimator (Park et al. 2023, arXiv:2303.14186, section 3): `φ(q) (ΦᵀΦ)⁻¹ φ(row) (1 - p)`, with projected
//! gradients φ of the margin log(p / (1 - p)); over several models, both factors are averaged.

use gradix::sketch::{SketchSpec, Sketcher};

use crate::digits::Gradient;
use crate::exact::{Gradients, Influences};
use crate::linear;

/// A margin's gradient is that of the loss / -(1 - p). The projection is gradix's sketch, as unbiased as TRAK's own.
fn projected(sketcher: &Sketcher, gradients: &[Gradient]) -> Result<Vec<Vec<f64>>, gradix::Error> {
    let project = |gradient: &Gradient| {
        let tensors = gradient.tensors();
        let sketch = sketcher.sketch(tensors.iter().map(|(name, _, values)| (name.as_str(), &values[..])))?;
        Ok(sketch.values().iter().map(|&value| f64::from(value) / -gradient.doubt).collect())
    };
    gradients.iter().map(project).collect()
}

/// TRAK's influences with `dims` projected values; with a ridge of λ = `ridge` · mean‖φ‖² on `ΦᵀΦ`.
pub fn influences(models: &[Gradients], dims: u32, ridge: f64) -> Result<Influences, gradix::Error> {
    let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, dims))?;
    let mut sums: Vec<Influences> = Vec::new();
    for model in models {
        let rows = projected(&sketcher, &model.rows)?;
        let mut queries = projected(&sketcher, &model.queries)?;
        let products = |queries: &[Vec<f64>]| -> Influences {
            queries.iter().map(|q| rows.iter().map(|row| linear::dot(row, q)).collect()).collect()
        };
        let solved = if ridge > 0.0 {
            // Φ (ΦᵀΦ + λI)⁻¹ = (ΦΦᵀ + λI)⁻¹ Φ, whose matrix is smaller.
            let mut matrix = linear::gram(&rows);
            let n = rows.len();
            let mean = (0..n).map(|row| matrix[row * n + row]).sum::<f64>() / n as f64;
            (0..n).for_each(|row| matrix[row * n + row] += ridge * mean);
            let mut influences = products(&queries);
            linear::solve(matrix, &mut influences).map(|()| influences)
        } else {
            let columns: Vec<Vec<f64>> =
                (0..dims as usize).map(|at| rows.iter().map(|row| row[at]).collect()).collect();
            linear::solve(linear::gram(&columns), &mut queries).map(|()| products(&queries))
        };
        sums.push(solved.expect("more rows than dims, or a ridge"));
    }
    let mut influences = crate::exact::sum(sums);
    for query in &mut influences {
        for (row, influence) in query.iter_mut().enumerate() {
            *influence *= models.iter().map(|model| model.rows[row].doubt).sum::<f64>();
        }
    }
    Ok(influences)
}
