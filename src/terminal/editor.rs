//! The prompt of a terminal: rustyline edits its line while messages appear above it.
//!
//! rustyline's printer puts messages above the line, but only while a line is being edited. At
//! other times it writes to the terminal at once, where it can tear the prompt or overtake messages
//! that it has not shown yet. So the `Gate` lets it print only between the first drawing of a
//! prompt and the end of the line.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
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

use crate::protocol::fold::fold;
use crate::terminal::input::{Input, watch_for_ends};
use crate::terminal::prints::{PrintReceiver, PrintSender, prints};

const PROMPT: &str = "> ";
/// Lines that the arrow keys bring back.
const HISTORY_LINES: usize = 500;
/// Time for a print to finish before the line's end. One that takes longer is waiting for the next
/// prompt, and can't tear this one any more.
const PRINT_TIMEOUT: Duration = Duration::from_millis(50);
/// Moves the cursor up one row.
const UP: &str = "\x1b[A";

/// The names that Tab completes.
pub type Completions = Arc<Mutex<BTreeSet<String>>>;

/// A terminal whose prompt is edited.
pub struct Screen {
    /// Lines to show above the prompt.
    pub lines: PrintSender,
    /// Disconnected once `lines` is dropped and all of them are shown.
    pub all_shown: Receiver<()>,
    /// The terminal's mode before the editor changed it.
    pub mode_before: Termios,
}

/// Starts the threads of the editor and the printer.
///
/// # Errors
/// Returns the error of the system or of rustyline.
pub fn edit_lines(completions: Completions) -> io::Result<(Receiver<Input>, Screen)> {
    let mode_before = tcgetattr(io::stdin())?;
    let config = Config::builder()
        .auto_add_history(true)
        .completion_type(CompletionType::Circular)
        // Only with colours does rustyline ask the highlighter, and so the gate, before each
        // drawing. The highlighter adds none.
        .color_mode(ColorMode::Forced)
        .max_history_size(HISTORY_LINES)
        .map_err(io::Error::other)?
        .build();
    let history = MemHistory::with_config(&config);
    let mut editor =
        Editor::<EditorHelper, _>::with_history(config, history).map_err(io::Error::other)?;
    let gate = Arc::new(Gate::default());
    editor.set_helper(Some(EditorHelper { gate: gate.clone(), completions }));
    let printer = editor.create_external_printer().map_err(io::Error::other)?;
    // Unbounded, or three could wait for each other: the editor for the app to take a line, the app
    // for the printer, and the printer for the editor's next prompt. Only the user fills it.
    let (input_sender, input) = unbounded();
    let (lines, prints) = prints();
    let (dropped_when_shown, all_shown) = bounded(0);
    let printer_gate = gate.clone();
    // Neither is joined: the editor may still wait for a key when the program ends.
    thread::Builder::new().name("printer".to_owned()).spawn(move || {
        let _dropped_when_shown = dropped_when_shown;
        print_pump(printer, &printer_gate, &prints);
    })?;
    thread::Builder::new().name("editor".to_owned()).spawn(move || {
        edit_pump(editor, &input_sender);
        // Without an editor, prints go to the terminal at once.
        gate.open();
        watch_for_ends(&input_sender);
    })?;
    Ok((input, Screen { lines, all_shown, mode_before }))
}

/// Edits lines until the user ends the input.
fn edit_pump(mut editor: Editor<EditorHelper, MemHistory>, sender: &Sender<Input>) {
    loop {
        let line = editor.readline(PROMPT);
        // The row of the typed line is blank now, and used again: the message appears in its place
        // when the server sends it back.
        let _ = io::stdout().write_all(UP.as_bytes()).and_then(|()| io::stdout().flush());
        let input = match line {
            Ok(line) => Input::Line(line),
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => Input::End,
            Err(error) => Input::Failed(format!("can't read from the terminal: {error}")),
        };
        let is_last = !matches!(input, Input::Line(_));
        if sender.send(input).is_err() || is_last {
            return;
        }
    }
}

/// Shows what is waiting, all of it with one drawing.
fn print_pump(mut printer: impl ExternalPrinter, gate: &Gate, prints: &PrintReceiver) {
    while let Some(lines) = prints.recv() {
        gate.pass(|| {
            // A terminal that has closed ends the editor as well.
            let _ = printer.print(lines);
        });
    }
}

/// Holds the printer back while there is no prompt.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    /// True while a line is being edited.
    open: bool,
    /// True while the printer prints.
    printing: bool,
    /// True once the line is finished: the next drawing shows it blank.
    blank: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a prompt, then runs `print`.
    fn pass(&self, print: impl FnOnce()) {
        let is_closed = |state: &mut GateState| !state.open;
        self.changed
            .wait_while(self.lock(), is_closed)
            .unwrap_or_else(PoisonError::into_inner)
            .printing = true;
        print();
        self.lock().printing = false;
        self.changed.notify_all();
    }

    fn open(&self) {
        let mut state = self.lock();
        (state.open, state.blank) = (true, false);
        self.changed.notify_all();
    }

    /// Closes the gate, and waits until the printer is not inside any more.
    fn close(&self, blank: bool) {
        let mut state = self.lock();
        (state.open, state.blank) = (false, blank);
        // With a timeout, since the printer may be waiting for the editor, whose thread this is.
        let _ = self.changed.wait_timeout_while(state, PRINT_TIMEOUT, |state| state.printing);
    }
}

/// Answers rustyline's questions while a line is edited.
struct EditorHelper {
    gate: Arc<Gate>,
    completions: Completions,
}

impl Helper for EditorHelper {}
impl Validator for EditorHelper {}
impl Hinter for EditorHelper {
    type Hint = String;
}

impl Highlighter for EditorHelper {
    /// Asked before each drawing. Always true, so that it is also asked when the line is finished.
    fn highlight_char(&self, line: &str, pos: usize, kind: CmdKind) -> bool {
        match kind {
            // If the cursor is not at the end, another drawing follows that has it there.
            CmdKind::ForcedRefresh => self.gate.close(pos == line.len()),
            CmdKind::MoveCursor | CmdKind::Other => self.gate.open(),
        }
        true
    }

    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        if self.gate.lock().blank { "".into() } else { line.into() }
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(
        &'s self,
        prompt: &'p str,
        _default: bool,
    ) -> Cow<'b, str> {
        if self.gate.lock().blank { "".into() } else { prompt.into() }
    }
}

impl Completer for EditorHelper {
    type Candidate = String;

    /// Returns the names that begin with the word before the cursor, which may begin with an `@`.
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
        let suffix = if start == 0 { ": " } else { " " };
        let names = self.completions.lock().unwrap_or_else(PoisonError::into_inner);
        let matching =
            names.iter().filter(|name| !stem.is_empty() && fold(name).starts_with(&stem));
        Ok((start, matching.map(|name| format!("{name}{suffix}")).collect()))
    }
}
