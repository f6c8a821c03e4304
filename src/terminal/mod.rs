//! `parlour chat` and `parlour healthcheck`: the client side, in a terminal or in a pipe.
//!
//! This folder may use `protocol` and `cli`. It knows the server only by what that sends.
//!
//! As on the server, each thread waits for one thing, and one thread decides:
//!
//! ```text
//!   keys ──▶ editor ─────Input────┐             ┌──lines──▶ printer ──▶ screen
//!                                 ▼             │
//!   pipe ──▶ input  ─────Input──▶ APP ──────────┼──lines──▶ standard output
//!                                 ▲             │
//!   socket ▶ reader ConnectionEvent             └──frames──▶ socket
//! ```
//!
//! # Files, in reading order
//!
//! - [`app`]: the thread that decides; its `run` is the hub's pattern once more
//! - [`conversation`]: what is known of the room, what is unconfirmed; no input or output
//! - [`received`]: the messages that the server sends
//! - [`typed_line`]: the messages and commands that the user types
//! - [`transcript`]: how each entry of the conversation reads as text
//! - [`printable`]: which characters may reach a terminal
//! - [`rows`]: how text is broken into a terminal's rows
//! - [`connection`]: one connection: the thread that reads, the half that writes
//! - [`backoff`]: how long to wait before connecting again
//! - [`console`]: standard input and output, terminal or pipe
//! - [`editor`]: the prompt, edited while messages appear above it
//! - [`prints`]: what waits to appear there
//! - [`input`]: the lines of a pipe
//! - [`signals`]: what the system asks for
//! - [`healthcheck`]: the other command, in one file
//!
//! # What always holds
//!
//! - Only the app's thread writes to an open connection, so no frame lands in another.
//! - Nothing from the network reaches a terminal before [`printable`] has seen it, and nothing that
//!   others write begins in a terminal's first column, except an entry's beginning.
//! - What the server can make this program keep is bounded, and so is the time that a part of a
//!   message may take. A server beyond a bound ends the chat.
//! - A message is unconfirmed until the server sends it back. The exit status is 0 only if every
//!   message was delivered.
//! - No message appears twice in the room: after a broken connection only those are sent again that
//!   the server can recognise.
//! - Every way out leaves the terminal in the mode in which it was found.
//!
//! # What is absent on purpose
//!
//! - TLS: a tunnel or a proxy does that better.
//! - Attempts before the first welcome: a wrong address is an error at once.
//! - Joined threads: at the end, one may still wait for a key, another for the server.
//! - Files: no settings, no history of typed lines, no session for the next run.

pub mod app;
pub mod backoff;
pub mod connection;
pub mod console;
pub mod conversation;
pub mod editor;
pub mod healthcheck;
pub mod input;
pub mod printable;
pub mod prints;
pub mod received;
pub mod rows;
pub mod signals;
pub mod transcript;
pub mod typed_line;

use percent_encoding::percent_decode_str;

use crate::cli;
use crate::protocol::address::Address;
use crate::protocol::name::ROOM_DEFAULT;
use crate::terminal::app::App;
use crate::terminal::console::Console;
use crate::terminal::conversation::Conversation;
use crate::terminal::editor::Completions;
use crate::terminal::signals::Signals;

/// The chat's path, next to its page.
const CHAT_PATH: &str = "ws";

/// Runs `parlour chat`, and returns the exit status.
///
/// # Errors
/// Says in one line why the chat could not begin or go on.
pub fn run(options: &cli::Chat) -> Result<u8, String> {
    let room = options.room.clone().map_or_else(|| room_of(&options.address), Ok)?;
    let random = getrandom::u32().map_err(|error| format!("no random numbers: {error}"))?;
    let conversation = Conversation::new(options.name.clone(), room, random);
    let completions = Completions::default();
    let console =
        Console::open(&completions).map_err(|error| format!("can't use the terminal: {error}"))?;
    let signals = Signals::wait(console.restorer())
        .map_err(|error| format!("can't wait for signals: {error}"))?;
    let address = chat_address(&options.address);
    let mut app = App::new(address, conversation, console, completions, options.json);
    let result = app.run(&signals);
    // Before an error is printed, so that it is not under the prompt.
    app.into_console().close();
    result
}

/// Returns the address of the chat for that of its page, as the page itself finds it.
fn chat_address(page: &Address) -> Address {
    let mut address = page.clone();
    if address.path.ends_with('/') {
        address.path.push_str(CHAT_PATH);
    }
    address
}

/// Returns the room that the address of a page names, or the default.
fn room_of(page: &Address) -> Result<String, String> {
    let room = page.query.split('&').find_map(|pair| pair.strip_prefix("room="));
    let room = percent_decode_str(room.unwrap_or(ROOM_DEFAULT)).decode_utf8_lossy();
    cli::parse_room(&room).map_err(str::to_owned)
}
