//! How text is broken into the rows of a terminal.
//!
//! Left to itself, a terminal breaks a long line at its edge and goes on in the first column. There
//! the rest of a message could look like a message of somebody else. So every row is ended here,
//! and all rows of an entry but its first are indented.

use rustyline::GraphemeClusterMode;
use unicode_segmentation::UnicodeSegmentation;

/// Begins each row of an entry but its first. As wide as the time, which the first begins with.
const INDENT: &str = "      ";
/// Columns of the narrowest terminal that rows are made for. A narrower one does not show their
/// ends.
const COLUMNS_MIN: usize = 20;
/// Characters of a grapheme cluster that stay on one row. No emoji has so many.
const CLUSTER_CHARS_MAX: usize = 32;
/// Begins an escape sequence of ours. None comes from the network.
const ESCAPE: char = '\x1b';
/// Asks for the form of the character before it that emoji have, which may be wider.
const EMOJI_STYLE: char = '\u{FE0F}';

/// Breaks `text` into rows of up to `columns` columns, each with its end. Returns them, and the
/// columns of the widest.
///
/// `text` holds printable characters, line ends, and sequences that paint (SGR), which take no
/// columns.
pub fn break_rows(text: &str, columns: usize) -> (String, usize) {
    let mut rows = Rows::new(columns.max(COLUMNS_MIN));
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            rows.end_row();
        }
        rows.add_line(line);
    }
    rows.end_row();
    (rows.ended, rows.widest)
}

struct Rows {
    columns: usize,
    /// The rows that are complete.
    ended: String,
    widest: usize,
    /// The row that is being filled, and its columns.
    row: String,
    width: usize,
    /// Where the row may be broken: the bytes and columns in front of its last word.
    word: (usize, usize),
    /// True while the row continues a line and has nothing but its indentation.
    continues: bool,
}

impl Rows {
    fn new(columns: usize) -> Rows {
        Rows {
            columns,
            ended: String::new(),
            widest: 0,
            row: String::new(),
            width: 0,
            word: (0, 0),
            continues: false,
        }
    }

    fn add_line(&mut self, line: &str) {
        let mut rest = line;
        while !rest.is_empty() {
            if rest.starts_with(ESCAPE) {
                let end = rest.find('m').map_or(rest.len(), |end| end + 1);
                self.row.push_str(&rest[..end]);
                rest = &rest[end..];
            } else {
                let (text, others) = rest.split_at(rest.find(ESCAPE).unwrap_or(rest.len()));
                text.graphemes(true).for_each(|cluster| self.add_cluster(cluster));
                rest = others;
            }
        }
    }

    fn add_cluster(&mut self, cluster: &str) {
        if cluster.chars().nth(CLUSTER_CHARS_MAX).is_none() {
            self.add(cluster, cluster.chars().map(width).sum());
        } else {
            let mut utf8 = [0; 4];
            cluster.chars().for_each(|c| self.add(c.encode_utf8(&mut utf8), width(c)));
        }
    }

    /// Adds what must stay together, on a new row if this one is full.
    fn add(&mut self, piece: &str, width: usize) {
        let is_blank = piece == " ";
        let is_full = self.width + width > self.columns;
        if is_blank && (is_full || self.continues) {
            // The end of the row separates the words as well.
            if is_full {
                self.break_row(self.row.len());
            }
            return;
        }
        if is_full {
            let (bytes, columns) = self.word;
            // A word longer than half a row is broken itself.
            let is_short = self.width - columns <= self.columns / 2;
            self.break_row(if is_short && bytes > 0 { bytes } else { self.row.len() });
        }
        // Between two wide characters, as of Chinese, there may be a break as well.
        if width > 1 {
            self.word = (self.row.len(), self.width);
        }
        self.row.push_str(piece);
        self.width += width;
        self.continues = false;
        if is_blank || width > 1 {
            self.word = (self.row.len(), self.width);
        }
    }

    /// Continues the line on a new row, which begins with what the row has after its first `bytes`
    /// bytes.
    fn break_row(&mut self, bytes: usize) {
        let carried = self.row.split_off(bytes);
        let columns = if carried.is_empty() { 0 } else { self.width - self.word.1 };
        self.end_row();
        self.row.push_str(&carried);
        self.width += columns;
        self.continues = columns == 0;
    }

    /// Ends the row, and begins the next with the indentation.
    fn end_row(&mut self) {
        self.ended.push_str(&self.row);
        self.ended.push('\n');
        self.widest = self.widest.max(self.width);
        self.row.clear();
        self.row.push_str(INDENT);
        self.width = INDENT.len();
        self.word = (0, 0);
        self.continues = false;
    }
}

/// Returns the columns of `c` in the terminal that gives it most. They differ, above all in emoji.
fn width(c: char) -> usize {
    match c {
        EMOJI_STYLE => 1,
        // Dashes and quotes, which are wide in East Asia, and letters that make a flag in pairs.
        '\u{2010}'..='\u{2027}' | '\u{1F1E6}'..='\u{1F1FF}' => 2,
        c => GraphemeClusterMode::WcWidth.width(c.encode_utf8(&mut [0; 4])).into(),
    }
}
