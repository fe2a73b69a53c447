//! Child processes that never outlive this one. The only module that speaks to the system without a safe wrapper.
//!
//! However this process ends (Ctrl-C, `kill -9`, a panic), Linux kills a child that asked for it before it became
//! its program. Nothing that this process does at its end could promise as much.

#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Starts a program that dies with the calling thread, which therefore should be the main one.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let parent = std::process::id();
    // SAFETY: between fork and exec the closure calls prctl and getppid alone, which are safe there; it neither
    // allocates nor takes a lock, on its way to an error either.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the child asked.
            if libc::getppid().unsigned_abs() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Asks a child to stop, as an operator's `kill` does.
pub(crate) fn terminate(child: &Child) {
    let Ok(id) = libc::pid_t::try_from(child.id()) else {
        return;
    };
    // SAFETY: a child that was not waited for keeps its number, so that no other process is met. A child that
    // cannot be signalled has ended, which is what is asked for.
    unsafe {
        libc::kill(id, libc::SIGTERM);
    }
}
