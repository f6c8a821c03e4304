//! How many frames have come, which tungstenite doesn't tell: it puts a message's fragments together without returning in
//! between.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;

/// Longest header of a frame (RFC 6455, 5.2).
const HEADER_BYTES_MAX: usize = 14;

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
        loop {
            let skipped = usize::try_from(self.payload_bytes_left)
                .map_or(bytes.len(), |left| left.min(bytes.len()));
            self.payload_bytes_left -= skipped as u64;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return frames;
            }
            let had = self.header.len();
            self.header.extend(bytes.iter().take(HEADER_BYTES_MAX - had));
            let mut header = Cursor::new(&self.header);
            // One that is not complete yet has taken all there was; one that can't be parsed ends the connection.
            let Ok(Some((_, length))) = FrameHeader::parse(&mut header) else { return frames };
            bytes = &bytes[header.position() as usize - had..];
            self.header.clear();
            self.payload_bytes_left = length;
            frames += 1;
        }
    }
}
