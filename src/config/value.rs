//! Values as people write them: numbers with underscores, sizes, durations, switches, lists.
//!
//! Each reader takes a [`Raw`] and either yields the value or a sentence that says what would have been right. Readers
//! do not know which key they read for.
use super::raw::Raw;
use crate::domain::{Op, Read};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A value, or what is wrong with it.
pub type Reading<T> = Result<T, String>;

/// Text of at least one character.
pub fn text(raw: &Raw) -> Reading<&str> {
    match raw {
        Raw::Text(text) if !text.trim().is_empty() => Ok(text.trim()),
        Raw::Text(_) => Err("is empty; write a text, or leave the key out".to_owned()),
        Raw::Integer(_) | Raw::Float(_) | Raw::Bool(_) | Raw::List(_) | Raw::Table(_) => {
            Err(format!("{raw} is not a text; write it in double quotes"))
        }
    }
}

/// A whole number: `1024` or `"1_024"`.
pub fn integer(raw: &Raw, range: RangeInclusive<u64>) -> Reading<u64> {
    let number = match raw {
        Raw::Integer(number) => u64::try_from(*number).ok(),
        Raw::Text(text) => digits(text.trim()),
        Raw::Float(_) | Raw::Bool(_) | Raw::List(_) | Raw::Table(_) => None,
    };
    let number = number.ok_or_else(|| {
        format!("{raw} is not a whole number; write a number from {} to {}", grouped(*range.start()), grouped(*range.end()))
    })?;
    within(number, range, grouped)
}

/// A size in bytes: `1048576`, `"1_048_576"`, `"1MiB"`, `"64 MiB"`, `"1MB"`.
pub fn bytes(raw: &Raw, range: RangeInclusive<u64>) -> Reading<u64> {
    let number = match raw {
        Raw::Integer(number) => u64::try_from(*number).ok(),
        Raw::Text(text) => sized(text.trim()),
        Raw::Float(_) | Raw::Bool(_) | Raw::List(_) | Raw::Table(_) => None,
    };
    let number =
        number.ok_or_else(|| format!("{raw} is not a size; write bytes such as 1_048_576, or a text such as \"1MiB\""))?;
    within(number, range, shown_bytes)
}

/// A time in milliseconds: `3000`, `"3_000"`, `"3s"`, `"250ms"`.
pub fn millis(raw: &Raw, range: RangeInclusive<Duration>) -> Reading<Duration> {
    let time = match raw {
        Raw::Integer(number) => u64::try_from(*number).ok().map(Duration::from_millis),
        Raw::Text(text) => digits(text.trim()).map(Duration::from_millis).or_else(|| humantime::parse_duration(text.trim()).ok()),
        Raw::Float(_) | Raw::Bool(_) | Raw::List(_) | Raw::Table(_) => None,
    };
    let time = time.ok_or_else(|| format!("{raw} is not a time; write milliseconds such as 3000, or a text such as \"3s\""))?;
    within(time, range, shown_duration)
}

/// A time with its unit: `"24h"`, `"90m"`. A bare number is refused, because nobody could tell its unit.
pub fn duration(raw: &Raw, range: RangeInclusive<Duration>) -> Reading<Duration> {
    let time = match raw {
        Raw::Text(text) => humantime::parse_duration(text.trim()).ok(),
        Raw::Integer(_) | Raw::Float(_) | Raw::Bool(_) | Raw::List(_) | Raw::Table(_) => None,
    };
    let time = time.ok_or_else(|| format!("{raw} is not a time with a unit; write a text such as \"24h\" or \"90m\""))?;
    within(time, range, shown_duration)
}

/// A switch: `true`, `false`, `"on"`, `"off"`.
pub fn switch(raw: &Raw) -> Reading<bool> {
    let known = match raw {
        Raw::Bool(value) => Some(*value),
        Raw::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "on" | "true" => Some(true),
            "off" | "false" => Some(false),
            _ => None,
        },
        Raw::Integer(_) | Raw::Float(_) | Raw::List(_) | Raw::Table(_) => None,
    };
    known.ok_or_else(|| format!("{raw} is neither on nor off; write \"on\", \"off\", true or false"))
}

/// The items of a list: a TOML array, or a text separated by commas, with or without brackets.
pub fn list(raw: &Raw) -> Reading<Vec<Raw>> {
    match raw {
        Raw::List(items) => Ok(items.clone()),
        Raw::Text(text) => {
            let inner = text.trim();
            let inner = inner.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(inner);
            Ok(inner.split(',').map(|item| Raw::Text(item.trim().to_owned())).collect())
        }
        Raw::Integer(_) | Raw::Float(_) => Ok(vec![raw.clone()]),
        Raw::Bool(_) | Raw::Table(_) => Err(format!("{raw} is not a list; write [1, 2] or \"1,2\"")),
    }
}

/// Upper bounds of histogram buckets in milliseconds, positive and ascending.
pub fn buckets_ms(raw: &Raw, count_max: usize) -> Reading<Vec<f64>> {
    let items = list(raw)?;
    if items.is_empty() || items.len() > count_max {
        return Err(format!("has {} buckets; write 1 to {count_max} upper bounds in milliseconds", items.len()));
    }
    let mut bounds: Vec<f64> = Vec::with_capacity(items.len());
    for item in &items {
        let bound = match item {
            Raw::Integer(number) => Some(*number as f64),
            Raw::Float(number) => Some(*number),
            Raw::Text(text) => text.parse::<f64>().ok(),
            Raw::Bool(_) | Raw::List(_) | Raw::Table(_) => None,
        };
        let bound = bound.filter(|bound| bound.is_finite());
        let bound = bound.ok_or_else(|| format!("{item} is not a number of milliseconds; write numbers such as [5, 10, 20]"))?;
        if bound <= 0.0 {
            return Err(format!("{item} is not above zero; every bound is a positive number of milliseconds"));
        }
        if bounds.last().is_some_and(|last| *last >= bound) {
            return Err(format!("{item} is not above the bound before it; write the bounds in ascending order"));
        }
        bounds.push(bound);
    }
    Ok(bounds)
}

/// Ceilings of single endpoints: `["entries=64", "proof=16"]`, `"entries=64, proof=16"`, or nothing.
pub fn ceilings(raw: &Raw, range: RangeInclusive<u64>) -> Reading<Vec<(&'static str, usize)>> {
    let mut ceilings: Vec<(&'static str, usize)> = Vec::new();
    for item in list(raw)?.iter().filter(|item| !matches!(item, Raw::Text(text) if text.is_empty())) {
        let (name, number) =
            text(item)?.trim_matches('"').split_once('=').ok_or_else(|| format!("{item} is not of the form \"entries=64\""))?;
        let names = || Op::ALL.map(Op::as_str).into_iter().chain(Read::ALL.map(Read::as_str));
        let name = names().find(|known| *known == name.trim()).ok_or_else(|| {
            format!("{:?} is no endpoint; the endpoints are {}", name.trim(), names().collect::<Vec<_>>().join(", "))
        })?;
        if ceilings.iter().any(|(other, _)| *other == name) {
            return Err(format!("names {name} twice"));
        }
        let ceiling = integer(&Raw::Text(number.to_owned()), range.clone()).map_err(|what| format!("{name}: {what}"))?;
        ceilings.push((name, usize::try_from(ceiling).expect("the range fits")));
    }
    Ok(ceilings)
}

/// A whole number from decimal digits, with single underscores between them if one likes.
pub fn digits(text: &str) -> Option<u64> {
    let placed = !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
    let known = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    (placed && known).then(|| text.replace('_', "").parse().ok()).flatten()
}

fn sized(text: &str) -> Option<u64> {
    let unit_at = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    digits(number.trim_end())?.checked_mul(scale)
}

fn within<T: PartialOrd + Copy>(value: T, range: RangeInclusive<T>, show: fn(T) -> String) -> Reading<T> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("{} is out of range; choose from {} to {}", show(value), show(*range.start()), show(*range.end())))
}

/// Digits in groups of three: `1_048_576`.
pub fn grouped(number: u64) -> String {
    let plain = number.to_string();
    let mut shown = String::with_capacity(plain.len() + plain.len() / 3);
    for (index, digit) in plain.char_indices() {
        if index > 0 && (plain.len() - index) % 3 == 0 {
            shown.push('_');
        }
        shown.push(digit);
    }
    shown
}

/// A size in the largest binary unit that divides it: `64MiB`, `1000`.
pub fn shown_bytes(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes > 0 && bytes % (1 << shift) == 0 {
            return format!("{}{unit}", grouped(bytes >> shift));
        }
    }
    grouped(bytes)
}

/// A time in the largest unit that divides it, up to hours: `24h`, `1500ms`.
pub fn shown_duration(time: Duration) -> String {
    let ms = time.as_millis();
    for (unit, scale) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms > 0 && ms % scale == 0 {
            return format!("{}{unit}", ms / scale);
        }
    }
    format!("{ms}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn numbers_and_sizes_are_read_as_people_write_them() {
        for (written, meant) in [("0", 0), ("1_048_576", 1_048_576), (" 7 ", 7)] {
            assert_eq!(integer(&of(written), 0..=u64::MAX), Ok(meant), "{written}");
        }
        for (written, meant) in
            [("1MiB", 1 << 20), ("64 MiB", 64 << 20), ("1_000", 1_000), ("2kb", 2_000), ("1 GiB", 1 << 30), ("9B", 9)]
        {
            assert_eq!(bytes(&of(written), 0..=u64::MAX), Ok(meant), "{written}");
        }
        for bad in ["", "_1", "1_", "1__0", "-1", "+1", "1.5", "0x10", "1e3", "18446744073709551616", "one"] {
            assert!(integer(&of(bad), 0..=u64::MAX).is_err(), "{bad:?}");
            assert!(bytes(&of(bad), 0..=u64::MAX).is_err(), "{bad:?}");
        }
        for bad in ["1M", "MiB", "1 TiB", "1.5MiB", "99999999999 GiB"] {
            assert!(bytes(&of(bad), 0..=u64::MAX).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same_value() {
        for number in [0, 1, 999, 1_000, 1_024, 65_536, 1_048_576, 1_048_577, 3 << 30, u64::MAX] {
            assert_eq!(bytes(&of(&shown_bytes(number)), 0..=u64::MAX), Ok(number));
            assert_eq!(integer(&of(&grouped(number)), 0..=u64::MAX), Ok(number));
        }
        for ms in [1, 999, 1_000, 1_500, 60_000, 61_000, 86_400_000] {
            let time = Duration::from_millis(ms);
            assert_eq!(millis(&of(&shown_duration(time)), Duration::ZERO..=Duration::MAX), Ok(time));
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_refused_where_the_key_does_not_name_one() {
        let all = Duration::ZERO..=Duration::MAX;
        assert_eq!(duration(&of("24h"), all.clone()), Ok(Duration::from_secs(86_400)));
        assert_eq!(millis(&of("3_000"), all.clone()), Ok(Duration::from_secs(3)));
        assert!(duration(&of("24"), all.clone()).is_err());
        assert!(duration(&Raw::Integer(24), all).is_err());
    }

    #[test]
    fn buckets_are_positive_and_ascend() {
        assert_eq!(buckets_ms(&of("[0.5, 1,2]"), 4), Ok(vec![0.5, 1.0, 2.0]));
        for bad in ["", "0,1", "2,1", "1,1", "1,x", "NaN", "1,2,3,4,5", "inf"] {
            assert!(buckets_ms(&of(bad), 4).is_err(), "{bad:?}");
        }
    }
}
