//! What waits for the printer: a queue that is bounded in bytes, since one message may be long.

use std::io::{self, ErrorKind};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes that wait. If the terminal pauses, the app pauses at this point, and TCP makes the server
/// wait.
const PRINT_BYTES_MAX: usize = 1 << 20;

/// Creates a queue, and returns its ends.
pub fn prints() -> (PrintSender, PrintReceiver) {
    let queue = Arc::new(Queue::default());
    (PrintSender(queue.clone()), PrintReceiver(queue))
}

/// The app's end. Dropping it ends the queue.
pub struct PrintSender(Arc<Queue>);

/// The printer's end. Dropping it ends the queue as well.
pub struct PrintReceiver(Arc<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    text: String,
    /// True once either end is dropped.
    is_closed: bool,
}

impl PrintSender {
    /// Queues whole lines. Waits while the queue is full; an empty queue takes any number.
    ///
    /// # Errors
    /// If nobody will print them.
    pub fn send(&self, lines: &str) -> io::Result<()> {
        let is_full = |waiting: &mut Waiting| {
            let bytes = waiting.text.len() + lines.len();
            !waiting.is_closed && !waiting.text.is_empty() && bytes > PRINT_BYTES_MAX
        };
        let mut waiting = self.0.wait_while(is_full);
        if waiting.is_closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        waiting.text.push_str(lines);
        self.0.changed.notify_all();
        Ok(())
    }
}

impl PrintReceiver {
    /// Waits for lines, and returns all that are queued. `None` after the last.
    pub fn recv(&self) -> Option<String> {
        let is_empty = |waiting: &mut Waiting| waiting.text.is_empty() && !waiting.is_closed;
        let text = mem::take(&mut self.0.wait_while(is_empty).text);
        self.0.changed.notify_all();
        (!text.is_empty()).then_some(text)
    }
}

impl Queue {
    fn wait_while(&self, condition: impl FnMut(&mut Waiting) -> bool) -> MutexGuard<'_, Waiting> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.wait_while(waiting, condition).unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.changed.notify_all();
    }
}

impl Drop for PrintSender {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Drop for PrintReceiver {
    fn drop(&mut self) {
        self.0.close();
    }
}
