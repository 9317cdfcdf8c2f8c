//! How people write numbers, shares, rates, times and CPU lists on the command line.

use std::{net::SocketAddr, time::Duration};

use crate::rng::Share;

/// How fast to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as replies come.
    Max,
    /// Requests per second.
    PerSecond(f64),
    /// This fraction of the saturating rate.
    OfMax(f64),
}

/// CPU numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

/// A whole number.
///
/// # Errors
/// What it should look like.
pub fn count(text: &str) -> Result<u64, String> {
    text.replace(['_', ','], "").parse().map_err(|_| format!("{text:?} is not a whole number such as 100_000"))
}

/// A percentage or a fraction.
///
/// # Errors
/// What it should look like.
pub fn share(text: &str) -> Result<Share, String> {
    let (digits, unit) = text.strip_suffix('%').map_or((text, 1.0), |digits| (digits, 100.0));
    match digits.trim().parse::<f64>() {
        Ok(value) if (0.0..=unit).contains(&value) => Ok(Share::of(value / unit)),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a share such as 1% or 0.01")),
    }
}

/// How fast to send.
///
/// # Errors
/// What it should look like.
pub fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    if text.ends_with('%') {
        return share(text).map(|share| Rate::OfMax(share.fraction()));
    }
    match count(text.strip_suffix("/s").unwrap_or(text)) {
        Ok(rate) if rate > 0 => Ok(Rate::PerSecond(rate as f64)),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a rate such as 20_000, 50% or max")),
    }
}

/// A time.
///
/// # Errors
/// What it should look like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let value: f64 = digits.trim().parse().map_err(|_| format!("{text:?} is not a time such as 10s or 500ms"))?;
    let seconds = match unit {
        "ms" => value / 1e3,
        "s" | "" => value,
        "m" | "min" => value * 60.0,
        _other_unit => return Err(format!("{unit:?} is not a unit of time; use ms, s or m")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text:?} is out of range"))
}

/// CPU numbers.
///
/// # Errors
/// What it should look like.
pub fn cpu_list(text: &str) -> Result<CpuList, String> {
    let wrong = || format!("{text:?} is not a list of CPUs such as 0 or 0-2,5");
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| wrong())?;
        let last: usize = last.trim().parse().map_err(|_| wrong())?;
        if first > last || last > 1023 {
            return Err(wrong());
        }
        cpus.extend(first..=last);
    }
    Ok(CpuList(cpus))
}

/// An address of this machine.
///
/// # Errors
/// What it should look like.
pub fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| format!("{text:?} is not an address such as 127.0.0.1:8080"))?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(format!("{address} is not on this machine; loadtest only loads loopback addresses"))
    }
}

/// What names of accounts begin with.
///
/// # Errors
/// What it should look like.
pub fn account_prefix(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || ":/-_".contains(c);
    if (1..=200).contains(&text.len()) && text.chars().all(legal) {
        Ok(text.to_owned())
    } else {
        Err("a prefix has 1 to 200 characters of A-Z a-z 0-9 : / - _".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        assert_eq!(count("1_000_000"), Ok(1_000_000));
        assert_eq!(share("1%"), Ok(Share::of(0.01)));
        assert!(share("101%").is_err() && share("-1").is_err() && share("x").is_err());
        assert_eq!((rate("max"), rate("20_000/s")), (Ok(Rate::Max), Ok(Rate::PerSecond(20_000.0))));
        assert!(matches!(rate("50%"), Ok(Rate::OfMax(half)) if (half - 0.5).abs() < 1e-9));
        assert_eq!((duration("500ms"), duration("2m")), (Ok(Duration::from_millis(500)), Ok(Duration::from_secs(120))));
        assert_eq!(cpu_list("0-2,5"), Ok(CpuList(vec![0, 1, 2, 5])));
        assert!(rate("0").is_err() && duration("5h").is_err() && cpu_list("3-1").is_err());
    }

    #[test]
    fn only_this_machine_is_ever_loaded() {
        assert!(loopback("127.0.0.1:8080").is_ok() && loopback("[::1]:8080").is_ok());
        for address in ["10.0.0.1:8080", "0.0.0.0:8080", "example.org:80", "8.8.8.8:80"] {
            assert!(loopback(address).is_err(), "{address}");
        }
    }
}
