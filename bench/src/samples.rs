//! Figures that were taken many times.

/// Figures of one kind, in the unit that their owner says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The least that `percent` of them do not exceed (the nearest rank); none where there are none.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }

    /// Half of them do not exceed it.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        self.percentile(50)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: impl IntoIterator<Item = u32>) -> Samples {
        Samples(samples.into_iter().map(f64::from).collect())
    }

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let hundred = of((1..=100).rev());
        assert_eq!(hundred.median(), Some(50.0));
        assert_eq!(hundred.percentile(99), Some(99.0));
        assert_eq!(hundred.percentile(100), Some(100.0));
        assert_eq!(hundred.percentile(0), Some(1.0));
        assert_eq!(of([3, 1, 2]).median(), Some(2.0));
        assert_eq!(of([7]).percentile(99), Some(7.0));
        assert_eq!(of([]).median(), None);
    }
}
