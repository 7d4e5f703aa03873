//! Series that are all known from the start: counters indexed by closed vocabularies, with no look-up by label.

use std::{fmt, marker::PhantomData, sync::Arc};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{MetricType, TypedMetric, counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// A word of a closed vocabulary: the value of a label, and of a log field.
pub(super) trait Word: Copy + fmt::Debug + Send + Sync + 'static {
    /// Every word, in the order of [`Word::index`].
    const ALL: &'static [Self];
    /// The word itself.
    fn text(self) -> &'static str;
    /// Its place in [`Word::ALL`].
    fn index(self) -> usize;
}

/// Declares an enum whose variants are words.
macro_rules! vocabulary {
    ($(#[$about:meta])* $see:vis enum $name:ident { $($(#[$meaning:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $see enum $name { $($(#[$meaning])* $variant,)+ }

        impl $name {
            /// Every word of this vocabulary.
            $see const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word, as labels and logs have it.
            $see const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl $crate::metrics::series::Word for $name {
            const ALL: &'static [Self] = Self::ALL;

            fn text(self) -> &'static str {
                self.name()
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(super) use vocabulary;

/// One family of metrics, each of its series with its labels, in the order in which they are told.
#[derive(Debug)]
pub(super) struct Series<const LABELS: usize, M>(pub(super) Vec<([(&'static str, &'static str); LABELS], M)>);

impl<const LABELS: usize, M: EncodeMetric + TypedMetric> EncodeMetric for Series<LABELS, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(labels, metric)| metric.encode(encoder.encode_family(labels)?))
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// A counter for each word. Clones share the counters.
#[derive(Debug)]
pub(super) struct Counters<W> {
    counters: Arc<[Counter]>,
    words: PhantomData<W>,
}

impl<W: Word> Counters<W> {
    pub(super) fn in_registry(registry: &mut Registry, name: &str, help: &str, label: &'static str) -> Self {
        let counters = Self::default();
        let told = |word: &W| ([(label, word.text())], counters.of(*word).clone());
        registry.register(name, help, Series(W::ALL.iter().map(told).collect()));
        counters
    }

    pub(super) fn of(&self, word: W) -> &Counter {
        &self.counters[word.index()]
    }
}

impl<W: Word> Default for Counters<W> {
    fn default() -> Self {
        Self { counters: W::ALL.iter().map(|_| Counter::default()).collect(), words: PhantomData }
    }
}

impl<W> Clone for Counters<W> {
    fn clone(&self) -> Self {
        Self { counters: Arc::clone(&self.counters), words: PhantomData }
    }
}

/// Something that a gauge counts for as long as this lives.
#[derive(Debug)]
#[must_use = "it is counted until this is dropped"]
pub struct Present(Gauge);

impl Present {
    pub(super) fn on(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The only counter of its family, in a registry.
pub(super) fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// The only gauge of its family, in a registry.
pub(super) fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}
