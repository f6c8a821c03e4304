//! The signals of the system, as channels.

use std::io;
use std::process::exit;
use std::thread;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator;

use crate::cli::SIGNAL_BASE;

/// Signals that have arrived.
pub struct Signals {
    /// The number of a signal that asks this program to end.
    pub leave: Receiver<i32>,
    /// The window has another size.
    pub resize: Receiver<()>,
}

impl Signals {
    /// Starts the thread that waits for signals. One that asks to end while another still waits to
    /// be taken ends the process at once.
    ///
    /// # Errors
    /// Returns the error of the system.
    pub fn wait(restore_terminal: impl Fn() + Send + 'static) -> io::Result<Signals> {
        let mut signals = iterator::Signals::new([SIGHUP, SIGINT, SIGTERM, SIGWINCH])?;
        let (leave_sender, leave) = bounded(1);
        let (resize_sender, resize) = bounded(1);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                if signal == SIGWINCH {
                    // One that waits to be taken is enough.
                    let _ = resize_sender.try_send(());
                } else if leave_sender.try_send(signal).is_err() {
                    restore_terminal();
                    exit(i32::from(SIGNAL_BASE) + signal);
                }
            }
        })?;
        Ok(Signals { leave, resize })
    }
}
