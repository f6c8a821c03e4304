//! A terminal, and a program that runs in it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{Termios, tcgetattr};

use super::eventually;
use crate::support::program::command;

/// Opens a terminal: the user's side, and the program's side.
///
/// Unlike with openpty, no child inherits either by chance, so the terminal closes when the user's
/// side does.
pub fn open() -> (File, OwnedFd) {
    let master =
        posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("a terminal of its own");
    let slave = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(ptsname_r(&master).expect("a terminal has a name"))
        .expect("its other side");
    (master.as_fd().try_clone_to_owned().expect("a descriptor").into(), slave.into())
}

/// Starts `parlour chat` in a terminal, as member `name` of the server at `address`.
pub fn chat_in_terminal(address: SocketAddr, name: &str, environment: &[(&str, &str)]) -> Pty {
    let mut command = command(&["chat", &format!("ws://{address}"), "--name", name]);
    command.env_remove("NO_COLOR").env("TERM", "xterm").env("TZ", "UTC");
    Pty::start(command.envs(environment.iter().copied()))
}

/// A terminal, the program that runs in it, and everything that it has written.
pub struct Pty {
    child: Child,
    /// The user's side.
    master: Option<File>,
    /// The program's side.
    slave: Option<OwnedFd>,
    mode_before: Termios,
    written: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Pty {
    /// Starts `command` with the terminal as its standard input, output and error.
    pub fn start(command: &mut Command) -> Pty {
        let (master, slave) = open();
        let mode_before = tcgetattr(&slave).expect("a terminal has a mode");
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child =
            command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("the program starts");
        let written = Arc::new(Mutex::new(String::new()));
        let (mut reader, so_far) = (master.try_clone().unwrap(), written.clone());
        let reader = thread::spawn(move || {
            let (mut buffer, mut bytes) = ([0; 4096], Vec::new());
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                bytes.extend(&buffer[..n]);
                // The last character may be incomplete until the next read.
                *so_far.lock().unwrap() = String::from_utf8_lossy(&bytes).into_owned();
            }
        });
        Pty {
            child,
            master: Some(master),
            slave: Some(slave),
            mode_before,
            written,
            reader: Some(reader),
        }
    }

    /// What the program has written so far.
    pub fn written(&self) -> String {
        self.written.lock().unwrap().clone()
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Makes the window `columns` wide, and notifies the program as a terminal does.
    pub fn resize(&self, columns: u16) {
        let slave = self.slave.as_ref().expect("it runs").try_clone().unwrap();
        let status =
            Command::new("stty").args(["cols", &columns.to_string()]).stdin(slave).status();
        assert!(status.expect("stty").success());
        self.signal("WINCH");
    }

    /// Types `keys`, without a line end of its own.
    pub fn press(&mut self, keys: &str) {
        self.master
            .as_mut()
            .expect("an open terminal")
            .write_all(keys.as_bytes())
            .expect("it reads");
    }

    /// Waits until the program has written `parts`, in this order, after its first `from` bytes.
    /// Returns where the last part ends.
    pub fn wait_for(&self, from: usize, parts: &[&str]) -> usize {
        eventually(&format!("{parts:?} in {}", self.written()), || {
            let written = self.written();
            parts
                .iter()
                .try_fold(from, |at, part| Some(at + written.get(at..)?.find(part)? + part.len()))
        })
    }

    /// Waits for the program's exit. Returns the status and everything that it wrote. Fails if the
    /// terminal is not in the mode that it had before.
    pub fn wait_for_exit(&mut self) -> (ExitStatus, String) {
        let status = eventually("its exit", || self.child.try_wait().expect("a child"));
        let slave = self.slave.take().expect("it exits once");
        let after = tcgetattr(&slave).expect("a terminal has a mode");
        assert_eq!(after, self.mode_before, "the mode of the terminal");
        // This was the last handle of the program's side, so the reader comes to its end.
        drop(slave);
        self.reader.take().expect("it exits once").join().expect("text");
        (status, self.written())
    }
}

impl Drop for Pty {
    /// A test that fails leaves nothing running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
