//! What is fuzzed (`make fuzz`) with the input that is kept: examples of every kind, and whatever
//! broke something once.

use std::fs;
use std::path::Path;

use crate::targets;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let files: Vec<_> = fs::read_dir(folder)
        .expect("a corpus")
        .map(|entry| entry.expect("a file").path())
        .collect();
    assert!(!files.is_empty());
    for file in files {
        // Shown if the target panics.
        println!("{}", file.display());
        target(&fs::read(file).expect("a file"));
    }
}

#[test]
fn request_heads() {
    replay("head", targets::head);
}

#[test]
fn queries() {
    replay("query", targets::query);
}

#[test]
fn messages() {
    replay("json", targets::json);
}

#[test]
fn streams_of_frames() {
    replay("frames", targets::frames);
}
