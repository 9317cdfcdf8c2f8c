//! Waking the thread that takes what lanes have queued, at no cost while it is awake.
//!
//! The sleeper says that it is about to sleep, looks once more, then sleeps; whoever queues something looks at that flag
//! afterwards. Both swap it, so what is queued either is seen or wakes.
use rustix::event::{eventfd, EventfdFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;
use std::thread::Thread;

/// A bell between lanes and the thread that serves them.
pub(super) struct Bell {
    idle: AtomicBool,
    sleeper: Sleeper,
}

enum Sleeper {
    /// Is parked.
    Thread(OnceLock<Thread>),
    /// Waits for files, and this one is among them.
    Event(OwnedFd),
}

impl AsFd for Bell {
    /// The file to be polled for reading.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.sleeper {
            Sleeper::Event(event) => event.as_fd(),
            Sleeper::Thread(_) => unreachable!("a thread that parks polls nothing"),
        }
    }
}

impl Bell {
    /// For a thread that parks.
    pub fn of_thread() -> Self {
        Self { idle: AtomicBool::new(false), sleeper: Sleeper::Thread(OnceLock::new()) }
    }

    /// For a thread that polls files.
    pub fn of_files() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { idle: AtomicBool::new(false), sleeper: Sleeper::Event(event) })
    }

    /// Says that the calling thread is the one that parks.
    pub fn answer_here(&self) {
        match &self.sleeper {
            Sleeper::Thread(thread) => {
                let _ = thread.set(std::thread::current());
            }
            Sleeper::Event(_) => unreachable!("a thread that polls is woken by its file"),
        }
    }

    /// Wakes the sleeper if it sleeps or is about to.
    pub fn ring(&self) {
        if !self.idle.swap(false, Ordering::AcqRel) {
            return;
        }
        match &self.sleeper {
            // A thread that has not come so far as to be known is awake, and looks before it sleeps.
            Sleeper::Thread(thread) => thread.get().into_iter().for_each(Thread::unpark),
            Sleeper::Event(event) => {
                // The counter is far from full, and a full one would wake as well.
                let _ = rustix::io::write(event, &1u64.to_ne_bytes());
            }
        }
    }

    /// The sleeper is about to sleep; it must look once more before it does.
    pub fn lie_down(&self) {
        self.idle.swap(true, Ordering::AcqRel);
    }

    /// The sleeper is awake.
    pub fn get_up(&self) {
        self.idle.swap(false, Ordering::AcqRel);
        if let Sleeper::Event(event) = &self.sleeper {
            // Nothing to read means that nobody rang.
            let _ = rustix::io::read(event, &mut [0u8; 8]);
        }
    }
}
