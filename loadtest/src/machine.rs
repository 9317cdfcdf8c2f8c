//! What is asked of the machine: CPUs, file descriptors, Ctrl-C, and the programs beside this one.

use std::{
    path::PathBuf,
    process::Command,
    sync::{atomic::AtomicBool, Arc},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    process::{getrlimit, setrlimit, Resource, Rlimit},
    thread::{sched_getaffinity, sched_setaffinity, CpuSet},
};

use crate::fault::Fault;

/// A flag that Ctrl-C and SIGTERM raise; everything that waits looks at it.
///
/// # Errors
/// [`Fault::Io`] if the handlers cannot be installed.
pub fn stop_flag() -> Result<Arc<AtomicBool>, Fault> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Fault::io("installing a signal handler"))?;
    }
    Ok(stop)
}

/// The CPUs that this process may use.
///
/// # Errors
/// [`Fault::Io`] from the system call.
pub fn cpus_usable() -> Result<Vec<usize>, Fault> {
    let set = sched_getaffinity(None).map_err(|error| Fault::io("reading the CPU affinity")(error.into()))?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Pins this thread, and what it starts from now on.
///
/// # Errors
/// [`Fault::Usage`] if one of the CPUs may not be used.
pub fn pin(cpus: &[usize]) -> Result<(), Fault> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    sched_setaffinity(None, &set).map_err(|error| Fault::Usage(format!("CPU {cpus:?} cannot be used: {error}")))
}

/// The generator's CPU: the one asked for, or the last that the server does not use, or the last.
///
/// # Errors
/// Those of [`cpus_usable`].
pub fn generator_cpu(asked: Option<usize>, server: &[usize]) -> Result<usize, Fault> {
    let usable = cpus_usable()?;
    let free = usable.iter().rev().find(|cpu| !server.contains(cpu)).or(usable.last());
    asked.or(free.copied()).ok_or_else(|| Fault::Usage("this process may use no CPU".into()))
}

/// Raises the limit of open files as far as it goes; what is started inherits it. Gives the limit.
///
/// # Errors
/// [`Fault::Usage`] if it stays below `needed`.
pub fn raise_open_files(needed: u64) -> Result<u64, Fault> {
    let limits = getrlimit(Resource::Nofile);
    let most = limits.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    setrlimit(Resource::Nofile, raised).map_err(|error| Fault::io("raising the limit of open files")(error.into()))?;
    if most < needed {
        return Err(Fault::Usage(format!(
            "this test needs {needed} open files, and the hard limit is {most}: use fewer connections, or raise it \
             (`ulimit -Hn`, or LimitNOFILE of the service)"
        )));
    }
    Ok(most)
}

/// The most memory that a process has had, in bytes; 0 if it cannot be told.
pub fn memory_bytes_max(pid: rustix::process::Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// A seed from the clock, if none was given.
pub fn seed(asked: Option<u64>) -> u64 {
    asked.unwrap_or_else(|| since_epoch_ns() / 1_000 % 1_000_000_000)
}

/// Tells the keys of this run from those of every other run against the same server.
pub fn run_tag() -> u32 {
    (since_epoch_ns() / 1_000_000) as u32 ^ std::process::id().rotate_left(16)
}

fn since_epoch_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// The server's binary: the one asked for, or the one beside this program. Under `cargo run` it is built first, so that
/// what is tested is what the sources say.
///
/// # Errors
/// [`Fault::MissingProgram`], or [`Fault::Program`] if it cannot be built.
pub fn server_program(asked: Option<PathBuf>) -> Result<PathBuf, Fault> {
    if let Some(path) = asked {
        // It is started in another directory.
        return path.canonicalize().map_err(|_| Fault::MissingProgram { path });
    }
    let own = std::env::current_exe().map_err(Fault::io("finding this program"))?;
    let directory = own.parent().expect("a program lies in a directory");
    if let (Ok(cargo), Ok(_)) = (std::env::var("CARGO"), std::env::var("CARGO_MANIFEST_DIR")) {
        let profile = match directory.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let status = Command::new(cargo)
            .args(["build", "--quiet", "--package", "svc-wallet", "--bins", "--profile", profile])
            .status()
            .map_err(Fault::io("starting cargo"))?;
        if !status.success() {
            return Err(Fault::Program { what: "building svc-wallet".into(), cause: status.to_string() });
        }
    }
    let path = directory.join("svc-wallet");
    if path.exists() {
        Ok(path)
    } else {
        Err(Fault::MissingProgram { path })
    }
}
