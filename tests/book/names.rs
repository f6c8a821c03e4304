//! The names that the first page and the book give to things in the code exist there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::tables::table;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const README: &str = include_str!("../../README.md");
const OPERATING: &str = include_str!("../../src/book/operating.md");
/// What stands in front of the name of an item.
const KEYWORDS: [&str; 6] = ["fn ", "struct ", "enum ", "trait ", "type ", "const "];
/// What writes a line to the log.
const LOG_MACROS: [&str; 5] = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];

/// The links in a cell: what each names, and the file it leads to.
fn links(cell: &str) -> Vec<(&str, &str)> {
    let links = cell.split('[').skip(1).filter_map(|link| link.split_once(')')?.0.split_once("]("));
    links.collect()
}

/// True if `source` defines an item, a method or a variant called `name`.
fn defines(source: &str, name: &str) -> bool {
    let Some((owner, member)) = name.split_once("::") else { return has_item(source, name) };
    let is_variant = |line: &str| begins_with_word(line.trim_start(), member);
    blocks(source, "\nimpl ", owner).any(|block| has_item(block, member))
        || blocks(source, "enum ", owner).any(|block| block.lines().any(is_variant))
}

/// What stands between the braces of each `keyword` of `owner`.
fn blocks<'a>(source: &'a str, keyword: &str, owner: &str) -> impl Iterator<Item = &'a str> {
    let own = source.split(keyword).skip(1).filter(|block| begins_with_word(block, owner));
    own.map(|block| block.split_once("\n}").map_or(block, |(block, _)| block))
}

fn has_item(source: &str, name: &str) -> bool {
    KEYWORDS.iter().any(|keyword| {
        source.split(keyword).skip(1).any(|definition| begins_with_word(definition, name))
    })
}

fn begins_with_word(text: &str, word: &str) -> bool {
    let rest = text.strip_prefix(word);
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn a_definition_is_told_from_other_uses_of_a_name() {
    let source = "pub enum Event {\n    Publish { id: u64 },\n}\n\n\
                  impl Hub {\n    pub fn run(self) {\n        other();\n    }\n}\n";
    for name in ["Event", "Event::Publish", "Hub::run", "run"] {
        assert!(defines(source, name), "{name}");
    }
    for name in ["Eve", "Hub", "Event::run", "Event::Publ", "Hub::other", "Hub::Publish"] {
        assert!(!defines(source, name), "{name}");
    }
}

#[test]
fn every_rust_name_beside_a_go_name_exists_in_the_file_that_it_links_to() {
    let rows = table(README, "Go");
    let links: Vec<(&str, &str)> = rows.iter().flat_map(|row| links(&row[2])).collect();
    assert!(rows.iter().all(|row| row[2].starts_with('[')) && links.len() >= rows.len());
    let mut missing = links;
    missing.retain(|(name, file)| {
        let source = fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_default();
        !defines(&source, name)
    });
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The log targets of all files below `folder` that write to the log. `module` is its own.
fn log_targets(folder: &Path, module: &str, targets: &mut BTreeSet<String>) {
    for file in fs::read_dir(folder).expect("a folder") {
        let path = file.expect("a file").path();
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            log_targets(&path, &format!("{module}::{stem}"), targets);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).expect("text");
            if LOG_MACROS.iter().any(|name| source.contains(name)) {
                let own = ["mod", "main", "lib"].contains(&&*stem);
                let target = if own { module.to_owned() } else { format!("{module}::{stem}") };
                targets.insert(target);
            }
        }
    }
}

#[test]
fn every_log_target_has_its_row() {
    let mut targets = BTreeSet::new();
    log_targets(&Path::new(ROOT).join("src"), "parlour", &mut targets);
    let listed = table(OPERATING, "log target").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(targets, listed);
}
