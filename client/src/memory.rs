//! How the program holds memory: what a training step frees, the next step needs again.
//!
//! By itself glibc returns large blocks to the system as they are freed, and the kernel clears every page again when it
//! is next touched. A step frees and needs a gigabyte, and spent up to two fifths of its time on that.

#![allow(unsafe_code, reason = "the C library's allocator has no safe interface")]

use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, c_int, mallopt};

/// Keeps what is freed, for all threads together. To be called before there are other threads.
pub fn keep() {
    for (parameter, value) in
        [(M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, c_int::MAX), (M_TRIM_THRESHOLD, c_int::MAX)]
    {
        // SAFETY: takes numbers, and changes nothing but the allocator's own settings. A C library that refuses one goes
        // on as it was, which costs time only.
        unsafe { mallopt(parameter, value) };
    }
}

/// Returns to the system what is free now.
pub fn release() {
    // SAFETY: takes a number, and touches only memory that nobody holds.
    unsafe { libc::malloc_trim(0) };
}
