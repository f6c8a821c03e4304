//! WebSocket frames as the server sends them (RFC 6455, 5.2).
//!
//! Server frames carry no mask, so every recipient gets the same bytes: a message is framed once,
//! however many members it goes to. Frames from clients are tungstenite's to read.

use std::io::Write;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Header of a frame with a payload of 126 to 65,535 bytes.
const HEADER_BYTES_USUAL: usize = 4;
/// Header of the longest frame.
const HEADER_BYTES_MAX: usize = 10;
/// Capacity for a message of ordinary length, header included.
const FRAME_BYTES_USUAL: usize = 256;

/// Builds one text frame around the payload that `write_payload` appends to the vector it is given.
pub fn text_frame(write_payload: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    // The header holds the length of what follows it. Space is left for the header that most
    // messages need, so the payload moves only if its header has another size.
    let mut frame = Vec::with_capacity(FRAME_BYTES_USUAL);
    frame.extend_from_slice(&[0; HEADER_BYTES_USUAL]);
    write_payload(&mut frame);
    let length = (frame.len() - HEADER_BYTES_USUAL) as u64;
    let mut space = [0; HEADER_BYTES_MAX];
    let mut unused = &mut space[..];
    write_header(OpCode::Data(Data::Text), length, &mut unused);
    let unused = unused.len();
    let header = &space[..HEADER_BYTES_MAX - unused];
    if header.len() == HEADER_BYTES_USUAL {
        frame[..HEADER_BYTES_USUAL].copy_from_slice(header);
    } else {
        frame.splice(..HEADER_BYTES_USUAL, header.iter().copied());
    }
    frame
}

/// Builds an empty ping (RFC 6455, 5.5.2).
pub fn ping_frame() -> Vec<u8> {
    control_frame(Control::Ping, &[])
}

/// Builds a control frame. Its payload must not be over 125 bytes (RFC 6455, 5.5).
pub fn control_frame(opcode: Control, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES_MAX + payload.len());
    write_header(OpCode::Control(opcode), payload.len() as u64, &mut frame);
    frame.extend_from_slice(payload);
    frame
}

fn write_header(opcode: OpCode, length: u64, out: &mut impl Write) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(length, out).expect("callers leave space for the longest header");
}
