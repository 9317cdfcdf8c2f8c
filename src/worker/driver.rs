//! The event loop of a core: io_uring with the flags that measured best, or epoll where io_uring is not to be had.
//!
//! The choice is made once for all cores by building as many rings as there are cores and running one, so that a ring that the
//! kernel refuses (memory lock limit, seccomp, sysctl) is found at start and the cause can be named together with its cure.
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};
use std::future::Future;
use std::io;

/// Submission entries of a ring; completions have twice as many, and more are kept by the kernel without loss.
const ENTRIES: u32 = 4096;

/// What an operator can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// io_uring if possible, else epoll with a warning.
    Auto,
    /// io_uring or refuse to start.
    IoUring,
    /// epoll.
    Epoll,
}

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring.
    IoUring,
    /// epoll; `cause` says why io_uring was not to be had, `None` if it was not wanted.
    Epoll {
        /// The kernel's refusal and what to do about it.
        cause: Option<String>,
    },
}

impl Driver {
    /// The name in logs, metrics and `/version`.
    pub fn name(&self) -> &'static str {
        match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll { .. } => "epoll",
        }
    }

    /// Tries what is wanted for so many cores.
    ///
    /// # Errors
    /// If io_uring is demanded and the kernel refuses it, with cause and cure.
    pub fn choose(wanted: Wanted, cores: usize) -> Result<Self, String> {
        if wanted == Wanted::Epoll {
            return Ok(Driver::Epoll { cause: None });
        }
        match self_test(cores) {
            Ok(()) => Ok(Driver::IoUring),
            Err(error) if wanted == Wanted::Auto => Ok(Driver::Epoll { cause: Some(explain(&error)) }),
            Err(error) => Err(explain(&error)),
        }
    }

    /// Runs a core's main future to its end on the calling thread.
    ///
    /// # Errors
    /// If the loop cannot be built.
    pub fn run<F: Future>(&self, main: impl FnOnce() -> F) -> io::Result<F::Output> {
        match self {
            Driver::IoUring => Ok(uring()?.block_on(async { main().await })),
            Driver::Epoll { .. } => {
                let mut runtime = RuntimeBuilder::<TimeDriver<LegacyDriver>>::new().with_entries(ENTRIES).build()?;
                Ok(runtime.block_on(async { main().await }))
            }
        }
    }
}

fn uring() -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    let mut flags = io_uring::IoUring::builder();
    // Completions are run when the core enters the kernel anyway, and only this thread submits: measured faster than epoll,
    // while the default flags are slower (docs/PERFORMANCE.md).
    flags.setup_coop_taskrun().setup_single_issuer();
    RuntimeBuilder::<TimeDriver<IoUringDriver>>::new().with_entries(ENTRIES).uring_builder(flags).build()
}

/// Builds as many rings as there are cores, as the cores do, and lets a timer run on one of them. All of them are held at once,
/// because what the kernel allows can be used up by the last one.
fn self_test(cores: usize) -> io::Result<()> {
    // A ring belongs to the thread that built it, so the test has a thread of its own.
    let test = std::thread::spawn(move || -> io::Result<()> {
        let mut rings = (0..cores).map(|_| uring()).collect::<io::Result<Vec<_>>>()?;
        if let Some(ring) = rings.last_mut() {
            ring.block_on(async { monoio::time::sleep(std::time::Duration::from_millis(1)).await });
        }
        Ok(())
    });
    test.join().map_err(|_| io::Error::other("the self-test of the ring panicked"))?
}

fn explain(error: &io::Error) -> String {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let cure = match error.raw_os_error() {
        Some(1) if disabled.trim() != "0" && !disabled.is_empty() => "set sysctl kernel.io_uring_disabled=0",
        Some(1) => "the container's seccomp profile forbids io_uring; allow io_uring_setup, io_uring_enter and io_uring_register",
        Some(12) => "raise the locked-memory limit (ulimit -l, LimitMEMLOCK in systemd) or run fewer cores",
        Some(22) => "the kernel is older than 6.0; upgrade it",
        Some(38) => "this kernel has no io_uring; use Linux 6.0 or newer",
        Some(_) | None => "see dmesg; set runtime.driver = \"epoll\" to stop this warning",
    };
    format!("io_uring is not available: {error}; {cure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_the_kernel_names_a_cure() {
        for (errno, cure) in [(1, "seccomp"), (12, "LimitMEMLOCK"), (22, "6.0"), (38, "no io_uring"), (5, "epoll")] {
            let text = explain(&io::Error::from_raw_os_error(errno));
            assert!(text.contains(cure) || (errno == 1 && text.contains("sysctl")), "{text}");
        }
    }

    #[test]
    fn both_loops_run_a_future() {
        let epoll = Driver::choose(Wanted::Epoll, 2).unwrap();
        assert_eq!(epoll.run(|| async { 7 }).unwrap(), 7);
        let auto = Driver::choose(Wanted::Auto, 2).unwrap();
        assert_eq!(std::thread::spawn(move || auto.run(|| async { 8 }).unwrap()).join().unwrap(), 8);
    }
}
