//! The figures as Prometheus reads them, in whichever of its two formats it asks for.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::figures::{Family, Figures, Kind, Number};
use crate::observe::Timings;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds of a histogram.
const BOUNDS: usize = 11;

/// The text, and its content type. `accept` is the header of that name.
pub fn render(figures: Figures, accept: &str) -> (String, &'static str) {
    let mut registry = Registry::with_prefix("anteroom");
    registry.register_collector(Box::new(Scrape(figures)));
    let mut out = String::new();
    // Writing to a String cannot fail, and nothing else here can.
    if accept.contains("application/openmetrics-text") {
        let _ = text::encode(&mut out, &registry);
        (out, OPENMETRICS)
    } else {
        let _ = prometheus_text::encode(&mut out, &registry);
        (out, PLAIN)
    }
}

/// What is read once and written once.
#[derive(Debug)]
struct Scrape(Figures);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let samples = &self.0.samples;
        let mut families: Vec<Family> = Vec::new();
        for sample in samples {
            if !families.iter().any(|family| family.name == sample.family.name) {
                families.push(sample.family);
            }
        }
        for family in families {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut of_family = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for sample in samples.iter().filter(|sample| sample.family.name == family.name) {
                if sample.labels.is_empty() {
                    number(&mut of_family, family.kind, sample.number)?;
                } else {
                    number(&mut of_family.encode_family(&sample.labels)?, family.kind, sample.number)?;
                }
            }
        }
        self.encode_timed(&mut encoder)
    }
}

impl Scrape {
    fn encode_timed(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let timed = &self.0.timed;
        let mut families: Vec<Family> = timed.iter().map(|timed| timed.family).collect();
        families.dedup();
        for family in families {
            let mut of_family = encoder.encode_descriptor(family.name, family.help, None, MetricType::Histogram)?;
            for one in timed.iter().filter(|one| one.family == family) {
                durations(&mut of_family.encode_family(&one.labels)?, &one.timings)?;
            }
        }
        Ok(())
    }
}

/// Powers of four from 16 microseconds to 17 seconds: what the timings know exactly.
fn durations(encoder: &mut MetricEncoder<'_>, timings: &Timings) -> fmt::Result {
    let mut below = 0;
    let mut buckets = Vec::with_capacity(BOUNDS + 1);
    for bound_us in (0..BOUNDS).map(|step| 16_u64 << (2 * step)) {
        let within = timings.within(bound_us);
        buckets.push((bound_us as f64 / 1e6, within - below));
        below = within;
    }
    buckets.push((f64::INFINITY, timings.count() - below));
    encoder.encode_histogram::<NoLabelSet>(timings.sum_us as f64 / 1e6, timings.count(), &buckets, None)
}

fn number(encoder: &mut MetricEncoder<'_>, kind: Kind, number: Number) -> fmt::Result {
    match (kind, number) {
        (Kind::Counter, Number::Count(n)) => encoder.encode_counter::<NoLabelSet, u64, f64>(&n, None),
        (Kind::Counter, Number::Signed(n)) => encoder.encode_counter::<NoLabelSet, f64, f64>(&(n as f64), None),
        (Kind::Counter, Number::Real(n)) => encoder.encode_counter::<NoLabelSet, f64, f64>(&n, None),
        // No sample is one of these.
        (Kind::Histogram, _) => Ok(()),
        (Kind::Gauge, Number::Count(n)) => encoder.encode_gauge(&n),
        (Kind::Gauge, Number::Signed(n)) => encoder.encode_gauge(&n),
        (Kind::Gauge, Number::Real(n)) => encoder.encode_gauge(&n),
    }
}
