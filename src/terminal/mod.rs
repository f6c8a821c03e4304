//! `parlour chat`: a member of a room, in a terminal or as a program's pipe.
//!
//! As on the server, each thread waits for one thing: `line` has the one that reads from the socket, `terminal` the one that
//! reads what is typed. This one selects over what they send, writes to the socket, and decides.

pub mod backoff;
pub mod command;
pub mod console;
pub mod conversation;
pub mod editor;
pub mod healthcheck;
pub mod heard;
pub mod input;
pub mod line;
pub mod member;
pub mod printable;
pub mod show;

use std::io;
use std::process::exit;
use std::thread;

use crossbeam_channel::{Receiver, bounded};
use percent_encoding::percent_decode_str;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli;
use crate::protocol::address::Address;
use crate::protocol::message::ROOM_DEFAULT;
use console::Terminal;
use conversation::Conversation;
use editor::Names;
use member::Member;

/// The path of the chat, beside that of its page.
const ENDPOINT: &str = "ws";

/// Talks until it is told to stop. Returns the exit status.
///
/// # Errors
/// Says why it could not go on, in one line.
pub fn run(options: &cli::Chat) -> Result<u8, String> {
    let address = endpoint(&options.address);
    let room = options.room.clone().map_or_else(|| room_of(&options.address), Ok)?;
    let random = getrandom::u32().map_err(|error| format!("no random numbers: {error}"))?;
    let names = Names::default();
    let terminal =
        Terminal::open(&names).map_err(|error| format!("can't use the terminal: {error}"))?;
    let signals =
        signals(terminal.restorer()).map_err(|error| format!("can't wait for signals: {error}"))?;
    let conversation = Conversation::new(options.name.clone(), room, random);
    let mut member = Member::new(address, conversation, terminal, names, options.json);
    let ended = member.run(&signals);
    // What is left to be said is said on a terminal as it was found.
    member.into_terminal().close();
    ended
}

/// Where the chat is: beside its page, as the page itself finds it.
fn endpoint(address: &Address) -> Address {
    let mut endpoint = address.clone();
    if endpoint.path.ends_with('/') {
        endpoint.path.push_str(ENDPOINT);
    }
    endpoint
}

/// The room that the address of a page names.
fn room_of(address: &Address) -> Result<String, String> {
    let named = address.query.split('&').find_map(|pair| pair.strip_prefix("room="));
    let room = percent_decode_str(named.unwrap_or(ROOM_DEFAULT)).decode_utf8_lossy();
    cli::parse_room(&room).map_err(str::to_owned)
}

/// The first signal is handed on, the second ends the process at once.
fn signals(restore: impl Fn() + Send + 'static) -> io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let (tell, told) = bounded(1);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if tell.try_send(signal).is_err() {
                restore();
                exit(i32::from(cli::SIGNAL_BASE) + signal);
            }
        }
    })?;
    Ok(told)
}
