//! The thread that decides. It selects over the connection, the input, signals and timers, as the
//! server's hub does over its own. Nobody else writes to the connection or to the transcript.

use std::io::{self, Write};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, never, select};
use tungstenite::Utf8Bytes;

use crate::cli::{FAILURE, PROGRAM, SIGNAL_BASE};
use crate::protocol::address::Address;
use crate::protocol::close::CloseReason;
use crate::protocol::message::ErrorCode;
use crate::terminal::backoff::Backoff;
use crate::terminal::connection::{ConnectionEvent, Timeouts, WriteHalf, connect};
use crate::terminal::console::Console;
use crate::terminal::conversation::{Conversation, Effects, Entry};
use crate::terminal::editor::Completions;
use crate::terminal::input::Input;
use crate::terminal::printable::{is_printable, to_printable};
use crate::terminal::received::{self, Excess, MEMBERS_MAX, Received};
use crate::terminal::signals::Signals;
use crate::terminal::transcript::{Transcript, undelivered};
use crate::terminal::typed_line::{HELP, TypedLine};

/// How long an attempt that ended without a welcome may live on as a member. As on IRC, a ghost
/// keeps its name taken.
const GHOST_TIMEOUT: Duration = Duration::from_secs(15);
/// Unconfirmed messages at which a pipe has to wait, so that few are in doubt if the chat fails.
const UNCONFIRMED_MAX: usize = 32;
/// While leaving, time to wait for each confirmation.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(60);
/// After the close frame, time to wait for the server's.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// What to say of rows that were shown in a wider window.
const NARROWER: &str = "the window is narrower now, and your terminal may have broken the rows \
                        above: one there that begins like a message need not be one";

/// One run of `parlour chat`.
pub struct App {
    address: Address,
    conversation: Conversation,
    transcript: Transcript,
    console: Console,
    completions: Completions,
    input: Receiver<Input>,
    /// True to print each message as JSON.
    json: bool,
    /// Of the current connection, or of the one being opened.
    events: Receiver<ConnectionEvent>,
    /// `None` while no connection is open.
    write_half: Option<WriteHalf>,
    /// When the current connection was opened.
    opened: Option<Instant>,
    /// When an attempt last ended without a welcome.
    ghost_since: Option<Instant>,
    backoff: Backoff,
    /// Fires when it is time to connect again.
    retry: Receiver<Instant>,
    /// The exit status, once this app is leaving.
    status: Option<u8>,
    /// True once the close frame has been sent. No other frame may follow.
    close_sent: bool,
    /// While leaving, fires when the wait has been long enough.
    deadline: Receiver<Instant>,
    /// The server's explanation if it refuses this member.
    refusal: Option<String>,
    /// Messages that were not delivered.
    failures: u64,
}

/// What each step returns: the exit status if it was the last step, or why the app can't go on.
type Step = Result<Option<u8>, String>;

impl App {
    /// Prepares a run that is not connected yet.
    pub fn new(
        address: Address,
        conversation: Conversation,
        console: Console,
        completions: Completions,
        json: bool,
    ) -> App {
        App {
            transcript: Transcript::new(console.colours, console.output_is_terminal),
            input: console.input.clone(),
            json,
            events: never(),
            write_half: None,
            opened: None,
            ghost_since: None,
            backoff: Backoff::default(),
            retry: never(),
            status: None,
            close_sent: false,
            deadline: never(),
            refusal: None,
            failures: 0,
            address,
            conversation,
            console,
            completions,
        }
    }

    /// Chats until the user leaves, the input ends, a signal arrives or the server refuses. Returns
    /// the exit status.
    ///
    /// # Errors
    /// Says why the chat can't go on.
    pub fn run(&mut self, signals: &Signals) -> Result<u8, String> {
        let result = self.run_until_end(signals);
        if result.is_err()
            && !self.close_sent
            && let Some(write_half) = &self.write_half
        {
            // If this fails, the room waits a while for this member to return.
            let _ = write_half.send_close();
        }
        result
    }

    /// Returns the console, at the end.
    pub fn into_console(self) -> Console {
        self.console
    }

    fn run_until_end(&mut self, signals: &Signals) -> Result<u8, String> {
        self.connect()?;
        loop {
            let input = if self.may_read_input() { self.input.clone() } else { never() };
            let step = select! {
                recv(self.events) -> event => match event {
                    Ok(event) => self.handle_event(event),
                    Err(_) => self.handle_loss("its thread has ended"),
                },
                recv(input) -> input => match input {
                    Ok(input) => self.handle_input(input),
                    Err(_) => self.input_gone(),
                },
                recv(self.retry) -> _ => self.connect(),
                recv(signals.leave) -> signal => {
                    let number = signal.ok().and_then(|signal| u8::try_from(signal).ok());
                    self.leave(SIGNAL_BASE + number.unwrap_or_default())
                }
                recv(signals.resize) -> _ => self.handle_resize(),
                recv(self.deadline) -> _ => self.give_up(),
            };
            if let Some(status) = step? {
                return Ok(status);
            }
        }
    }

    /// True if input may be taken. A pipe waits while too many messages are unconfirmed, and while
    /// leaving. A user may always type: while leaving, to ask to quit at once.
    fn may_read_input(&self) -> bool {
        let must_wait = self.status.is_some() || self.conversation.unconfirmed() >= UNCONFIRMED_MAX;
        self.console.interactive || !must_wait
    }

    fn connect(&mut self) -> Step {
        self.retry = never();
        self.backoff.count_attempt();
        let query = self.conversation.query();
        self.events = connect(self.address.clone(), &query, Timeouts::default())
            .map_err(|error| format!("can't start a thread: {error}"))?;
        Ok(None)
    }

    // ------------------------------------------------------------------------- the connection

    fn handle_event(&mut self, event: ConnectionEvent) -> Step {
        match event {
            ConnectionEvent::Opened(write_half) => {
                self.opened = Some(Instant::now());
                self.write_half = Some(write_half);
                Ok(None)
            }
            ConnectionEvent::Text(text) => self.receive(&text),
            ConnectionEvent::Reply(_) if self.close_sent => Ok(None),
            ConnectionEvent::Reply(frame) => {
                self.send(|write_half| write_half.send_encoded(&frame))
            }
            ConnectionEvent::Quiet => self.send(WriteHalf::send_ping),
            ConnectionEvent::Closed(code, reason) => self.handle_close(code, &reason),
            ConnectionEvent::Exceeded(excess) => self.reject(&excess),
            ConnectionEvent::Lost(why) => self.handle_loss(&why),
        }
    }

    fn receive(&mut self, text: &Utf8Bytes) -> Step {
        let received = match Received::parse(text) {
            Ok(received) => received,
            Err(excess) => return self.reject(&excess),
        };
        if self.json {
            match received::one_line(text) {
                Some(line) => written(self.console.print(&format!("{line}\n")))?,
                None => self.note("the server sent something that is not a JSON object")?,
            }
        }
        match received {
            // The server explains a refusal before it closes the connection.
            Some(Received::Error { content, reference: None, .. })
                if self.conversation.awaits_welcome() =>
            {
                self.refusal = Some(content);
                Ok(None)
            }
            // A pipe waits for its confirmations in any case.
            Some(Received::Error { code, .. })
                if code == ErrorCode::SlowedDown.name() && !self.console.interactive =>
            {
                Ok(None)
            }
            Some(message) => {
                let before = self.conversation.unconfirmed();
                let effects = self.conversation.receive(message);
                let members = self.conversation.members_count();
                if let Err(excess) = Excess::check(members, MEMBERS_MAX, "members") {
                    return self.reject(&excess);
                }
                if self.status.is_some() && self.conversation.unconfirmed() < before {
                    self.deadline = after(self.patience());
                }
                self.apply(effects)
            }
            None => Ok(None),
        }
    }

    /// Ends the chat with a server that sends more than any server of parlour. No bound would hold
    /// for what it sends next.
    fn reject(&mut self, excess: &Excess) -> Step {
        // Without a close frame, which such a server might never take.
        self.write_half = None;
        let server = &self.address.authority;
        Err(format!("{server} sent {excess}: no server of parlour does that"))
    }

    /// Shows and sends what follows from a message.
    fn apply(&mut self, effects: Effects) -> Step {
        if effects.members_changed && self.console.has_screen() {
            // Tab puts a name on the screen as it is.
            let names = self.conversation.members().filter(|name| name.chars().all(is_printable));
            *self.completions.lock().unwrap_or_else(PoisonError::into_inner) =
                names.map(str::to_owned).collect();
        }
        for entry in effects.to_show {
            self.show(&entry)?;
        }
        for text in effects.to_send {
            // If the connection breaks here, the rest is sent on the next one.
            self.send(|write_half| write_half.send_text(text))?;
        }
        if self.status.is_some() && !self.close_sent { self.leave_if_confirmed() } else { Ok(None) }
    }

    fn handle_close(&mut self, code: u16, reason: &str) -> Step {
        if self.close_sent {
            return self.end();
        }
        // The reply has been sent, and nothing may follow it.
        self.write_half = None;
        let is = |reason: CloseReason| reason.code() == code;
        if is(CloseReason::NameTaken) && self.has_ghost() {
            return self.reconnect("the name is still taken");
        }
        // The code for a bad name is also the one for a bad room.
        if is(CloseReason::NameTaken) || is(CloseReason::InvalidName) || is(CloseReason::RoomLimit)
        {
            let refusal = to_printable(self.refusal.as_deref().unwrap_or(reason));
            return Err(format!("{} does not let you in: {refusal}", self.address.authority));
        }
        if is(CloseReason::Replaced) {
            return Err("this conversation was opened elsewhere with the same session".into());
        }
        if is(CloseReason::TooBig) {
            self.fail_too_big()?;
        }
        let why = if is(CloseReason::ServerShutdown) {
            "the server is stopping".to_owned()
        } else {
            format!("closed with {code} {}", to_printable(reason))
        };
        self.handle_loss(why.trim_end())
    }

    /// Gives up the message that was too long for the server. That ends a pipe: its next lines may
    /// make no sense without this one.
    fn fail_too_big(&mut self) -> Result<(), String> {
        match self.conversation.fail_oldest("it is longer than this server accepts") {
            Some(Entry::Undelivered { content, why }) if !self.console.interactive => {
                Err(undelivered(&content, &why))
            }
            Some(entry) => self.show(&entry),
            None => Ok(()),
        }
    }

    /// True if this member's own ghost may have the name. The session that would prove it was lost
    /// with the welcome.
    fn has_ghost(&self) -> bool {
        let is_recent = |since: Instant| since.elapsed() < GHOST_TIMEOUT;
        self.conversation.has_joined() && self.ghost_since.is_some_and(is_recent)
    }

    /// Handles a connection that broke or could not be opened.
    fn handle_loss(&mut self, why: &str) -> Step {
        if self.conversation.awaits_welcome() {
            self.ghost_since = Some(Instant::now());
        }
        self.reconnect(why)
    }

    /// Connects again after a while, unless this member has never joined or is leaving.
    fn reconnect(&mut self, why: &str) -> Step {
        self.write_half = None;
        self.events = never();
        self.conversation.disconnect();
        let is_done = self.status.is_some() && self.conversation.unconfirmed() == 0;
        if self.close_sent || (is_done && self.conversation.has_joined()) {
            return self.end();
        }
        if !self.conversation.has_joined() {
            let Address { authority, path, .. } = &self.address;
            return Err(format!("can't join at ws://{authority}{path}: {why}"));
        }
        let lasted = self.opened.take().map_or(Duration::ZERO, |opened| opened.elapsed());
        let wait = self.backoff.wait_after(lasted);
        self.retry = after(wait);
        let seconds = wait.as_secs_f64();
        self.note(&format!("connection lost ({why}); reconnecting in {seconds:.1} s"))?;
        Ok(None)
    }

    // ------------------------------------------------------------------------------ the input

    fn handle_input(&mut self, input: Input) -> Step {
        match input {
            input if self.status.is_some() => self.handle_late_input(input),
            Input::Line(line) if self.console.interactive => self.handle_typed_line(&line),
            Input::Line(line) if line.trim().is_empty() => Ok(None),
            Input::Line(line) => self.post(None, line),
            Input::End if self.console.interactive => self.leave(0),
            Input::End => {
                self.status = Some(0);
                self.deadline = after(self.patience());
                self.leave_if_confirmed()
            }
            Input::Failed(problem) => Err(problem),
        }
    }

    /// Handles what the user types while the last confirmations are still due.
    fn handle_late_input(&mut self, input: Input) -> Step {
        let line = match input {
            Input::Line(line) => line,
            Input::End => return self.end(),
            // A terminal that has closed is not a request to quit at once.
            Input::Failed(_) => return Ok(None),
        };
        match TypedLine::parse(&line, self.conversation.members()) {
            TypedLine::Blank => Ok(None),
            TypedLine::Quit => self.end(),
            _ => self.note("you are leaving: this was not sent").map(|()| None),
        }
    }

    /// Handles an input whose thread has ended.
    fn input_gone(&mut self) -> Step {
        self.input = never();
        if self.status.is_some() { Ok(None) } else { self.handle_input(Input::End) }
    }

    fn handle_typed_line(&mut self, line: &str) -> Step {
        match TypedLine::parse(line, self.conversation.members()) {
            TypedLine::Blank => return Ok(None),
            TypedLine::Public(content) => return self.post(None, content),
            TypedLine::Private { to, content } => return self.post(Some(to), content),
            TypedLine::Who => self.note(&self.conversation.describe_members(usize::MAX))?,
            TypedLine::Help => self.note(HELP)?,
            TypedLine::Quit => return self.leave(0),
            TypedLine::Invalid(problem) => self.note(problem)?,
        }
        Ok(None)
    }

    /// Sends a message, or keeps it until there is a connection.
    fn post(&mut self, to: Option<String>, content: String) -> Step {
        match self.conversation.post(to, content) {
            Some(text) => self.send(|write_half| write_half.send_text(text)),
            // The first connection takes only a moment.
            None if self.console.interactive && self.conversation.has_joined() => {
                self.note("it will be sent when the connection is back").map(|()| None)
            }
            None => Ok(None),
        }
    }

    // -------------------------------------------------------------------------------- the end

    /// Leaves with `status`, once the server has confirmed everything sent. Ends at once when
    /// called again.
    fn leave(&mut self, status: u8) -> Step {
        if self.status.replace(status).is_some() {
            return self.end();
        }
        let unconfirmed = self.conversation.unconfirmed();
        if unconfirmed == 0 {
            return self.close();
        }
        if self.write_half.is_none() || !self.conversation.is_up_to_date() {
            return self.end_unsent(status);
        }
        self.deadline = after(self.patience());
        if self.console.interactive {
            self.note(&format!(
                "{unconfirmed} of your messages are on their way; Ctrl-C leaves at once"
            ))?;
        }
        Ok(None)
    }

    /// While leaving, closes the connection once all messages are confirmed.
    fn leave_if_confirmed(&mut self) -> Step {
        if !self.conversation.is_up_to_date() || self.conversation.unconfirmed() > 0 {
            return Ok(None);
        }
        self.close()
    }

    /// Sends the close frame. The end comes when the server has replied.
    fn close(&mut self) -> Step {
        let Some(write_half) = &self.write_half else { return self.end() };
        self.close_sent = true;
        self.deadline = after(self.patience());
        if write_half.send_close().is_err() { self.end() } else { Ok(None) }
    }

    /// How long to wait, while leaving.
    fn patience(&self) -> Duration {
        if self.close_sent { CLOSE_TIMEOUT } else { CONFIRMATION_TIMEOUT }
    }

    /// Ends at once.
    fn end(&self) -> Step {
        match self.conversation.unconfirmed() {
            // A pipe fails if one of its messages did.
            0 if self.failures > 0 && !self.console.interactive => Ok(Some(FAILURE)),
            0 => Ok(self.status),
            unconfirmed => Err(format!(
                "{unconfirmed} of your messages may not have arrived: \
                 the server did not confirm them"
            )),
        }
    }

    /// Ends while there is no connection, or before anything was sent on it.
    fn end_unsent(&self, status: u8) -> Step {
        match self.conversation.unconfirmed() {
            0 => Ok(Some(status)),
            unsent => {
                Err(format!("{unsent} of your messages could not be sent: there is no connection"))
            }
        }
    }

    /// Ends because the wait has been long enough.
    fn give_up(&self) -> Step {
        if self.close_sent {
            return self.end();
        }
        let unconfirmed = self.conversation.unconfirmed();
        let wait = humantime::format_duration(CONFIRMATION_TIMEOUT);
        Err(format!(
            "the server confirmed nothing for {wait}; \
             {unconfirmed} of your messages may not have arrived"
        ))
    }

    // ----------------------------------------------------------------------------- the output

    /// Writes to the server. A connection that can't be written to is lost.
    fn send(&mut self, send: impl FnOnce(&WriteHalf) -> io::Result<()>) -> Step {
        match self.write_half.as_ref().map(send) {
            Some(Err(error)) => self.handle_loss(&error.to_string()),
            _ => Ok(None),
        }
    }

    /// Shows an entry. With `--json`, messages have been printed already.
    fn show(&mut self, entry: &Entry) -> Result<(), String> {
        match entry {
            Entry::Note(note) => self.note(note),
            Entry::Undelivered { content, why } => {
                self.failures += 1;
                self.note(&undelivered(content, why))
            }
            // A program needs no greeting.
            Entry::Greeting(_) if !self.console.interactive => Ok(()),
            Entry::Greeting(greeting) => self.note(greeting),
            _ if self.json => Ok(()),
            _ => self.print(entry),
        }
    }

    /// Shows a note of this program: among the messages, or on standard error if a program may be
    /// reading those.
    fn note(&mut self, note: &str) -> Result<(), String> {
        if self.console.has_screen() {
            return self.print(&Entry::Note(note.to_owned()));
        }
        for line in note.lines() {
            // Standard error may be closed.
            let _ = writeln!(io::stderr(), "{PROGRAM}: {}", to_printable(line));
        }
        Ok(())
    }

    /// Shows an entry in the transcript.
    fn print(&mut self, entry: &Entry) -> Result<(), String> {
        let columns = self.console.columns();
        let lines = self.transcript.lines(entry, self.conversation.name(), columns);
        written(self.console.print_rows(&lines))
    }

    /// Handles a window that has another size. Most terminals break rows that have become too wide,
    /// and go on in the first column.
    fn handle_resize(&mut self) -> Step {
        let Some(columns) = self.console.columns() else { return Ok(None) };
        if self.transcript.widest_row() > columns {
            self.print(&Entry::Note(NARROWER.to_owned()))?;
            self.transcript.forget_widest_row();
        }
        Ok(None)
    }
}

/// Returns what to say if standard output failed.
fn written(result: io::Result<()>) -> Result<(), String> {
    result.map_err(|error| format!("can't write to standard output: {error}"))
}
