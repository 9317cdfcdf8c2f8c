//! What `/metrics` says at one moment, and what follows from two of them: rates, and quantiles as Prometheus computes them.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One series.
#[derive(Clone, Debug, PartialEq)]
struct Series {
    labels: Vec<(String, String)>,
    value: f64,
}

impl Series {
    fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// Everything that was read at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When.
    pub at: Instant,
    series: BTreeMap<String, Vec<Series>>,
}

/// Which series of a metric count: those whose label of this name is accepted.
pub type Fits<'f> = (&'f str, &'f dyn Fn(&str) -> bool);

/// All series of a metric.
pub const EVERY: Fits<'static> = ("", &|_| true);

impl Sample {
    /// Reads the text format; lines that are none of it are passed over.
    pub fn read(text: &str, at: Instant) -> Self {
        let mut series: BTreeMap<String, Vec<Series>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let (name, labels) = name.split_once('{').map_or((name, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
            let Ok(value) = value.parse() else { continue };
            series.entry(name.to_owned()).or_default().push(Series { labels: labels_of(labels), value });
        }
        Self { at, series }
    }

    fn all<'s>(&'s self, name: &str, fits: Fits<'s>) -> impl Iterator<Item = &'s Series> {
        let (label, accepted) = fits;
        self.series.get(name).into_iter().flatten().filter(move |one| accepted(one.label(label)))
    }

    /// The sum of the series of a metric; nothing if there is none.
    pub fn sum(&self, name: &str, fits: Fits<'_>) -> Option<f64> {
        let mut values = self.all(name, fits).map(|one| one.value);
        let first = values.next()?;
        Some(first + values.sum::<f64>())
    }

    /// The values that a label of a metric has, in the order of the numbers or words that they are.
    pub fn values_of(&self, name: &str, label: &str) -> Vec<String> {
        let mut values: Vec<String> = self.all(name, EVERY).map(|one| one.label(label).to_owned()).collect();
        values.sort_by_key(|value| (value.parse::<u64>().unwrap_or(u64::MAX), value.clone()));
        values.dedup();
        values
    }

    /// Whether this is of the process that the other one is of.
    pub fn is_of_the_process_of(&self, other: &Self) -> bool {
        let started = |sample: &Self| sample.sum("process_start_time_seconds", EVERY);
        started(self) == started(other)
    }
}

fn labels_of(text: &str) -> Vec<(String, String)> {
    // No value of a label of this service has a quote or a comma in it.
    let pairs = text.split("\",").filter_map(|pair| pair.trim_end_matches('"').split_once("=\""));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Two samples of one process, the earlier one first.
#[derive(Clone, Copy)]
pub struct Between<'s> {
    earlier: Option<&'s Sample>,
    later: &'s Sample,
}

impl<'s> Between<'s> {
    /// From the oldest of these samples that is within `window` of the last one and of its process; they are in order.
    pub fn last(samples: &'s [Sample], window: Duration) -> Option<Self> {
        let (later, before) = samples.split_last()?;
        let close = |sample: &&Sample| later.at.duration_since(sample.at) <= window && sample.is_of_the_process_of(later);
        Some(Self { earlier: before.iter().find(close), later })
    }

    /// The later one.
    pub fn now(&self) -> &'s Sample {
        self.later
    }

    /// By how much a counter grew each second; nothing before there are two samples.
    pub fn rate(&self, name: &str, fits: Fits<'_>) -> Option<f64> {
        let earlier = self.earlier?;
        let seconds = self.later.at.duration_since(earlier.at).as_secs_f64();
        let grown = self.later.sum(name, fits)? - earlier.sum(name, fits).unwrap_or(0.0);
        (seconds > 0.0).then_some((grown / seconds).max(0.0))
    }

    /// A quantile of what a histogram recorded in between, over all its labels; nothing if it recorded nothing.
    pub fn quantile(&self, name: &str, quantile: f64) -> Option<f64> {
        let bucket = format!("{name}_bucket");
        let mut counts: Vec<(f64, f64)> = Vec::new();
        for (sample, sign) in [(Some(self.later), 1.0), (self.earlier, -1.0)] {
            for one in sample?.all(&bucket, EVERY) {
                let bound = one.label("le").parse().unwrap_or(f64::INFINITY);
                match counts.iter_mut().find(|(known, _)| *known == bound) {
                    Some((_, count)) => *count += sign * one.value,
                    None => counts.push((bound, sign * one.value)),
                }
            }
        }
        counts.sort_by(|one, other| one.0.total_cmp(&other.0));
        let rank = quantile * counts.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in counts {
            if count >= rank {
                let part = if count > below { (rank - below) / (count - below) } else { 1.0 };
                return Some(if bound.is_finite() { low + (bound - low) * part } else { low });
            }
            (low, below) = (bound, count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP x y\nprocess_start_time_seconds 5.5\nn_total{op=\"a\",s=\"x\"} 3\nn_total{op=\"b\",s=\"x\"} 4\ng 1e3\n\nnonsense\n\
        h_bucket{r=\"1\",le=\"0.005\"} 0\nh_bucket{r=\"1\",le=\"0.01\"} 10\nh_bucket{r=\"1\",le=\"+Inf\"} 10\n";

    fn later(sample: &Sample, text: &str) -> Sample {
        Sample::read(text, sample.at + Duration::from_secs(2))
    }

    #[test]
    fn series_are_read_and_added_up() {
        let sample = Sample::read(TEXT, Instant::now());
        assert_eq!(
            (sample.sum("n_total", EVERY), sample.sum("g", EVERY), sample.sum("none", EVERY)),
            (Some(7.0), Some(1000.0), None)
        );
        assert_eq!(sample.sum("n_total", ("op", &|op| op == "b")), Some(4.0));
        assert_eq!(sample.values_of("n_total", "op"), ["a", "b"]);
        let cores = Sample::read("c{core=\"10\"} 1\nc{core=\"2\"} 1\n", Instant::now());
        assert_eq!(cores.values_of("c", "core"), ["2", "10"]);
    }

    #[test]
    fn rates_and_quantiles_are_of_what_came_in_between() {
        let first = Sample::read(TEXT, Instant::now());
        let second = later(&first, &TEXT.replace("op=\"a\",s=\"x\"} 3", "op=\"a\",s=\"x\"} 13").replace("} 10\n", "} 30\n"));
        let both = [first.clone(), second.clone()];
        let between = Between::last(&both, Duration::from_secs(5)).unwrap();
        assert_eq!((between.rate("n_total", EVERY), between.rate("none", EVERY)), (Some(5.0), None));
        // All of the 20 are between 5 and 10 ms.
        let near = |one: Option<f64>, other: f64| one.is_some_and(|one| (one - other).abs() < 1e-9);
        assert!(
            near(between.quantile("h", 0.5), 0.0075) && near(between.quantile("h", 1.0), 0.01),
            "{:?}",
            between.quantile("h", 0.5)
        );
        assert_eq!(between.quantile("none", 0.5), None);
        let alone = [first.clone()];
        let alone = Between::last(&alone, Duration::from_secs(5)).unwrap();
        assert_eq!((alone.rate("n_total", EVERY), alone.quantile("h", 0.5)), (None, None));
        // Nothing is said across a restart, nor of samples that are too old.
        let restarted = [first.clone(), later(&first, &TEXT.replace("5.5", "6.5"))];
        assert_eq!(Between::last(&restarted, Duration::from_secs(5)).unwrap().rate("n_total", EVERY), None);
        assert_eq!(Between::last(&both, Duration::from_secs(1)).unwrap().rate("n_total", EVERY), None);
        let idle = [first.clone(), later(&first, TEXT)];
        assert_eq!(Between::last(&idle, Duration::from_secs(5)).unwrap().quantile("h", 0.5), None, "nothing was recorded");
    }
}
