//! A library that, preloaded into parlour, takes IPv6 from it: a kernel that was started with
//! `ipv6.disable=1` refuses such sockets with the same error.

use std::ffi::c_int;

/// Takes the place of libc's.
///
/// # Safety
/// As for libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    if domain == libc::AF_INET6 {
        // SAFETY: the address of this thread's own errno.
        unsafe { *libc::__errno_location() = libc::EAFNOSUPPORT };
        return -1;
    }
    // SAFETY: the system call behind libc's function, with what the caller gave for that.
    unsafe { libc::syscall(libc::SYS_socket, domain, kind, protocol) as c_int }
}
