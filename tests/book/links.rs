//! What the first page and the chapters link to exists, and their lines are short.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CHAPTERS: &str = "src/book";
/// Opens and closes a block of code.
const FENCE: &str = "```";
const COLUMNS_MAX: usize = 100;
const README_LINES_MAX: usize = 170;

/// A Markdown file of the project.
struct Page {
    path: PathBuf,
    text: String,
}

/// A definition of a link, such as `[metrics]: operating.md#metrics`.
#[derive(Debug, PartialEq, Eq)]
struct Definition<'a> {
    label: &'a str,
    target: &'a str,
}

impl Page {
    fn read(path: impl Into<PathBuf>) -> Page {
        let path = path.into();
        let text = fs::read_to_string(Path::new(ROOT).join(&path)).expect("a page");
        Page { path, text }
    }

    /// The lines that are not code.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut in_code = false;
        self.text.lines().filter(move |line| {
            let fence = line.starts_with(FENCE);
            in_code ^= fence;
            !in_code && !fence
        })
    }

    fn definitions(&self) -> Vec<Definition<'_>> {
        self.prose().filter_map(definition).collect()
    }

    /// The targets of all links, in place or defined.
    fn targets(&self) -> Vec<&str> {
        let in_place = self.prose().flat_map(|line| {
            line.split("](").skip(1).map(|rest| rest.split(')').next().unwrap_or_default())
        });
        let defined = self.definitions().into_iter().map(|definition| definition.target);
        in_place.chain(defined).collect()
    }

    /// The anchors of the headings, as GitHub and rustdoc make them.
    fn anchors(&self) -> Vec<String> {
        let headings = self.prose().filter(|line| line.starts_with('#'));
        headings.map(|heading| anchor(heading.trim_start_matches('#').trim())).collect()
    }
}

/// README.md and every chapter.
fn pages() -> Vec<Page> {
    let mut pages = chapters();
    pages.push(Page::read("README.md"));
    pages
}

fn chapters() -> Vec<Page> {
    let files = fs::read_dir(Path::new(ROOT).join(CHAPTERS)).expect("the book");
    let names = files.map(|file| file.expect("a file").file_name());
    let names = names.filter(|name| name.to_string_lossy().ends_with(".md"));
    names.map(|name| Page::read(Path::new(CHAPTERS).join(name))).collect()
}

fn definition(line: &str) -> Option<Definition<'_>> {
    let (label, target) = line.strip_prefix('[')?.split_once("]: ")?;
    Some(Definition { label, target })
}

fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_file_and_to_a_heading_in_it() {
    let mut broken = Vec::new();
    for page in pages() {
        for target in page.targets().into_iter().filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let folder = page.path.parent().expect("a folder");
            let path = if file.is_empty() { page.path.clone() } else { folder.join(file) };
            let exists = Path::new(ROOT).join(&path).exists();
            if !exists || !heading.is_empty() && !has_heading(path, heading) {
                broken.push(format!("{}: {target}", page.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

fn has_heading(path: PathBuf, heading: &str) -> bool {
    Page::read(path).anchors().iter().any(|anchor| anchor == heading)
}

/// rustdoc has modules in place of files. So `src/book/mod.rs` defines a chapter's links to files
/// again, as links to modules, in front of the chapter.
#[test]
fn every_chapter_is_a_module_whose_links_lead_where_the_file_s_links_do() {
    let modules = Page::read("src/book/mod.rs").text;
    for chapter in chapters() {
        let name = chapter.path.file_name().expect("a name").to_str().expect("text");
        let include = format!("#[doc = include_str!(\"{name}\")]\n");
        let (before, _) = modules.split_once(&include).unwrap_or_else(|| panic!("{include}"));
        let block = before.rsplit("\n\n").next().expect("the last block");
        let lines = block.lines().map(|line| line.trim_start_matches("/// "));
        let in_rustdoc: Vec<Definition> = lines.filter_map(definition).collect();
        let in_files = chapter.definitions();
        let as_modules: Vec<String> = in_files.iter().map(|d| module_of(d.target)).collect();
        let expected: Vec<Definition> = in_files
            .iter()
            .zip(&as_modules)
            .map(|(definition, target)| Definition { label: definition.label, target })
            .collect();
        assert_eq!(in_rustdoc, expected, "{name}");
    }
}

/// The path in Rust of what a chapter links to, with the anchor.
fn module_of(target: &str) -> String {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let module = match file.strip_prefix("../") {
        Some(code) => code.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::"),
        None => format!("book::{}", file.trim_end_matches(".md")),
    };
    let heading = if heading.is_empty() { String::new() } else { format!("#{heading}") };
    format!("crate::{module}{heading}")
}

#[test]
fn the_first_page_leads_to_every_chapter() {
    let readme = Page::read("README.md");
    for chapter in chapters() {
        assert!(readme.targets().contains(&chapter.path.to_str().expect("text")));
    }
}

#[test]
fn lines_are_short_and_the_first_page_is_not_long() {
    for page in pages() {
        for line in page.prose() {
            let long = line.chars().count() > COLUMNS_MAX;
            let exempt = line.starts_with('|') || line.contains("://");
            assert!(exempt || !long, "{}: {line}", page.path.display());
        }
    }
    assert!(Page::read("README.md").text.lines().count() <= README_LINES_MAX);
}
