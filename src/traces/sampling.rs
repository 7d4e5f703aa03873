//! Which calls are recorded: a pure decision, made before anything is allocated.

use super::traceparent::Traceparent;

/// The specification's samplers ("Tracing SDK", "Built-in samplers"), which come down to two things.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Whether a caller's own decision counts: the `parentbased_` ones.
    pub follows_parent: bool,
    /// The share of all other calls, from 0 to 1.
    pub ratio: f64,
}

impl Default for Sampler {
    /// `parentbased_always_on`, the specification's default.
    fn default() -> Self {
        Self { follows_parent: true, ratio: 1.0 }
    }
}

/// Bits of a trace's id that decide about it, as in OpenTelemetry's SDKs, so that all services of a trace decide alike.
const DECIDING: i32 = 63;

impl Sampler {
    /// Whether to record a call that comes with `parent`. `draw` gives a random number in [0, 1) for calls that begin a
    /// trace: its id is as random, but not there yet.
    pub(super) fn samples(self, parent: Option<&Traceparent>, draw: impl FnOnce() -> f64) -> bool {
        match parent {
            Some(parent) if self.follows_parent => parent.sampled,
            Some(parent) => place(parent.trace_id) < self.ratio,
            None => self.ratio > 0.0 && draw() < self.ratio,
        }
    }
}

/// Where a trace's id lies among all, in [0, 1).
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the lower half, to 53 bits")]
fn place(trace_id: u128) -> f64 {
    // At 53 bits the last places round up to 1, which is not below a ratio of 1.
    ((trace_id as u64 >> 11 << 10) as f64) / 2_f64.powi(DECIDING)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: fn() -> f64 = || unreachable!("nothing is left to chance");

    fn parent(trace_id: u128, sampled: bool) -> Traceparent {
        Traceparent { trace_id, span_id: 1, sampled }
    }

    #[test]
    fn a_parent_that_counts_decides_alone() {
        for ratio in [0.0, 0.5, 1.0] {
            let sampler = Sampler { follows_parent: true, ratio };
            assert!(sampler.samples(Some(&parent(u128::MAX, true)), NOBODY));
            assert!(!sampler.samples(Some(&parent(1, false)), NOBODY));
        }
    }

    #[test]
    fn else_the_trace_s_id_decides_whatever_the_parent_says() {
        for sampled in [true, false] {
            let half = Sampler { follows_parent: false, ratio: 0.5 };
            assert!(half.samples(Some(&parent(0x7fff_ffff_ffff_ffff, sampled)), NOBODY));
            assert!(!half.samples(Some(&parent(0x8000_0000_0000_0000, sampled)), NOBODY));
            // The upper half of the id has no say.
            assert!(half.samples(Some(&parent(u128::MAX << 64 | 1, sampled)), NOBODY));
            let all = Sampler { follows_parent: false, ratio: 1.0 };
            assert!(all.samples(Some(&parent(u128::MAX, sampled)), NOBODY));
            let none = Sampler { follows_parent: false, ratio: 0.0 };
            assert!(!none.samples(Some(&parent(1, sampled)), NOBODY));
        }
    }

    #[test]
    fn the_first_of_a_trace_is_left_to_chance() {
        let sampler = Sampler { follows_parent: true, ratio: 0.25 };
        assert!(sampler.samples(None, || 0.2499));
        assert!(!sampler.samples(None, || 0.25));
        assert!(Sampler::default().samples(None, || 0.999_999));
        assert!(!Sampler { ratio: 0.0, ..sampler }.samples(None, NOBODY));
    }
}
