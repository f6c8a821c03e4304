//! The fuzz targets (`make fuzz`) with the inputs in `tests/fuzz/corpus`: examples of every kind,
//! and whatever broke something once.

use std::fs;
use std::path::Path;

use crate::targets;

/// Runs a target with each input of its corpus.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let files: Vec<_> = fs::read_dir(folder)
        .expect("a corpus")
        .map(|entry| entry.expect("a file").path())
        .collect();
    assert!(!files.is_empty());
    for file in files {
        // Printed if the target panics.
        println!("{}", file.display());
        target(&fs::read(file).expect("a file"));
    }
}

#[test]
fn request_heads_of_the_corpus() {
    replay("head", targets::head);
}

#[test]
fn queries_of_the_corpus() {
    replay("query", targets::query);
}

#[test]
fn messages_of_the_corpus() {
    replay("json", targets::json);
}

#[test]
fn frames_of_the_corpus() {
    replay("frames", targets::frames);
}
