//! A member of a room: what it does about what comes from the server, from who types, and from the clock.

use std::io::{self, Write};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, never, select};
use tungstenite::Utf8Bytes;

use super::backoff::Backoff;
use super::command::{self, Typed};
use super::console::Terminal;
use super::conversation::{Conversation, Said, Turn};
use super::editor::Names;
use super::heard::{self, Heard};
use super::input::Input;
use super::line::{self, Incoming, Writer};
use super::printable::{is_printable, to_printable};
use super::show::{self, Show};
use crate::cli::{PROGRAM, SIGNAL_BASE};
use crate::protocol::address::Address;
use crate::protocol::message::CloseReason;

/// For so long after an attempt that ended without a welcome, the name may be taken by nobody but oneself.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(15);
/// Messages of a pipe without a receipt. Beyond them the pipe waits, so that its end knows what has become of each.
const PENDING_MAX: usize = 32;
/// At the end of a pipe, how long to wait for the next receipt.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for the server's answer to a goodbye, and for the next receipt while some are still to come before it.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
const LAST_RECEIPT_TIMEOUT: Duration = Duration::from_secs(10);

/// One member of a room.
pub struct Member {
    address: Address,
    conversation: Conversation,
    show: Show,
    terminal: Terminal,
    names: Names,
    input: Receiver<Input>,
    json: bool,
    /// From the present connection, or the one that is being made.
    incoming: Receiver<Incoming>,
    /// To the present connection.
    writer: Option<Writer>,
    /// When the present connection was opened.
    opened: Option<Instant>,
    /// When an attempt last ended without a welcome, after which the server may still take it for connected.
    orphaned: Option<Instant>,
    backoff: Backoff,
    /// When to connect again.
    retry: Receiver<Instant>,
    /// The exit status, once this is to end.
    ending: Option<u8>,
    /// The close frame is out.
    goodbye_said: bool,
    /// When to wait no more, at the end.
    deadline: Receiver<Instant>,
    /// Why the server does not let this member in.
    refusal: Option<String>,
    /// Messages that were not delivered.
    failures: u64,
}

/// What a step ends with: an exit status, if it is the last.
type Step = Result<Option<u8>, String>;

impl Member {
    /// Not connected yet.
    pub fn new(
        address: Address,
        conversation: Conversation,
        terminal: Terminal,
        names: Names,
        json: bool,
    ) -> Member {
        Member {
            conversation,
            show: Show::new(terminal.colours, terminal.seen()),
            input: terminal.input.clone(),
            json,
            incoming: never(),
            writer: None,
            opened: None,
            orphaned: None,
            backoff: Backoff::default(),
            retry: never(),
            ending: None,
            goodbye_said: false,
            deadline: never(),
            refusal: None,
            failures: 0,
            address,
            names,
            terminal,
        }
    }

    /// The terminal, at the end.
    pub fn into_terminal(self) -> Terminal {
        self.terminal
    }

    /// Talks until it is told to stop. Returns the exit status.
    ///
    /// # Errors
    /// Says why it could not go on.
    pub fn run(&mut self, signals: &Receiver<i32>) -> Result<u8, String> {
        let ended = self.run_until_end(signals);
        if let (Err(_), Some(writer)) = (&ended, &self.writer) {
            // Nobody is to wait for this member to come back. If it fails, they do, for a little.
            let _ = if self.goodbye_said { Ok(()) } else { writer.close() };
        }
        ended
    }

    fn run_until_end(&mut self, signals: &Receiver<i32>) -> Result<u8, String> {
        self.connect()?;
        loop {
            // A pipe that is ahead of its receipts waits. After the end, only who types may say more: that it is to come now.
            let full = self.conversation.pending() >= PENDING_MAX || self.ending.is_some();
            let input =
                if full && !self.terminal.interactive { never() } else { self.input.clone() };
            let step = select! {
                recv(self.incoming) -> incoming => match incoming {
                    Ok(incoming) => self.incoming(incoming),
                    Err(_) => self.lost("its thread has ended"),
                },
                recv(input) -> input => match input {
                    Ok(input) => self.input(input),
                    Err(_) => self.input_gone(),
                },
                recv(self.retry) -> _ => self.connect(),
                recv(signals) -> signal => {
                    let signal = signal.ok().and_then(|signal| u8::try_from(signal).ok()).unwrap_or_default();
                    self.leave(SIGNAL_BASE + signal)
                }
                recv(self.deadline) -> _ => self.give_up(),
            };
            if let Some(status) = step? {
                return Ok(status);
            }
        }
    }

    fn connect(&mut self) -> Step {
        self.retry = never();
        self.backoff.count_attempt();
        let connection = line::connect(self.address.clone(), &self.conversation.query());
        self.incoming = connection.map_err(|error| format!("can't start a thread: {error}"))?;
        Ok(None)
    }

    // ---------------------------------------------------------------------------------------------- from the server

    fn incoming(&mut self, incoming: Incoming) -> Step {
        match incoming {
            Incoming::Open(writer) => {
                self.opened = Some(Instant::now());
                self.writer = Some(writer);
                Ok(None)
            }
            Incoming::Text(text) => self.heard(&text),
            // After a goodbye of one's own, no second one follows as an answer.
            Incoming::Control(_) if self.goodbye_said => Ok(None),
            Incoming::Control(frame) => self.write(|writer| writer.bytes(&frame)),
            Incoming::Quiet => self.write(Writer::ping),
            Incoming::Closed(code, reason) => self.closed(code, &reason),
            Incoming::Lost(why) => self.lost(&why),
        }
    }

    fn heard(&mut self, text: &Utf8Bytes) -> Step {
        if self.json {
            match heard::one_line(text) {
                Some(line) => self.print(format!("{line}\n"))?,
                None => self.note("the server sent something that is no JSON object")?,
            }
        }
        match Heard::parse(text) {
            // What is wrong with a newcomer is said before the close that ends the attempt.
            Some(Heard::Error { content, receipt: None })
                if self.conversation.pending_welcome() =>
            {
                self.refusal = Some(content);
                Ok(None)
            }
            Some(heard) => {
                let before = self.conversation.pending();
                let turn = self.conversation.hear(heard);
                if self.ending.is_some() && self.conversation.pending() < before {
                    // The wait is for the next.
                    self.deadline = after(self.patience());
                }
                self.take(turn)
            }
            None => Ok(None),
        }
    }

    /// Shows and sends what follows from a message.
    fn take(&mut self, turn: Turn) -> Step {
        if turn.members_changed {
            // What Tab puts into the line goes to the terminal as it is.
            let harmless =
                self.conversation.members().filter(|name| name.chars().all(is_printable));
            *self.names.lock().unwrap_or_else(PoisonError::into_inner) =
                harmless.map(str::to_owned).collect();
        }
        for said in turn.said {
            self.say(&said)?;
        }
        for text in turn.send {
            // Once the line is lost, what is left goes out on the next.
            self.write(|writer| writer.text(text))?;
        }
        match self.ending.is_some() && !self.goodbye_said {
            true => self.leave_if_settled(),
            false => Ok(None),
        }
    }

    fn closed(&mut self, code: u16, reason: &str) -> Step {
        if self.goodbye_said {
            return self.end();
        }
        // It has been answered, and nothing may follow.
        self.writer = None;
        let refusal = || self.refusal.clone().unwrap_or_else(|| reason.to_owned());
        let is = |reasons: &[CloseReason]| reasons.iter().any(|reason| reason.code() == code);
        let own_name = is(&[CloseReason::NameTaken]) && self.has_orphan();
        if is(&[CloseReason::NameTaken, CloseReason::InvalidName, CloseReason::RoomLimit])
            && !own_name
        {
            return Err(format!(
                "{} does not let you in: {}",
                self.address.authority,
                to_printable(&refusal())
            ));
        }
        if is(&[CloseReason::Replaced]) {
            return Err("this conversation has been opened elsewhere, with the same session".into());
        }
        if is(&[CloseReason::TooBig]) {
            let failed = self.conversation.fail_oldest("it is longer than this server takes");
            match failed {
                // What comes after it in a pipe may make no sense without it.
                Some(Said::Failed { content, why }) if !self.terminal.interactive => {
                    return Err(show::undelivered(&content, &why));
                }
                Some(said) => self.say(&said)?,
                None => {}
            }
        }
        if own_name {
            return self.try_again("the name is still taken");
        }
        let why = match is(&[CloseReason::ServerShutdown]) {
            true => "the server stops".to_owned(),
            false => format!("closed with {code} {}", to_printable(reason)),
        };
        self.lost(why.trim_end())
    }

    /// Whether an attempt of this member's own, whose welcome got lost with its session, may still have the name.
    fn has_orphan(&self) -> bool {
        self.conversation.joined() && self.orphaned.is_some_and(|at| at.elapsed() < ORPHAN_TIMEOUT)
    }

    /// The connection is gone, or did not come about.
    fn lost(&mut self, why: &str) -> Step {
        if self.conversation.pending_welcome() {
            self.orphaned = Some(Instant::now());
        }
        self.try_again(why)
    }

    fn try_again(&mut self, why: &str) -> Step {
        self.writer = None;
        self.incoming = never();
        self.conversation.cut();
        if self.goodbye_said {
            return self.end();
        }
        if !self.conversation.joined() {
            let Address { authority, path, .. } = &self.address;
            return Err(format!("can't join at ws://{authority}{path}: {why}"));
        }
        let lasted = self.opened.take().map_or(Duration::ZERO, |opened| opened.elapsed());
        let wait = self.backoff.wait_after(lasted);
        self.retry = after(wait);
        self.note(&format!(
            "connection lost ({why}); reconnecting in {:.1} s",
            wait.as_secs_f64()
        ))?;
        Ok(None)
    }

    // ------------------------------------------------------------------------------------------------ from who types

    fn input(&mut self, input: Input) -> Step {
        match input {
            input if self.ending.is_some() => self.late_input(input),
            Input::Line(line) if self.terminal.interactive => {
                let typed = Typed::parse(&line, self.conversation.members());
                self.typed(typed)
            }
            Input::Line(line) if line.trim().is_empty() => Ok(None),
            Input::Line(line) => self.send(None, line),
            Input::End if self.terminal.interactive => self.leave(0),
            Input::End => {
                self.ending = Some(0);
                self.deadline = after(RECEIPT_TIMEOUT);
                self.leave_if_settled()
            }
            Input::Failed(problem) => Err(problem),
        }
    }

    /// What is typed while the last receipts are still to come.
    fn late_input(&mut self, input: Input) -> Step {
        let line = match input {
            Input::Line(line) => line,
            Input::End => "/quit".to_owned(),
            // A terminal that is gone does not hurry anybody.
            Input::Failed(_) => return Ok(None),
        };
        match Typed::parse(&line, self.conversation.members()) {
            Typed::Nothing => Ok(None),
            Typed::Quit => self.end(),
            _ => self.note("you are leaving: this is not sent any more").map(|()| None),
        }
    }

    /// Nobody reads what is typed any more.
    fn input_gone(&mut self) -> Step {
        self.input = never();
        match self.ending {
            Some(_) => Ok(None),
            None => self.input(Input::End),
        }
    }

    fn typed(&mut self, typed: Typed) -> Step {
        match typed {
            Typed::Nothing => Ok(None),
            Typed::Public(content) => self.send(None, content),
            Typed::Private { to, content } => self.send(Some(to), content),
            Typed::Who => self.note(&self.conversation.who()).map(|()| None),
            Typed::Help => self.note(command::HELP).map(|()| None),
            Typed::Quit => self.leave(0),
            Typed::Unclear(problem) => self.note(problem).map(|()| None),
        }
    }

    fn send(&mut self, to: Option<String>, content: String) -> Step {
        match self.conversation.say(to, content) {
            Some(text) => self.write(|writer| writer.text(text)),
            // Before the first welcome it takes a moment, and is no news.
            None if self.terminal.interactive && self.conversation.joined() => {
                self.note("it will be sent when the connection is back").map(|()| None)
            }
            None => Ok(None),
        }
    }

    // ------------------------------------------------------------------------------------------------------- the end

    /// Says goodbye, and ends with `status` when the server has answered. It answers when it has read everything before, which
    /// it may do slowly; whoever asks for the end once more does not wait for that.
    fn leave(&mut self, status: u8) -> Step {
        self.ending = Some(status);
        if self.goodbye_said {
            return self.end();
        }
        let pending = self.conversation.pending();
        // Before the history is in, what waits has not been sent.
        let writer = self.writer.as_ref().filter(|_| pending == 0 || self.conversation.caught_up());
        let Some(writer) = writer else { return self.unsent(status) };
        self.goodbye_said = true;
        self.deadline = after(self.patience());
        if writer.close().is_err() {
            return self.end();
        }
        if pending > 0 && self.terminal.interactive {
            self.note(&format!(
                "{pending} of your messages are on their way; Ctrl-C leaves at once"
            ))?;
        }
        Ok(None)
    }

    /// How long to wait, at the end.
    fn patience(&self) -> Duration {
        match (self.goodbye_said, self.conversation.pending()) {
            (false, _) => RECEIPT_TIMEOUT,
            (true, 0) => GOODBYE_TIMEOUT,
            (true, _) => LAST_RECEIPT_TIMEOUT,
        }
    }

    /// Ends after the goodbye.
    fn end(&self) -> Step {
        match self.conversation.pending() {
            0 => Ok(self.ending),
            pending => Err(format!(
                "no receipt came for {pending} of your messages, which may not have arrived"
            )),
        }
    }

    /// At the end of a pipe, leaves once everything has its receipt.
    fn leave_if_settled(&mut self) -> Step {
        match (self.conversation.caught_up() && self.conversation.pending() == 0, self.failures) {
            (true, 0) => self.leave(0),
            (true, _) => self.leave(1),
            (false, _) => Ok(None),
        }
    }

    /// Ends without a connection.
    fn unsent(&self, status: u8) -> Step {
        match self.conversation.pending() {
            0 => Ok(Some(status)),
            pending => {
                Err(format!("{pending} of your messages could not be sent: there is no connection"))
            }
        }
    }

    /// The wait at the end has been long enough.
    fn give_up(&self) -> Step {
        if self.goodbye_said {
            return self.end();
        }
        let wait = humantime::format_duration(RECEIPT_TIMEOUT);
        Err(format!(
            "no receipt came for {wait}; {} messages have none",
            self.conversation.pending()
        ))
    }

    // ----------------------------------------------------------------------------------------------------- ways out

    /// Writes to the server. A connection that takes nothing is lost.
    fn write(&mut self, write: impl FnOnce(&Writer) -> io::Result<()>) -> Step {
        match self.writer.as_ref().map(write) {
            Some(Err(error)) => self.lost(&error.to_string()),
            _ => Ok(None),
        }
    }

    /// Shows what somebody said. With `--json`, messages have been shown as they came.
    fn say(&mut self, said: &Said) -> Result<(), String> {
        match said {
            Said::Note(note) => self.note(note),
            Said::Failed { content, why } => {
                self.failures += 1;
                self.note(&show::undelivered(content, why))
            }
            // A program knows.
            Said::Entered(_) if !self.terminal.interactive => Ok(()),
            Said::Entered(note) => self.note(note),
            _ if self.json => Ok(()),
            _ => {
                let lines = self.show.lines(said, self.conversation.name());
                self.print(lines)
            }
        }
    }

    /// Says something of this program's own: where messages are shown, unless a program may be reading them.
    fn note(&mut self, note: &str) -> Result<(), String> {
        if self.terminal.has_screen() {
            let lines = self.show.lines(&Said::Note(note.to_owned()), self.conversation.name());
            return self.print(lines);
        }
        for line in note.lines() {
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "{}: {}", PROGRAM, to_printable(line));
        }
        Ok(())
    }

    fn print(&self, lines: String) -> Result<(), String> {
        self.terminal
            .print(lines)
            .map_err(|error| format!("can't write to standard output: {error}"))
    }
}
