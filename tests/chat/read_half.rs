//! Counting frames by their headers.

use parlour::chat::read_half::FrameCounter;

use crate::support::raw::{BINARY, FIN, PING, TEXT, masked};

#[test]
fn frames_of_any_size_are_counted_in_pieces_of_any_size() {
    let frames = [
        masked(FIN | PING, b""),
        masked(TEXT, &[b'x'; 125]),
        masked(0, b""),
        masked(FIN, &[b'x'; 126]),
        masked(FIN | BINARY, &vec![0x80; 70_000]),
        vec![FIN | TEXT, 3, FIN | PING, 0, 0],
        masked(FIN | PING, b"last"),
    ];
    let stream = frames.concat();
    for piece_bytes in [1, 2, 3, 7, 1024, stream.len()] {
        let mut counter = FrameCounter::default();
        let counted: usize = stream.chunks(piece_bytes).map(|piece| counter.count(piece)).sum();
        assert_eq!(counted, frames.len(), "in pieces of {piece_bytes}");
    }
}
