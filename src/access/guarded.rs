//! Memory for secrets: pages of their own, kept out of swap and of core images, and wiped before they are given back.
//!
//! Invariants: nothing else lies on these pages; what is in them is never shown; a refusal of the system to lock them is logged once,
//! and is no reason not to serve. [`wiped`] sees to what is left on the stack, [`forbid_core_dumps`] to the process as a whole.
//! Deliberately not known here: what the secrets are.
use rustix::mm::{madvise, mlock, munlock, Advice};
use rustix::process::{set_dumpable_behavior, setrlimit, DumpableBehavior, Resource, Rlimit};
use std::ffi::c_void;
use std::hint::black_box;
use std::io;
use std::sync::Once;
use zeroize::Zeroize;

/// How much of the stack is overwritten behind work with secrets: several times what the deepest of it uses.
const STACK_WIPED_BYTES: usize = 256 << 10;
/// The same behind a check of signatures, which goes less deep, and for which a core has no more than a microsecond.
const SHALLOW_WIPED_BYTES: usize = 32 << 10;

/// Aligned to the largest page of the machines that are supported, so that its size is a whole number of pages as well.
#[cfg_attr(target_arch = "x86_64", repr(C, align(4096)))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C, align(65536)))]
struct Pages<T>(T);

/// A value on pages of its own.
pub(super) struct Guarded<T: Zeroize>(Box<Pages<T>>);

impl<T: Zeroize> Guarded<T> {
    /// Sets pages up around a value that holds no secret yet: on its way here it may leave copies.
    pub(super) fn new(blank: T) -> Self {
        // What fills the last page up is copied from the stack as it is there, and is not wiped with the value.
        wiped(|| ());
        let mut pages = Box::new(Pages(blank));
        let (start, length) = extent(&mut pages);
        // SAFETY: the range is one allocation that is ours until `drop`, and covers whole pages of it. Neither call moves it or changes
        // a byte of it.
        #[allow(unsafe_code)]
        let (locked, hidden) = unsafe { (mlock(start, length), madvise(start, length, Advice::LinuxDontDump)) };
        if let Err(error) = locked.and(hidden) {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                tracing::warn!(
                    event = "memory_not_locked",
                    %error,
                    "secrets may be written to swap; raise the limit on locked memory (ulimit -l, LimitMEMLOCK=)"
                );
            });
        }
        Self(pages)
    }
}

fn extent<T>(pages: &mut Box<Pages<T>>) -> (*mut c_void, usize) {
    (std::ptr::from_mut::<Pages<T>>(pages).cast(), size_of::<Pages<T>>())
}

impl<T: Zeroize> std::ops::Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0 .0
    }
}

impl<T: Zeroize> std::ops::DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0 .0
    }
}

impl<T: Zeroize> Drop for Guarded<T> {
    fn drop(&mut self) {
        self.0 .0.zeroize();
        let (start, length) = extent(&mut self.0);
        // SAFETY: as in `new`. Whoever gets the memory next gets it as memory is by default.
        #[allow(unsafe_code)]
        let undone = unsafe { (munlock(start, length), madvise(start, length, Advice::LinuxDoDump)) };
        // What could not be locked needs no unlocking, and what stays locked harms nobody.
        let _ = undone;
    }
}

/// Does work with secrets, and overwrites the part of the stack that it has used: libraries leave copies there.
pub(super) fn wiped<T>(work: impl FnOnce() -> T) -> T {
    wiped_below::<STACK_WIPED_BYTES, T>(work)
}

/// The same for work that goes less deep, in a fraction of a microsecond.
pub(super) fn wiped_shallow<T>(work: impl FnOnce() -> T) -> T {
    wiped_below::<SHALLOW_WIPED_BYTES, T>(work)
}

fn wiped_below<const BYTES: usize, T>(work: impl FnOnce() -> T) -> T {
    #[inline(never)]
    fn below<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    #[inline(never)]
    fn overwrite<const BYTES: usize>() {
        black_box(&mut [0u8; BYTES]);
    }
    let outcome = below(work);
    overwrite::<BYTES>();
    outcome
}

/// Keeps the memory of this process out of core files, of debuggers of the same user and of `/proc`, for ever.
///
/// # Errors
/// If the system refuses one of the two.
pub fn forbid_core_dumps() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

/// Keeps all memory of this process out of swap, for ever.
///
/// # Errors
/// If the system does not allow that, and has swap; the message says what to do.
pub fn forbid_swap() -> io::Result<()> {
    use rustix::mm::{mlockall, MlockAllFlags};
    // Under a limit the call would succeed and every larger allocation fail from then on.
    let unlimited = rustix::process::getrlimit(Resource::Memlock).current.is_none();
    let locked = match unlimited || rustix::process::geteuid().is_root() {
        true => mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map_err(io::Error::from),
        false => Err(io::Error::other("the limit on locked memory is too low")),
    };
    match locked {
        Err(error) if has_swap(&std::fs::read_to_string("/proc/swaps")?) => Err(io::Error::other(format!(
            "memory cannot be kept out of swap: {error}; raise the limit (ulimit -l unlimited, LimitMEMLOCK=infinity), or turn swap off"
        ))),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Whether `/proc/swaps`, which begins with a line of headings, names any.
fn has_swap(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_seen() {
        assert!(!has_swap("Filename Type Size Used Priority\n"));
        assert!(has_swap("Filename Type Size Used Priority\n/swapfile file 1 0 -2\n"));
    }

    /// The flags of the mapping in which an address lies.
    fn flags_at(address: usize) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            if let Some((start, end)) = line.split(' ').next().and_then(|range| range.split_once('-')) {
                if let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)) {
                    inside = (start..end).contains(&address);
                }
            }
            if inside && line.starts_with("VmFlags:") {
                return line.to_owned();
            }
        }
        panic!("{address:x} is not mapped");
    }

    #[test]
    fn guarded_pages_are_left_out_of_core_images_and_are_ordinary_again_afterwards() {
        let mut guarded = Guarded::new([0u8; 5_000]);
        guarded.fill(7);
        let (start, length) = extent(&mut guarded.0);
        let address = start as usize;
        assert_eq!((address % 4096, length % 4096), (0, 0));
        assert!(guarded.iter().all(|byte| *byte == 7));
        let flags = flags_at(address);
        assert!(flags.contains(" dd"), "{flags}");
        // The limit on locked memory is the only reason that there may be.
        assert!(flags.contains(" lo") || mlock_refused(), "{flags}");
        let neighbour = Guarded::new([0u8; 5_000]);
        drop(guarded);
        drop(neighbour);
    }

    fn mlock_refused() -> bool {
        rustix::process::getrlimit(Resource::Memlock).current.is_some_and(|limit| limit < 64 << 10)
    }

    #[test]
    fn what_work_leaves_on_the_stack_is_overwritten() {
        /// Far enough down that what looks at it from above does not reach it.
        #[inline(never)]
        fn secretive() -> usize {
            let mut secret = [0x5Au8; 64 << 10];
            black_box(&mut secret);
            secret.as_ptr() as usize
        }
        let left_at = |address: usize| {
            let mut left = [0u8; 1024];
            let memory = std::fs::File::open("/proc/self/mem").unwrap();
            std::os::unix::fs::FileExt::read_exact_at(&memory, &mut left, address as u64).unwrap();
            left
        };
        assert_eq!(left_at(secretive()), [0x5A; 1024], "without it something is left");
        assert_eq!(left_at(wiped(secretive)), [0; 1024]);
    }
}
