//! How the table of metrics is declared: the `metrics!` macro, and what it needs of each type.
//!
//! What is told apart is known when the metrics are made: a counter or histogram is found by its
//! place in a list, without a lock, a hash or an allocation.

use std::marker::PhantomData;
use std::sync::OnceLock;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// What a metric is told apart by: a closed set.
pub trait Label: Copy + 'static {
    /// The labels' names.
    const NAMES: &'static [&'static str];

    /// Every value.
    fn all() -> Vec<Self>;

    /// The place of this one among all.
    fn place(self) -> usize;

    /// What stands in the labels, in the order of their names.
    fn values(self) -> Vec<&'static str>;
}

/// Upper bounds of a histogram's buckets, in seconds.
pub trait Bounds: 'static {
    /// The bounds, growing.
    const SECONDS: &'static [f64];
}

/// Labels, each with what may stand there; no values where they are not a closed set.
pub type Labels = Vec<(&'static str, Vec<&'static str>)>;

/// Something that can stand in the table.
pub trait Metric: Sized {
    /// Its type in the Prometheus text format.
    const KIND: &'static str;

    /// Makes it, and has `registry` collect it.
    fn make(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error>;

    /// Its labels.
    fn labels() -> Labels {
        Labels::new()
    }

    /// What the reference tells of it.
    fn described(name: &'static str, help: String) -> Vec<Described> {
        vec![Described {
            name,
            kind: Self::KIND,
            help,
            labels: Self::labels(),
        }]
    }
}

/// One metric as the reference tells of it.
#[derive(Clone, Debug)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// Its type in the Prometheus text format.
    pub kind: &'static str,
    /// What it counts or measures.
    pub help: String,
    /// Its labels.
    pub labels: Labels,
}

/// The labels of `L`, each with what may stand there.
fn labels_of<L: Label>() -> Labels {
    let values: Vec<_> = L::all().into_iter().map(L::values).collect();
    let names = L::NAMES.iter().enumerate().map(|(place, name)| {
        let mut values: Vec<_> = values.iter().map(|all| all[place]).collect();
        values.dedup();
        (*name, values)
    });
    names.collect()
}

/// A counter for each value of a label. All are there from the start, so that the first rise of
/// each is one.
pub struct Counters<L> {
    each: Vec<IntCounter>,
    of: PhantomData<fn(L)>,
}

impl<L: Label> Counters<L> {
    /// The counter of `label`.
    pub fn of(&self, label: L) -> &IntCounter {
        &self.each[label.place()]
    }
}

/// A histogram for each value of a label; each is there from its first value on.
pub struct Histograms<L, B> {
    family: HistogramVec,
    each: Vec<OnceLock<Histogram>>,
    of: PhantomData<fn(L, B)>,
}

impl<L: Label, B> Histograms<L, B> {
    /// The histogram of `label`.
    pub fn of(&self, label: L) -> &Histogram {
        let make = || self.family.with_label_values(&label.values());
        self.each[label.place()].get_or_init(make)
    }
}

/// A histogram.
pub struct Distribution<B> {
    histogram: Histogram,
    of: PhantomData<fn(B)>,
}

impl<B> Distribution<B> {
    /// Takes a value, in seconds.
    pub fn observe(&self, seconds: f64) {
        self.histogram.observe(seconds);
    }
}

/// A gauge for each value of a label; each is there from when it is set.
pub struct Gauges<L> {
    family: IntGaugeVec,
    of: PhantomData<fn(L)>,
}

impl<L: Label> Gauges<L> {
    /// Sets the gauge of `label`.
    pub fn set(&self, label: L, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.family.with_label_values(&label.values()).set(value);
    }

    /// What was set last.
    pub fn get(&self, label: L) -> i64 {
        self.family.with_label_values(&label.values()).get()
    }

    /// What was set is not known any more.
    pub fn forget(&self) {
        self.family.reset();
    }
}

/// Has `registry` collect `metric`.
pub(super) fn add<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl<L: Label> Metric for Counters<L> {
    const KIND: &'static str = "counter";

    fn make(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        let family = add(
            registry,
            IntCounterVec::new(Opts::new(name, help), L::NAMES)?,
        )?;
        let all = L::all().into_iter();
        Ok(Self {
            each: all
                .map(|label| family.with_label_values(&label.values()))
                .collect(),
            of: PhantomData,
        })
    }

    fn labels() -> Labels {
        labels_of::<L>()
    }
}

impl<L: Label, B: Bounds> Metric for Histograms<L, B> {
    const KIND: &'static str = "histogram";

    fn make(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(B::SECONDS.to_vec());
        Ok(Self {
            family: add(registry, HistogramVec::new(options, L::NAMES)?)?,
            each: L::all().iter().map(|_| OnceLock::new()).collect(),
            of: PhantomData,
        })
    }

    fn labels() -> Labels {
        labels_of::<L>()
    }
}

impl<B: Bounds> Metric for Distribution<B> {
    const KIND: &'static str = "histogram";

    fn make(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(B::SECONDS.to_vec());
        Ok(Self {
            histogram: add(registry, Histogram::with_opts(options)?)?,
            of: PhantomData,
        })
    }
}

impl<L: Label> Metric for Gauges<L> {
    const KIND: &'static str = "gauge";

    fn make(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        Ok(Self {
            family: add(registry, IntGaugeVec::new(Opts::new(name, help), L::NAMES)?)?,
            of: PhantomData,
        })
    }

    fn labels() -> Labels {
        labels_of::<L>()
    }
}

impl Metric for IntCounter {
    const KIND: &'static str = "counter";

    fn make(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        add(registry, Self::new(name, help)?)
    }
}

impl Metric for IntGauge {
    const KIND: &'static str = "gauge";

    fn make(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        add(registry, Self::new(name, help)?)
    }
}

impl Metric for Gauge {
    const KIND: &'static str = "gauge";

    fn make(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        add(registry, Self::new(name, help)?)
    }
}

/// The text of a doc comment, as one line.
pub(super) fn text(lines: &[&str]) -> String {
    let lines = lines.iter().map(|line| line.trim());
    lines.collect::<Vec<_>>().join(" ")
}

/// Declares the metrics: a field for each, with its type, its name and, as its doc comment, what
/// the scrape and the reference say of it.
macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ty = $name:literal,)+) => {
        /// Every metric of the process.
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $doc])+ #[doc = concat!("\n\n`", $name, "`")] pub $field: $kind,)+
        }

        impl Metrics {
            fn make(registry: Registry) -> Result<Self, prometheus::Error> {
                Ok(Self {
                    $($field: <$kind as Metric>::make(&registry, $name, &text(&[$($doc),+]))?,)+
                    registry,
                })
            }

            fn table() -> Vec<Described> {
                let rows = [$(<$kind as Metric>::described($name, text(&[$($doc),+]))),+];
                rows.into_iter().flatten().collect()
            }
        }
    };
}
pub(super) use metrics;
