//! A figure over several rounds: its median, how it scatters, and within which bounds the median of such rounds is to be expected.

use std::fmt;

use serde::Serialize;

/// The part of all cases in which the bounds of the median may be wrong, on either side.
const WRONG_ON_A_SIDE: f64 = 0.025;

/// The values of all rounds in short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Rounds.
    pub rounds: u64,
    /// Half of them are at most this.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The largest.
    pub most: f64,
    /// Between these two lies, in 95 of 100 cases, the median of ever more rounds, whatever they scatter like; absent below six
    /// rounds, which cannot say so.
    pub median_within: Option<(f64, f64)>,
}

impl Spread {
    /// Of these values; all zero if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (values.first(), values.last()) else { return Spread::default() };
        let count = values.len();
        let middle = (values[(count - 1) / 2] + values[count / 2]) / 2.0;
        let left_out = left_out_on_a_side(count);
        let median_within = left_out.map(|left_out| (values[left_out], values[count - 1 - left_out]));
        Spread { rounds: count as u64, median: middle, least: *least, most: *most, median_within }
    }
}

/// How many of the least, and of the largest, values the bounds of the median can leave out: as many values on one side of the median as
/// heads of so many coins.
fn left_out_on_a_side(count: usize) -> Option<usize> {
    let mut at_most = 0.0;
    let mut exactly = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut left_out = None;
    for heads in 0..count / 2 {
        at_most += exactly;
        if at_most > WRONG_ON_A_SIDE {
            break;
        }
        left_out = Some(heads);
        exactly *= (count - heads) as f64 / (heads + 1) as f64;
    }
    left_out
}

impl fmt::Display for Spread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { rounds, median, least, most, median_within } = self;
        write!(out, "{median:.3} (median of {rounds}; {least:.3} to {most:.3}")?;
        match median_within {
            Some((from, to)) => write!(out, "; the median is between {from:.3} and {to:.3} at 95%)"),
            None => write!(out, ")"),
        }
    }
}

/// Whether a figure keeps a floor, if there is one, and what is said if it does not.
pub fn below(what: &str, median: f64, at_least: Option<f64>) -> Option<String> {
    let least = at_least.filter(|least| median < *least)?;
    Some(format!("{what} is {median:.3}, below the floor of {least}"))
}

/// The same for a ceiling.
pub fn above(what: &str, median: f64, at_most: Option<f64>) -> Option<String> {
    let most = at_most.filter(|most| median > *most)?;
    Some(format!("{what} is {median:.3}, above {most}, which it may be at most"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_the_median_are_those_of_the_sign_test() {
        // Tables of the sign test: of 6 values none may be left out, of 9 one, of 20 five.
        for (count, left_out) in [(5, None), (6, Some(0)), (8, Some(0)), (9, Some(1)), (15, Some(3)), (20, Some(5))] {
            assert_eq!(left_out_on_a_side(count), left_out, "{count}");
        }
        let spread = Spread::of((1..=9).rev().map(f64::from));
        assert_eq!((spread.median, spread.least, spread.most, spread.median_within), (5.0, 1.0, 9.0, Some((2.0, 8.0))));
        assert_eq!((Spread::of([1.0, 2.0]).median, Spread::of([]).rounds), (1.5, 0));
    }

    #[test]
    fn a_floor_is_kept_up_to_its_value_and_told_of_below_it() {
        assert!(below("x", 0.8, Some(0.8)).is_none() && below("x", 0.1, None).is_none());
        assert!(below("x", 0.79, Some(0.8)).unwrap().contains("0.790"));
        assert!(above("x", 1.2, Some(1.2)).is_none() && above("x", 9.0, None).is_none());
        assert!(above("x", 1.21, Some(1.2)).unwrap().contains("at most"));
    }
}
