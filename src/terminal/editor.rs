//! A terminal's line, edited by rustyline while messages come in above it.
//!
//! rustyline's printer puts messages above the line, but writes to the terminal itself while no line is being edited: it could
//! tear the prompt, or overtake what it has not shown yet. So the `Gate` lets it print only between the first drawing of a
//! prompt and the line's end.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::sys::termios::{Termios, tcgetattr};
use rustyline::completion::Completer;
use rustyline::config::{ColorMode, CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, ExternalPrinter, Helper};

use super::console::{Input, hear_end, spawn};
use crate::protocol::fold::fold;

/// Texts that wait to be shown.
const TEXTS_MAX: usize = 1024;
/// Lines that the arrow keys find again.
const HISTORY_LINES: usize = 500;
const PROMPT: &str = "> ";
/// A print call that takes longer waits for the next prompt, and is past the point where it could tear this one.
const PRINT_SETTLED: Duration = Duration::from_millis(50);
/// One row up.
const UP: &str = "\x1b[A";

/// Names that Tab completes.
pub type Names = Arc<Mutex<BTreeSet<String>>>;

/// A terminal whose line is edited.
pub struct Screen {
    /// Texts to be shown.
    pub texts: Sender<String>,
    /// Disconnected when all is shown.
    pub shown: Receiver<()>,
    /// The terminal's mode before.
    pub mode: Termios,
}

/// Starts the editor and the printer.
///
/// # Errors
/// What the system says.
pub fn edit_lines(names: Names) -> io::Result<(Receiver<Input>, Screen)> {
    let mode = tcgetattr(io::stdin())?;
    let config = Config::builder()
        .auto_add_history(true)
        .completion_type(CompletionType::Circular)
        // The gate hears of each drawing as a highlighter, which is asked only where there may be colours. It adds none.
        .color_mode(ColorMode::Forced)
        .max_history_size(HISTORY_LINES)
        .map_err(io::Error::other)?
        .build();
    let history = MemHistory::with_config(&config);
    let mut editor =
        Editor::<Typing, _>::with_history(config, history).map_err(io::Error::other)?;
    let gate = Arc::new(Gate::default());
    editor.set_helper(Some(Typing { gate: gate.clone(), names }));
    let printer = editor.create_external_printer().map_err(io::Error::other)?;
    // Without a bound, so that the editor never waits for who may be waiting for the printer, and it for the editor.
    let (lines, input) = unbounded();
    let (texts, to_show) = bounded(TEXTS_MAX);
    let (showing, shown) = bounded(0);
    let printer_gate = gate.clone();
    spawn("printer", move || {
        let _showing = showing;
        print_pump(printer, &printer_gate, &to_show);
    })?;
    spawn("editor", move || {
        edit_pump(editor, &lines);
        // The editor is gone, so what is still to be shown goes to the terminal at once.
        gate.open();
        hear_end(&lines);
    })?;
    Ok((input, Screen { texts, shown, mode }))
}

/// Edits lines until there are no more.
fn edit_pump(mut editor: Editor<Typing, MemHistory>, lines: &Sender<Input>) {
    loop {
        let read = editor.readline(PROMPT);
        // The typed line has been wiped away: it comes back as the server has it. Its row is used again.
        let _ = io::stdout().write_all(UP.as_bytes()).and_then(|()| io::stdout().flush());
        let input = match read {
            Ok(line) => Input::Line(line),
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => Input::End,
            Err(error) => Input::Broken(format!("can't read from the terminal: {error}")),
        };
        let last = !matches!(input, Input::Line(_));
        if lines.send(input).is_err() || last {
            return;
        }
    }
}

/// Shows what waits, all of it with one drawing.
fn print_pump(mut printer: impl ExternalPrinter, gate: &Gate, texts: &Receiver<String>) {
    while let Ok(mut text) = texts.recv() {
        text.extend(texts.try_iter());
        gate.pass(|| {
            // A terminal that is gone ends the editor too.
            let _ = printer.print(text);
        });
    }
}

/// Keeps the printer from printing while no prompt is there.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    /// A line is being edited.
    open: bool,
    /// The printer is printing.
    printing: bool,
    /// The line is finished, and wiped away with the next drawing.
    wiping: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `print` when a prompt is there.
    fn pass(&self, print: impl FnOnce()) {
        let closed = |state: &mut GateState| !state.open;
        self.changed
            .wait_while(self.lock(), closed)
            .unwrap_or_else(PoisonError::into_inner)
            .printing = true;
        print();
        self.lock().printing = false;
        self.changed.notify_all();
    }

    fn open(&self) {
        let mut state = self.lock();
        (state.open, state.wiping) = (true, false);
        self.changed.notify_all();
    }

    /// Closes it, once the printer is not inside.
    fn close(&self, wiping: bool) {
        let mut state = self.lock();
        (state.open, state.wiping) = (false, wiping);
        // Not for ever: the printer may be waiting for the editor, which is here.
        let _ = self.changed.wait_timeout_while(state, PRINT_SETTLED, |state| state.printing);
    }
}

/// What rustyline asks while a line is being edited.
struct Typing {
    gate: Arc<Gate>,
    names: Names,
}

impl Helper for Typing {}
impl Validator for Typing {}
impl Hinter for Typing {
    type Hint = String;
}

impl Highlighter for Typing {
    /// Asked before each drawing. Always yes, so that it is asked once more when the line is finished.
    fn highlight_char(&self, line: &str, pos: usize, kind: CmdKind) -> bool {
        match kind {
            // With the cursor elsewhere, another drawing follows with it at the end.
            CmdKind::ForcedRefresh => self.gate.close(pos == line.len()),
            CmdKind::MoveCursor | CmdKind::Other => self.gate.open(),
        }
        true
    }

    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        if self.gate.lock().wiping { "".into() } else { line.into() }
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(
        &'s self,
        prompt: &'p str,
        _default: bool,
    ) -> Cow<'b, str> {
        if self.gate.lock().wiping { "".into() } else { prompt.into() }
    }
}

impl Completer for Typing {
    type Candidate = String;

    /// Names that begin as the word before the cursor does, with or without an @.
    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = &line[..pos];
        let word = before.rsplit(char::is_whitespace).next().unwrap_or_default();
        let word = word.strip_prefix('@').unwrap_or(word);
        let start = pos - word.len();
        let stem = fold(word);
        let after = if start == 0 { ": " } else { " " };
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = names.iter().filter(|name| !stem.is_empty() && fold(name).starts_with(&stem));
        Ok((start, fitting.map(|name| format!("{name}{after}")).collect()))
    }
}
