//! The layout of `src`: who may import whom, and that no files import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room of the house and the rooms it may import. A room is a folder of `src`, or a file in
/// it.
const MAY_IMPORT: [(&str, &[&str]); 12] = [
    ("main", &["server", "http", "chat", "protocol", "system", "terminal", "cli", "config"]),
    ("lib", &[]),
    ("server", &["http", "chat", "protocol", "system", "config"]),
    ("http", &["chat", "protocol", "system", "config"]),
    ("chat", &["protocol", "system", "config"]),
    ("system", &["protocol", "config"]),
    ("terminal", &["protocol", "cli"]),
    ("cli", &["protocol", "config"]),
    ("protocol", &[]),
    ("config", &[]),
    ("web", &[]),
    ("book", &[]),
];
/// Longest line of code and prose, in characters.
const COLUMNS_MAX: usize = 100;

/// All files below `folder` with one of these endings.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| path.extension().is_some_and(|e| e == *ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The imports of each file of `src`, as module paths: `chat/hub` imports `chat/room`.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let sources = files("src", &["rs"]);
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let module = |path: &Path| {
        let module = path.strip_prefix(&src).expect("below src").with_extension("");
        module.to_str().expect("ASCII").trim_end_matches("/mod").to_owned()
    };
    let modules: BTreeSet<String> = sources.iter().map(|path| module(path)).collect();
    let known = |path: &[&str]| {
        // The longest beginning that is a file; the rest names items in it.
        (1..=path.len()).rev().map(|n| path[..n].join("/")).find(|path| modules.contains(path))
    };
    let mut imports = BTreeMap::new();
    for path in &sources {
        let own = module(path);
        let folder = own.rsplit_once('/').map_or("", |(folder, _)| folder);
        let folder = if path.ends_with("mod.rs") { &own } else { folder };
        let text = fs::read_to_string(path).expect("a source file");
        let code: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        let mut found = BTreeSet::new();
        for name in paths(&code, own == "main") {
            let name = name.replace("super::", &format!("{}::", folder.replace('/', "::")));
            let steps: Vec<&str> = name.split("::").filter(|step| !step.is_empty()).collect();
            found.extend(known(&steps).filter(|imported| *imported != own));
        }
        imports.insert(own, found);
    }
    imports
}

/// Every path in `code` that begins with `crate::` (`parlour::` in the program itself) or
/// `super::`, groups taken apart, without that beginning. `super::` stays.
fn paths(code: &str, is_program: bool) -> Vec<String> {
    let mut found = Vec::new();
    for start in if is_program { ["parlour::", "super::"] } else { ["crate::", "super::"] } {
        for (at, _) in code.match_indices(start) {
            let kept = if start == "super::" { start } else { "" };
            expand(&code[at + start.len()..], kept, &mut found);
        }
    }
    found
}

/// Adds the paths that `rest` begins with, each behind `base`: `a::{b, c::D}` is `a::b` and
/// `a::c::D`.
fn expand(rest: &str, base: &str, found: &mut Vec<String>) {
    let end =
        rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(rest.len());
    let (path, after) = rest.split_at(end);
    match after.strip_prefix('{') {
        Some(group) => {
            let close = group.find("};").map_or(group.len(), |close| close);
            for item in group[..close].split([',', '{', '}']) {
                found.push(format!("{base}{path}{}", item.trim()));
            }
        }
        None => found.push(format!("{base}{path}")),
    }
}

fn room(module: &str) -> &str {
    module.split('/').next().expect("a first step")
}

#[test]
fn no_room_imports_one_above_it() {
    for (module, imported) in imports() {
        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == room(&module))
            .unwrap_or_else(|| panic!("src/{module} is in no room of the house"));
        for other in imported {
            let same = room(&other) == room(&module);
            assert!(same || allowed.contains(&room(&other)), "src/{module} imports {other}");
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let imports = imports();
    for module in imports.keys() {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = imports[module].iter().collect();
        while let Some(other) = next.pop() {
            if reached.insert(other) {
                next.extend(&imports[other]);
            }
        }
        assert!(!reached.contains(module), "src/{module} imports itself by way of {reached:?}");
    }
}

#[test]
fn client_and_hub_meet_only_in_inbox_and_outbox() {
    let imports = imports();
    let sides = [
        ["chat/client", "chat/read_half"].as_slice(),
        ["chat/hub", "chat/room", "chat/members", "chat/history"].as_slice(),
    ];
    for (one, other) in [(sides[0], sides[1]), (sides[1], sides[0])] {
        for file in one {
            let imported = imports.get(*file).unwrap_or_else(|| panic!("no src/{file}.rs"));
            for forbidden in other {
                assert!(!imported.contains(*forbidden), "{file} imports {forbidden}");
            }
        }
    }
}

#[test]
fn every_line_fits_in_100_columns() {
    let own = ["src", "tests"].map(|folder| files(folder, &["rs", "md", "js", "css", "html"]));
    for path in own.concat() {
        let is_test = path.starts_with(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"));
        for (number, line) in fs::read_to_string(&path).expect("text").lines().enumerate() {
            // Tables and addresses can't be broken, and tests hold long pieces of other languages.
            let exempt = line.starts_with('|')
                || line.contains("://")
                || (is_test && !line.trim_start().starts_with("//"));
            let fits = exempt || line.chars().count() <= COLUMNS_MAX;
            assert!(fits, "{}:{} is too long:\n{line}", path.display(), number + 1);
        }
    }
}
