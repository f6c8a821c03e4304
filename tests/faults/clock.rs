//! A library that, preloaded into parlour, lets one look at the clock fail. std holds that to be
//! impossible and panics, so any thread can be made to panic, without a line for it in the program.
//!
//! `FAULT_THREAD` is the name of the thread. It fails when the file `FAULT_FILE` is there, which it
//! removes; if `FAULT_SPARES` names a number, so many looks after the file has come are spared.

use std::ffi::{CStr, c_char, c_int};
use std::sync::atomic::{AtomicI32, Ordering};

/// Longest name of a thread, with the zero at its end (pthread_setname_np(3)).
const THREAD_NAME_BYTES: usize = 16;

/// Looks that have been spared.
static SPARED: AtomicI32 = AtomicI32::new(0);

/// Takes the place of libc's.
///
/// # Safety
/// As for libc's: `time` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    if is_due() {
        // SAFETY: the address of this thread's own errno.
        unsafe { *libc::__errno_location() = libc::EINVAL };
        return -1;
    }
    // SAFETY: the system call behind libc's function, with what the caller gave for that.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int }
}

fn is_due() -> bool {
    let mut name = [0; THREAD_NAME_BYTES];
    // SAFETY: the buffer has the length that is told; nobody changes the environment, which is read
    // before any thread of this process writes to it; `access`, `unlink` and `atoi` take the text
    // that `getenv` gave.
    unsafe {
        let thread = libc::getenv(c"FAULT_THREAD".as_ptr());
        let file = libc::getenv(c"FAULT_FILE".as_ptr());
        let spares = libc::getenv(c"FAULT_SPARES".as_ptr());
        libc::pthread_getname_np(libc::pthread_self(), name.as_mut_ptr(), name.len()) == 0
            && is_same(thread, name.as_ptr())
            && !file.is_null()
            && libc::access(file, libc::F_OK) == 0
            && (spares.is_null() || SPARED.fetch_add(1, Ordering::Relaxed) >= libc::atoi(spares))
            && libc::unlink(file) == 0
    }
}

/// # Safety
/// Both are null or C strings.
unsafe fn is_same(a: *const c_char, b: *const c_char) -> bool {
    // SAFETY: as promised by the caller.
    !a.is_null() && !b.is_null() && unsafe { CStr::from_ptr(a) == CStr::from_ptr(b) }
}
