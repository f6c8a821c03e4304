//! A library to be preloaded into parlour, which makes one look at the clock fail. The standard
//! library then panics, so any thread can be made to panic without code for it in the program.
//!
//! `FAULT_THREAD` names the thread. Its look fails once the file `FAULT_FILE` is there, and the
//! file is removed. If `FAULT_SPARES` is a number, this many looks with the file still succeed.

use std::ffi::{CStr, c_char, c_int};
use std::sync::atomic::{AtomicI32, Ordering};

/// Longest name of a thread, with the zero at its end (pthread_setname_np(3)).
const THREAD_NAME_BYTES: usize = 16;

/// How many looks have succeeded with the file.
static SPARED: AtomicI32 = AtomicI32::new(0);

/// Replaces the function of libc.
///
/// # Safety
/// As for libc: `time` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    if is_due() {
        // SAFETY: the address of this thread's own errno.
        unsafe { *libc::__errno_location() = libc::EINVAL };
        return -1;
    }
    // SAFETY: the system call of that function, with the arguments for it.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int }
}

fn is_due() -> bool {
    let mut name = [0; THREAD_NAME_BYTES];
    // SAFETY: the buffer has the given length. No thread of the program changes its environment.
    // `access`, `unlink` and `atoi` take text from `getenv`.
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
/// Each is null or a C string.
unsafe fn is_same(a: *const c_char, b: *const c_char) -> bool {
    // SAFETY: the caller promises it.
    !a.is_null() && !b.is_null() && unsafe { CStr::from_ptr(a) == CStr::from_ptr(b) }
}
