//! An echo on parlour's pumps: it sends every message back, even binary ones. A client sees
//! parlour's WebSocket protocol, without the chat.

use std::io;
use std::sync::Arc;

use parlour::chat::backlog::{Backlog, Backlogs};
use parlour::chat::client::{Incoming, Upgrade, read_pump, with_writer};
use parlour::chat::connection::Connection;
use parlour::chat::outbox::Outbox;
use parlour::chat::write_half::SweepQueue;
use parlour::config::Config;
use parlour::protocol::close::CloseReason;
use tungstenite::Message;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// Longest message that it sends back.
const ECHO_BYTES_MAX: usize = 16 << 20;

/// Returns the options of the echo.
pub fn config() -> Config {
    // No limit on messages, and a queue for all that a client sends before it reads.
    let mut config =
        Config::read(["echo", "--message-rate=0", "--queue=4096"]).expect("valid options");
    config.max_message_bytes = ECHO_BYTES_MAX;
    config
}

/// Serves one client.
///
/// # Errors
/// If the system has no thread for the writer.
pub fn serve(
    connection: &Arc<Connection>,
    upgrade: Upgrade,
    config: &Arc<Config>,
    sweeps: &SweepQueue,
) -> io::Result<()> {
    let Upgrade { response, leftover, .. } = upgrade;
    with_writer(connection, response, config, sweeps, |mut outbox, replies| {
        let reason = read_pump(
            connection,
            leftover,
            replies,
            config,
            Backlog::new(config, None, &Backlogs::default()),
            Ok,
            |incoming| match incoming {
                Incoming::Message(message) => send_back(&mut outbox, message),
                // There is no limit on messages here.
                Incoming::Slowed | Incoming::CaughtUp => Ok(()),
            },
        );
        outbox.close(reason);
        reason
    })
}

fn send_back(outbox: &mut Outbox, message: Message) -> Result<(), CloseReason> {
    let opcode = OpCode::Data(if message.is_text() { Data::Text } else { Data::Binary });
    let mut bytes = Vec::new();
    Frame::message(message.into_data(), opcode, true)
        .format(&mut bytes)
        .expect("a Vec takes every write");
    outbox.queue(bytes.into()).map_err(|_| CloseReason::TooSlow)?;
    outbox.wake_writer();
    Ok(())
}
