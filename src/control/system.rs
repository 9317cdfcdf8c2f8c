//! What a start asks of the system: as many open files as connections need, and that the cores have their CPUs to themselves, as far as
//! there are others.

/// Niceness of threads that may lag: where CPUs are few they leave them to those for whom somebody waits.
const NICENESS: i32 = 10;

/// Raises the limit on open files as far as the connection cap needs and the system allows.
pub(super) fn raise_file_limit(connections_max: usize) {
    use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
    /// Files beside connections: segments, sockets, rings.
    const OTHERS: u64 = 256;
    let limit = getrlimit(Resource::Nofile);
    let wanted = connections_max as u64 + OTHERS;
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return;
    }
    let raised = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    let applied = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum });
    if applied.is_err() || raised < wanted {
        tracing::warn!(
            event = "few_files",
            limit = raised,
            wanted,
            "fewer open files than limits.connections needs; raise ulimit -n"
        );
    }
}

/// Keeps this thread, and those it starts, off the CPUs of the cores if there are others: a committer that waits behind a busy
/// core makes every spend wait.
pub(super) fn leave_to_cores(usable: &[usize], cores: &[usize]) {
    let mut others = rustix::thread::CpuSet::new();
    usable.iter().filter(|cpu| !cores.contains(cpu)).for_each(|cpu| others.set(*cpu));
    if others.count() == 0 {
        return;
    }
    if let Err(error) = rustix::thread::sched_setaffinity(None, &others) {
        tracing::warn!(event = "pin_failed", %error, "the threads beside the cores could not be kept off their CPUs");
    }
}

/// Lets this thread, which may lag, go behind those for whom somebody waits.
pub(super) fn step_back() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "a thread that may lag has the priority of all others");
    }
}
