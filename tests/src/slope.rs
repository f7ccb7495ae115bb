//! Whether something grows.

/// The straight line through samples, by least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// By how much the value grows from one unit of time to the next.
    pub per_unit: f64,
    /// The standard error of that: how far it may be off by the samples' own scatter.
    pub error: f64,
}

/// Fits samples of time and value; nothing of fewer than three, or of samples at one time.
#[must_use]
pub fn slope(samples: &[(f64, f64)]) -> Option<Slope> {
    if samples.len() < 3 {
        return None;
    }
    let count = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (time, value) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let spread: f64 = samples.iter().map(|sample| (sample.0 - time).powi(2)).sum();
    if spread <= 0.0 {
        return None;
    }
    let together: f64 = samples.iter().map(|sample| (sample.0 - time) * (sample.1 - value)).sum();
    let per_unit = together / spread;
    let residual: f64 = samples.iter().map(|sample| (sample.1 - value - per_unit * (sample.0 - time)).powi(2)).sum();
    Some(Slope { per_unit, error: (residual / (count - 2.0) / spread).sqrt() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope_and_no_error() {
        let samples: Vec<(f64, f64)> = (0..10).map(|time| (f64::from(time), 5.0 + 2.0 * f64::from(time))).collect();
        let fitted = slope(&samples).unwrap();
        assert!((fitted.per_unit - 2.0).abs() < 1e-9 && fitted.error < 1e-6, "{fitted:?}");
    }

    #[test]
    fn what_goes_up_and_down_is_flat() {
        let samples: Vec<(f64, f64)> = (0..100).map(|time| (f64::from(time), f64::from(time % 2))).collect();
        let fitted = slope(&samples).unwrap();
        assert!(fitted.per_unit.abs() < 2.0 * fitted.error, "{fitted:?}");
    }

    #[test]
    fn too_little_says_nothing() {
        assert_eq!(slope(&[]), None);
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(slope(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }
}
