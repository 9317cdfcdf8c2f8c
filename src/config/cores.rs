//! Which CPUs get a core worker: what was asked for, and what this process may use.
use super::raw::Raw;
use super::value::{digits, Reading};
use crate::domain::limits::CORES_MAX;

/// The CPUs that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Every CPU that this process may use.
    Auto,
    /// So many of them, lowest numbers first.
    Count(usize),
    /// Exactly these CPU numbers, in this order.
    List(Vec<usize>),
}

/// How a core worker waits for its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where it can be had, otherwise epoll with a warning.
    Auto,
    /// io_uring or no start.
    IoUring,
    /// epoll.
    Epoll,
}

/// Highest CPU number that Linux's affinity masks hold here.
const CPU_MAX: usize = rustix::thread::CpuSet::MAX_CPU - 1;

impl Cores {
    /// The CPUs to run on, one worker each, in the order of the workers. `usable` is what [`cpus_usable`] returns.
    ///
    /// # Errors
    /// A sentence, if more or others are asked for than are usable.
    pub fn resolve(&self, usable: &[usize]) -> Result<Vec<usize>, String> {
        let usable_shown = || shown_cpus(usable);
        match self {
            Cores::Auto if usable.is_empty() => Err("no CPU is usable; widen the affinity of this process".to_owned()),
            Cores::Auto => Ok(usable.iter().copied().take(CORES_MAX).collect()),
            Cores::Count(count) if *count > usable.len() => Err(format!(
                "{count} cores are asked for, but this process may use only {} (CPUs {}); lower it, or write auto",
                usable.len(),
                usable_shown()
            )),
            Cores::Count(count) => Ok(usable[..*count].to_vec()),
            Cores::List(cpus) => match cpus.iter().find(|cpu| !usable.contains(cpu)) {
                Some(cpu) => Err(format!(
                    "CPU {cpu} is not among those that this process may use ({}); choose from them, or write auto",
                    usable_shown()
                )),
                None => Ok(cpus.clone()),
            },
        }
    }
}

/// The CPUs on which this thread may run, ascending; a container's or taskset's limits are respected.
pub fn cpus_usable() -> std::io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..=CPU_MAX).filter(|cpu| set.is_set(*cpu)).collect())
}

/// `auto`, a number of cores, or a list of CPUs (`"0-3,6"` or an array of numbers).
pub fn cores(raw: &Raw) -> Reading<Cores> {
    let wrong = || format!("{raw} is neither auto, a number of cores, nor a list of CPUs such as \"0-3,6\"");
    match raw {
        Raw::Text(text) if text.trim().eq_ignore_ascii_case("auto") => Ok(Cores::Auto),
        Raw::Text(text) => match digits(text.trim()) {
            Some(count) => counted(count),
            None => {
                let inner = text.trim();
                let inner = inner.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(inner);
                let mut cpus = Vec::new();
                for part in inner.split(',') {
                    let (first, last) = part.split_once('-').unwrap_or((part, part));
                    let first = digits(first.trim()).ok_or_else(wrong)?;
                    let last = digits(last.trim()).ok_or_else(wrong)?;
                    if first > last {
                        return Err(format!("{raw} counts down from {first} to {last}; write the lower CPU first"));
                    }
                    add(&mut cpus, first, last)?;
                }
                Ok(Cores::List(cpus))
            }
        },
        Raw::Integer(count) => counted(u64::try_from(*count).map_err(|_| wrong())?),
        Raw::List(items) if !items.is_empty() => {
            let mut cpus = Vec::new();
            for item in items {
                let cpu = match item {
                    Raw::Integer(cpu) => u64::try_from(*cpu).map_err(|_| wrong())?,
                    Raw::Text(_) | Raw::Float(_) | Raw::Bool(_) | Raw::List(_) | Raw::Table(_) => return Err(wrong()),
                };
                add(&mut cpus, cpu, cpu)?;
            }
            Ok(Cores::List(cpus))
        }
        Raw::List(_) | Raw::Float(_) | Raw::Bool(_) | Raw::Table(_) => Err(wrong()),
    }
}

/// `auto`, `io_uring` or `epoll`.
pub fn driver(raw: &Raw) -> Reading<Driver> {
    let text = super::value::text(raw)?;
    [Driver::Auto, Driver::IoUring, Driver::Epoll]
        .into_iter()
        .find(|driver| driver.as_str() == text)
        .ok_or_else(|| format!("{raw} is no driver; write auto, io_uring or epoll"))
}

fn counted(count: u64) -> Reading<Cores> {
    match usize::try_from(count) {
        Ok(count) if (1..=CORES_MAX).contains(&count) => Ok(Cores::Count(count)),
        Ok(_) | Err(_) => Err(format!("{count} cores is out of range; choose from 1 to {CORES_MAX}, or write auto")),
    }
}

fn add(cpus: &mut Vec<usize>, first: u64, last: u64) -> Reading<()> {
    let in_range = |cpu: u64| usize::try_from(cpu).ok().filter(|cpu| *cpu <= CPU_MAX);
    let first = in_range(first).ok_or_else(|| format!("CPU {first} is out of range; choose from 0 to {CPU_MAX}"))?;
    let last = in_range(last).ok_or_else(|| format!("CPU {last} is out of range; choose from 0 to {CPU_MAX}"))?;
    for cpu in first..=last {
        if cpus.contains(&cpu) {
            return Err(format!("names CPU {cpu} twice; name each CPU once"));
        }
        if cpus.len() == CORES_MAX {
            return Err(format!("names more than {CORES_MAX} CPUs; name at most that many"));
        }
        cpus.push(cpu);
    }
    Ok(())
}

/// CPU numbers in the form in which a list of them is written: `0-3,6`.
pub fn shown_cpus(cpus: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            Some(_) | None => runs.push((*cpu, *cpu)),
        }
    }
    // A single CPU is written as a range, because a bare number would mean so many cores.
    let alone = cpus.len() == 1;
    let shown = |(first, last): &(usize, usize)| match first == last && !alone {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.iter().map(shown).collect::<Vec<_>>().join(",")
}

impl std::fmt::Display for Cores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cores::Auto => f.write_str("auto"),
            Cores::Count(count) => count.fmt(f),
            Cores::List(cpus) => f.write_str(&shown_cpus(cpus)),
        }
    }
}

impl Driver {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Driver::Auto => "auto",
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn counts_lists_and_ranges_are_told_apart() {
        assert_eq!(cores(&of("auto")), Ok(Cores::Auto));
        assert_eq!(cores(&of("2")), Ok(Cores::Count(2)));
        assert_eq!(cores(&Raw::Integer(2)), Ok(Cores::Count(2)));
        assert_eq!(cores(&of("0-3,6")), Ok(Cores::List(vec![0, 1, 2, 3, 6])));
        assert_eq!(cores(&of("[4, 1]")), Ok(Cores::List(vec![4, 1])));
        assert_eq!(cores(&Raw::List(vec![Raw::Integer(5)])), Ok(Cores::List(vec![5])));
        for bad in ["", "-1", "0", "257", "3-1", "0,0", "0-1,1", "a", "1-", "0-999", "2000-2001", "1.5"] {
            assert!(cores(&of(bad)).is_err(), "{bad:?}");
        }
        for bad in [Raw::Integer(-1), Raw::List(vec![]), Raw::List(vec![Raw::Bool(true)]), Raw::Float(1.0)] {
            assert!(cores(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_shown_list_reads_back_as_itself() {
        for cpus in [vec![0], vec![7], vec![0, 1], vec![0, 1, 2, 3, 6], vec![4, 1], vec![2, 4]] {
            assert_eq!(cores(&of(&shown_cpus(&cpus))), Ok(Cores::List(cpus)));
        }
    }

    #[test]
    fn only_usable_cpus_are_given_out() {
        let usable = [0, 2, 3];
        assert_eq!(Cores::Auto.resolve(&usable), Ok(vec![0, 2, 3]));
        assert_eq!(Cores::Count(2).resolve(&usable), Ok(vec![0, 2]));
        assert_eq!(Cores::List(vec![3, 0]).resolve(&usable), Ok(vec![3, 0]));
        assert!(Cores::Count(4).resolve(&usable).unwrap_err().contains("only 3 (CPUs 0,2-3)"));
        assert!(Cores::List(vec![1]).resolve(&usable).unwrap_err().contains("CPU 1 is not among"));
        assert!(Cores::Auto.resolve(&[]).is_err());
        assert!(!cpus_usable().unwrap().is_empty());
    }
}
