//! How many frames have come, which tungstenite doesn't tell: it puts a message's fragments together without returning in
//! between.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;

/// Counts the frames of a stream, read in pieces of any size.
#[derive(Default)]
pub struct FrameCounter {
    /// What has come of the next frame's header.
    header: Vec<u8>,
    /// What has not come of the last frame's payload.
    payload_bytes_left: u64,
}

impl FrameCounter {
    /// Counts the headers that are complete with `bytes`, which follow what came before.
    pub fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut frames = 0;
        while let Some((&next, rest)) = bytes.split_first() {
            if self.payload_bytes_left > 0 {
                let skipped =
                    usize::try_from(self.payload_bytes_left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.payload_bytes_left -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header.push(next);
            bytes = rest;
            // One that can't be parsed ends the connection before any more is read.
            if let Ok(Some((_, length))) = FrameHeader::parse(&mut Cursor::new(&self.header)) {
                self.header.clear();
                self.payload_bytes_left = length;
                frames += 1;
            }
        }
        frames
    }
}
