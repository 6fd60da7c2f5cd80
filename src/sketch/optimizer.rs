//! What an optimizer's step did to gradients before they were sketched.

use serde::{Deserialize, Serialize};
use std::fmt;

use super::SketchError;

/// The maximum length of a decimal number of an [`OptimizerStep`] in bytes.
const MAX_DIGITS: usize = 64;

/// The maximum length of the digest of an optimizer's state in bytes.
const MAX_STATE: usize = 255;

/// The step of an optimizer by which the gradients of training examples were replaced before they were
/// sketched, as in LESS (Xia et al. 2024, arXiv:2402.04333), which compares them with plain gradients of
/// queries.
///
/// [`SketchSpec::with_optimizer`](super::SketchSpec::with_optimizer) records it. An index of such a spec takes
/// rows of exactly its spec, and queries of that spec or of
/// [`SketchSpec::for_queries`](super::SketchSpec::for_queries).
///
/// ```
/// use gradix::sketch::{OptimizerStep, SketchSpec};
/// let step = OptimizerStep::adam(0.9, 0.999, 1e-8, "sha256:5d1f");
/// let spec = SketchSpec::rapid_grad(7, 64).with_optimizer(step);
/// assert!(spec.check().is_ok());
/// assert!(spec.takes_queries_of(&spec.for_queries()));
/// assert!(!spec.for_queries().takes_queries_of(&spec));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum OptimizerStep {
    /// Adam's normalised step (Kingma and Ba 2014, arXiv:1412.6980). Its numbers are decimal, without an
    /// exponent and without zeros that change nothing: each number has one text.
    Adam {
        /// The decay of the first moment, at least 0 and below 1.
        beta_1: String,
        /// The decay of the second moment, at least 0 and below 1.
        beta_2: String,
        /// What is added to the root of the second moment.
        epsilon: String,
        /// The caller's digest of the moments and of the number of steps, 1 to 255 bytes; of several
        /// checkpoints, of all of them.
        state: String,
    },
}

impl OptimizerStep {
    /// Adam's step with these settings, and the digest of its state.
    ///
    /// [`SketchSpec::check`](super::SketchSpec::check) refuses numbers that are negative or not finite, a beta
    /// of 1 or above, and an empty digest.
    #[must_use]
    pub fn adam(beta_1: f32, beta_2: f32, epsilon: f32, state: impl Into<String>) -> Self {
        // `Display` gives the fewest digits that mean this f32, and no exponent.
        let [beta_1, beta_2, epsilon] = [beta_1, beta_2, epsilon].map(|number| number.to_string());
        Self::Adam { beta_1, beta_2, epsilon, state: state.into() }
    }

    pub(super) fn check(&self) -> Result<(), SketchError> {
        let invalid = |reason: String| Err(SketchError::InvalidSpec { reason });
        match self {
            Self::Adam { beta_1, beta_2, epsilon, state } => {
                for (name, text) in [("beta_1", beta_1), ("beta_2", beta_2), ("epsilon", epsilon)] {
                    if !is_decimal(text) {
                        return invalid(format!(
                            "adam's {name} {text:?} is not a decimal number of one text"
                        ));
                    }
                }
                for (name, text) in [("beta_1", beta_1), ("beta_2", beta_2)] {
                    if !text.starts_with('0') {
                        return invalid(format!("adam's {name} is {text}, and must be below 1"));
                    }
                }
                if state.is_empty() || state.len() > MAX_STATE {
                    return invalid(format!(
                        "the digest of adam's state {state:?} is not 1 to 255 bytes long"
                    ));
                }
                Ok(())
            }
        }
    }
}

/// Digits, without a leading zero before another digit; then perhaps `.` and digits, the last of which is not
/// zero.
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    text.len() <= MAX_DIGITS
        && digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(|fraction| digits(fraction) && !fraction.ends_with('0'))
}

/// For messages: `adam 0.9 0.999 0.00000001 of state "sha256:5d1f"`.
impl fmt::Display for OptimizerStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adam { beta_1, beta_2, epsilon, state } => {
                write!(f, "adam {beta_1} {beta_2} {epsilon} of state {state:?}")
            }
        }
    }
}
