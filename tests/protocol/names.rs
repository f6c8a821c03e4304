//! Names of members and rooms: which are valid, which are the same, and which look alike.

use parlour::protocol::close::CloseReason;
use parlour::protocol::fold::{fold, fold_within, skeleton};
use parlour::protocol::message::{BadMessage, ErrorCode, Request};
use parlour::protocol::name::{FOLDED_CHARS_MAX, Name, Recipient, parse_room};
use parlour::protocol::visible::{can_be_seen, is_invisible, is_legible};
use proptest::prelude::*;
use serde_json::json;
use unicode_normalization::UnicodeNormalization;

/// What Unicode has below Han, between Han and Hangul, behind them, and above all letters: whatever
/// folds to something else is in one of these.
const NOT_IDEOGRAPHS: [std::ops::Range<u32>; 5] =
    [0..0x3400, 0xA000..0xAC00, 0xF900..0x20000, 0x2F800..0x2FA20, 0xE0000..0xE1000];

/// Names that are valid.
const NAMES: [(&str, &str); 63] = [
    ("Latin", "Ann"),
    ("with accents", "José"),
    ("with accents of their own", "Jose\u{301}"),
    ("with two of them, Vietnamese", "Nguye\u{302}\u{303}n"),
    ("Turkish", "Işık İnci"),
    ("Greek", "Οδυσσεύς"),
    ("Cyrillic", "Ёлка"),
    ("Armenian", "Արամ"),
    ("Georgian", "ნინო"),
    ("Cherokee", "ᏣᎳᎩ"),
    ("Hebrew", "שרה"),
    ("Hebrew with points", "שָׁלוֹם"),
    ("Hebrew with points and cantillation", "שָּׁ֖"),
    ("Arabic", "مرحبا"),
    ("Arabic with vowels", "مُحَمَّد"),
    ("Arabic letters in their forms", "ﻣﺮﺣﺒﺎ"),
    ("Persian with a non-joiner", "علی\u{200C}رضا"),
    ("the same behind a letter that does not join", "محمد\u{200C}علی"),
    ("the same behind a letter that never joins", "ضیاء\u{200C}الدین"),
    ("the same behind a vowel", "عُ\u{200C}ل"),
    ("Thaana", "އަޙްމަދު"),
    ("N'Ko", "ߒߞߏ"),
    ("Devanagari", "प्रिया"),
    ("Devanagari with a joiner", "क्\u{200D}ष"),
    ("Devanagari with a non-joiner", "क्\u{200C}ष"),
    ("Bengali with a joiner before the virama", "র\u{200D}্যাব"),
    ("Tamil", "தமிழ்"),
    ("Malayalam with a joiner at the end", "പ്രവീണ്\u{200D}"),
    ("Sinhala with a joiner", "ශ්\u{200D}රී"),
    ("Kannada", "ಕನ್ನಡ"),
    ("Thai", "น้ำผึ้ง"),
    ("Lao", "ກຳແພງ"),
    ("Khmer", "ស្រ្តី"),
    ("Burmese with four marks", "လျှို့ဝှက်"),
    ("Tibetan", "བསྒྲུབས"),
    ("Mongolian with a vowel separator", "ᠰᠠᠷ\u{180E}ᠠ"),
    ("Mongolian with a variation", "ᠠ\u{180B}"),
    ("Ethiopic", "ሰላም"),
    ("Han", "张三"),
    ("Han with a variation", "葛\u{E0100}"),
    ("Han and a space of its width", "张\u{3000}三"),
    ("Kana", "ポプ テピピック"),
    ("Kana with a mark of its own", "は\u{3099}る"),
    ("Hangul", "가나"),
    ("Hangul in parts", "\u{1100}\u{1161}\u{1102}\u{1161}"),
    ("full width", "Ｂｏｂ"),
    ("a ligature", "ﬁn"),
    ("Ogham", "ᚑᚌᚆᚐᚋ"),
    ("cuneiform", "𒀭𒆠"),
    ("punctuation", "O'Neil-Smith, Jr. (3rd)"),
    ("math", "𝕭𝖔𝖇"),
    ("an accent without a letter", "´"),
    ("an emoji", "🦀"),
    ("an emoji in colour", "☀\u{FE0F}"),
    ("an emoji in black and white", "☀\u{FE0E}"),
    ("an emoji of two", "👩\u{200D}💻"),
    ("an emoji of four", "👨\u{200D}👩\u{200D}👧\u{200D}👦"),
    ("an emoji of two in colour", "🏳\u{FE0F}\u{200D}🌈"),
    ("an emoji with a skin", "🧔🏻\u{200D}♂\u{FE0F}"),
    ("a keycap", "1\u{FE0F}\u{20E3}"),
    ("a country's flag", "🇺🇦"),
    ("a flag of a part of a country", "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}"),
    ("the mark of a broken character", "\u{FFFD}"),
];

/// Names that are not.
const NOT_NAMES: [(&str, &str); 57] = [
    ("nothing", ""),
    ("white space", " \t\u{3000}\u{2028}\u{A0}"),
    ("Ogham's white space", "\u{1680}"),
    ("a control character", "a\0b"),
    ("a line end", "a\nb"),
    ("the next line", "a\u{85}b"),
    ("a line separator", "a\u{2028}b"),
    ("a soft hyphen", "a\u{AD}b"),
    ("a space of no width", "a\u{200B}b"),
    ("a joiner that joins nothing", "a\u{200D}b"),
    ("a non-joiner that divides nothing", "a\u{200C}b"),
    ("a joiner alone", "\u{200D}"),
    ("a joiner before a name", "\u{200D}Ann"),
    ("a joiner behind an emoji", "👩\u{200D}"),
    ("a joiner between an emoji and a letter", "👩\u{200D}a"),
    ("a joiner between digits, which are emoji too", "1\u{200D}2"),
    ("two joiners between emoji", "👩\u{200D}\u{200D}💻"),
    ("a non-joiner between emoji", "👩\u{200C}💻"),
    ("a non-joiner behind an Arabic word", "علی\u{200C}"),
    ("two non-joiners", "علی\u{200C}\u{200C}رضا"),
    ("a non-joiner before a mark", "ع\u{200C}\u{64F}ل"),
    ("a non-joiner between Arabic and Latin", "ع\u{200C}a"),
    ("a word joiner", "a\u{2060}b"),
    ("a joiner of graphemes", "a\u{34F}b"),
    ("a byte order mark", "a\u{FEFF}"),
    ("a mark of direction", "a\u{200F}b"),
    ("an Arabic mark of direction", "a\u{61C}b"),
    ("an override of direction", "\u{202E}bob"),
    ("an isolate", "\u{2066}x\u{2069}"),
    ("a variation of a letter", "a\u{FE0F}"),
    ("a variation of nothing", "\u{FE0F}"),
    ("two variations", "葛\u{E0100}\u{E0101}"),
    ("a Mongolian variation of a letter", "a\u{180B}"),
    ("a Mongolian vowel separator between letters", "a\u{180E}b"),
    ("tags without a flag", "a\u{E0067}\u{E0062}\u{E007F}"),
    ("tags on another flag", "🇺🇦\u{E0067}\u{E0062}\u{E007F}"),
    ("tags without an end", "🏴\u{E0067}\u{E0062}"),
    ("an end without tags", "🏴\u{E007F}"),
    ("a flag with other tags", "🏴\u{E0020}\u{E007F}"),
    ("Hangul's filler", "\u{3164}"),
    ("Hangul's filler of half the width", "\u{FFA0}"),
    ("Hangul's filler for a first part", "a\u{115F}b"),
    ("Hangul's filler for a second part", "\u{1100}\u{1160}"),
    ("Braille's blank", "\u{2800}"),
    ("a note head that is not there", "\u{1D159}"),
    ("a blank hieroglyph", "𓀀\u{13441}"),
    ("a note for other programs", "a\u{FFF9}b"),
    ("an object that is not there", "\u{FFFC}"),
    ("a mark alone", "\u{301}"),
    ("a mark alone behind a space", "a \u{301}"),
    ("a spacing mark alone", "\u{93E}"),
    ("an enclosing mark alone", "\u{20E3}"),
    ("five marks on a letter", "a\u{300}\u{301}\u{302}\u{303}\u{304}"),
    ("the same mark twice", "e\u{301}\u{301}"),
    ("a character of private use", "\u{E000}"),
    ("a character that is not assigned", "\u{378}"),
    ("a noncharacter", "\u{FFFE}"),
];

/// Names that are the same.
const SAME: [(&str, &str, &str); 33] = [
    ("case", "Ann", "aNN"),
    ("space around it", "Ann", "\u{3000} Ann\t"),
    ("composed or not", "José", "Jose\u{301}"),
    ("marks in another order", "a\u{323}\u{302}", "a\u{302}\u{323}"),
    ("the same in one letter", "ậ", "A\u{302}\u{323}"),
    ("Hangul in parts", "가", "\u{1100}\u{1161}"),
    ("Hangul of half the width", "ｶﾞ", "ガ"),
    ("a space that does not break", "Bob Smith", "Bob\u{A0}Smith"),
    ("a thin space", "Tom Fox", "Tom\u{2009}Fox"),
    ("a space of full width", "张 三", "张\u{3000}三"),
    ("Ogham's space", "ᚐ ᚋ", "ᚐ\u{1680}ᚋ"),
    ("several spaces", "Ann Lee", "Ann  \u{A0} Lee"),
    ("full width", "Bob", "Ｂｏｂ"),
    ("a ligature", "final", "ﬁnal"),
    ("the Kelvin sign", "Kelvin", "\u{212A}elvin"),
    ("the Ångström sign", "Åsa", "\u{212B}sa"),
    ("a long s", "sister", "ſiſter"),
    ("ß and ss", "straße", "STRASSE"),
    ("ß and its capital", "straße", "STRA\u{1E9E}E"),
    ("σ and ς", "ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
    ("an iota below", "ᾳ", "ΑΙ"),
    ("İ and its parts", "İnci", "i\u{307}nci"),
    ("Cherokee", "Ꭰ", "ꭰ"),
    ("Georgian", "ნინო", "ᲜᲘᲜᲝ"),
    ("Arabic letters in their forms", "ﻣﺮﺣﺒﺎ", "مرحبا"),
    ("a Persian non-joiner", "علی\u{200C}رضا", "علیرضا"),
    ("a Sinhala joiner", "ශ්\u{200D}රී", "ශ්රී"),
    ("a variation of Han", "葛\u{E0100}", "葛"),
    ("an emoji in colour", "☀\u{FE0F}", "☀"),
    ("an emoji of two, and the two", "👩\u{200D}💻", "👩💻"),
    (
        "flags of parts of a country, which few systems have",
        "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
        "🏴",
    ),
    ("numbers in circles", "Ann1", "Ann①"),
    ("a wide letter and a sign for it", "אב", "ﬡב"),
];

/// Names that look alike, but are not the same.
const ALIKE: [(&str, &str, &str); 21] = [
    ("a Cyrillic а", "apple", "аpple"),
    ("all Cyrillic", "copa", "сора"),
    ("a Greek capital", "Bob", "Βob"),
    ("a Cyrillic capital", "ANN", "АNN"),
    ("a Cyrillic capital in another case", "Tom", "ТOM"),
    ("a Cyrillic letter and full width", "Tom", "Tоｍ"),
    ("0 and O", "B0B", "BOB"),
    ("0 and o", "b0b", "bob"),
    ("1 and l", "A1", "Al"),
    ("I and l", "ALICE", "ALlCE"),
    ("| and l", "A|", "Al"),
    ("rn and m", "Burna", "Buma"),
    ("ı and i", "Tarık", "Tarik"),
    ("a long s and f", "ſun", "fun"),
    ("ɡ and g", "\u{261}uy", "guy"),
    ("quotes", "O'Neil", "O’Neil"),
    ("Kana and Han", "ロ", "口"),
    ("Han and a long vowel", "一", "ー"),
    ("Greek without Latin", "ρορα", "popa"),
    ("Armenian", "օհ", "oհ"),
    ("Cherokee", "ᎪᏃ", "AZ"),
];

/// Names that differ.
const DIFFERENT: [(&str, &str, &str); 16] = [
    ("names", "Ann", "Bob"),
    ("with and without an accent", "Jose", "José"),
    ("an accent that is another", "é", "è"),
    ("with and without a space", "Ann Lee", "AnnLee"),
    ("i and l", "Elie", "Elle"),
    ("a vowel more", "Ali", "Alia"),
    ("2 and Z", "2oe", "Zoe"),
    ("5 and S", "5am", "Sam"),
    ("ä and ae", "Jäger", "Jaeger"),
    ("ø and o", "Søren", "Soren"),
    ("й and и", "Кий", "Кии"),
    ("Han, simple and not", "张", "張"),
    ("Hiragana and Katakana", "あ", "ア"),
    ("emoji", "👩", "👨"),
    ("skins", "👍🏻", "👍🏿"),
    ("countries", "🇺🇦", "🇺🇸"),
];

fn name(text: &str) -> Name {
    Name::parse(text).unwrap_or_else(|_| panic!("{text:?} ({text})"))
}

#[test]
fn names_of_any_script_and_emoji_are_valid_and_shown_as_they_were_typed() {
    for (what, text) in NAMES {
        assert_eq!(
            Name::parse(text).map(|name| name.shown.to_string()),
            Ok(text.to_owned()),
            "{what}"
        );
    }
    assert_eq!(&*name("\u{3000} Ann  Lee\t").shown, "Ann  Lee");
}

#[test]
fn what_can_not_be_seen_is_no_name_alone_or_in_one() {
    for (what, text) in NOT_NAMES {
        assert_eq!(Name::parse(text), Err(CloseReason::InvalidName), "{what}");
    }
}

#[test]
fn a_name_has_up_to_32_scalar_values_as_it_is_typed() {
    // Of one byte, of four, with space around them, and each a grapheme of two.
    for text in [
        "a".repeat(32),
        "\u{10000}".repeat(32),
        format!("  {}\t", "a".repeat(32)),
        "e\u{301}".repeat(16),
    ] {
        assert!(Name::parse(&text).is_ok(), "{text}");
        assert_eq!(Name::parse(&format!("{text}e")).is_ok(), text.trim().chars().count() < 32);
    }
    // One grapheme, of 33 scalar values.
    let family = ["👨"; 17].join("\u{200D}");
    assert_eq!(Name::parse(&family), Err(CloseReason::InvalidName));
}

#[test]
fn a_name_has_up_to_64_scalar_values_as_it_is_folded() {
    let longest = "ﷺ".repeat(3) + &"a".repeat(10);
    assert_eq!(name(&longest).key.chars().count(), 64);
    assert_eq!(Name::parse(&(longest + "a")), Err(CloseReason::InvalidName));
    assert_eq!(Name::parse(&"ﷺ".repeat(32)), Err(CloseReason::InvalidName));
}

#[test]
fn names_that_are_the_same() {
    for (what, one, other) in SAME {
        let (one, other) = (name(one), name(other));
        assert_eq!(one.key, other.key, "{what}");
        assert_eq!(
            other.taken_by(&one),
            format!("that name is taken by {}: choose another", one.shown)
        );
        // So a private message reaches it.
        assert_eq!(Recipient::parse(other.shown.to_string()).unwrap().key, *one.key, "{what}");
    }
}

#[test]
fn names_that_look_alike() {
    for (what, one, other) in ALIKE {
        let (one, other) = (name(one), name(other));
        assert_ne!(one.key, other.key, "{what}");
        assert_eq!(one.skeleton, other.skeleton, "{what}");
        assert_eq!(
            other.taken_by(&one),
            format!("that name looks like {}'s: choose another", one.shown)
        );
        // A private message reaches only the one that is meant.
        assert_ne!(Recipient::parse(other.shown.to_string()).unwrap().key, *one.key, "{what}");
    }
}

#[test]
fn names_that_differ() {
    for (what, one, other) in DIFFERENT {
        let (one, other) = (name(one), name(other));
        assert_ne!(one.key, other.key, "{what}");
        assert_ne!(one.skeleton, other.skeleton, "{what}");
    }
}

#[test]
fn guest_names_are_their_own_key_and_skeleton() {
    // Each of the 33 digits in each place.
    for digit in 0..33 {
        for place in [1, 33, 33 * 33, 33 * 33 * 33] {
            let guest = Name::guest(digit * place);
            assert_eq!(Name::parse(&guest.shown), Ok(guest));
        }
    }
    assert_eq!(Name::guest(u32::MAX), Name::guest(u32::MAX % (33 * 33 * 33 * 33)));
}

#[test]
fn a_room_is_its_folded_name() {
    let rooms = [
        ("rust", "rust"),
        ("Rust", "rust"),
        (" RUST\u{3000}", "rust"),
        ("A-z_0", "a-z_0"),
        ("Ｒｕｓｔ＿１", "rust_1"),
        ("－", "-"),
        ("Café", "café"),
        ("CAFE\u{301}", "café"),
        ("Straße", "strasse"),
        ("ISPARTA", "isparta"),
        ("ıspartaİ", "ıspartai\u{307}"),
        ("Ⅷ", "viii"),
        ("²", "2"),
        ("聊天室", "聊天室"),
        ("ﾁｬｯﾄ", "チャット"),
        ("가", "가"),
        ("\u{1100}\u{1161}", "가"),
        ("مرحبا", "مرحبا"),
        ("٣", "٣"),
        ("علی\u{200C}رضا", "علیرضا"),
        ("ශ්\u{200D}රී", "ශ්රී"),
        ("प्रिया", "प्रिया"),
        ("น้ำ", "น\u{E49}\u{E4D}า"),
        ("葛\u{E0100}", "葛"),
    ];
    for (text, room) in rooms {
        assert_eq!(parse_room(text).as_deref(), Ok(room), "{text}");
        assert_eq!(parse_room(room).as_deref(), Ok(room), "{text}");
    }
    let wrong = [
        "",
        " ",
        "a b",
        "a\u{A0}b",
        "a.b",
        "a/b",
        "#a",
        "a+b",
        "a’b",
        "a\0",
        "a\u{200D}b",
        "a\u{200B}",
        "\u{202E}a",
        "\u{301}",
        "´",
        "a\u{300}\u{301}\u{302}\u{303}\u{304}",
        "🦀",
        "☀\u{FE0F}",
        "🇺🇦",
        "\u{3164}",
        "\u{2800}",
        "ﷺ",
        "\u{E000}",
        "\u{FFFD}",
        "\u{FFFE}",
        "‐",
        "…",
        "€",
    ];
    for text in wrong {
        assert_eq!(parse_room(text), Err(CloseReason::InvalidRoom), "{text:?}");
    }
}

#[test]
fn a_room_has_up_to_64_scalar_values_as_it_is_folded() {
    for letter in ["r", "聊", "\u{10000}", "E\u{301}", "\u{1100}\u{1161}"] {
        assert_eq!(parse_room(&letter.repeat(64)).unwrap().chars().count(), 64, "{letter}");
        assert!(parse_room(&letter.repeat(65)).is_err(), "{letter}");
    }
    assert!(parse_room(&"ß".repeat(32)).is_ok() && parse_room(&"ß".repeat(33)).is_err());
    assert!(parse_room(&"r\u{AD}".repeat(100_000)).is_err());
}

#[test]
fn a_recipient_is_folded_unless_it_is_longer_than_any_name() {
    // Names whose folded form is longest, as they are typed and in the most bytes.
    for (typed, written) in [
        ("ﷺﷺﷺaaaaaaaaaa", fold("ﷺﷺﷺaaaaaaaaaa")),
        ("각각각", "각".nfd().collect::<String>().repeat(3)),
    ] {
        assert_eq!(Recipient::parse(written).unwrap().key, *name(typed).key);
    }
    let three_of_four_bytes = "\u{16128}".repeat(32);
    assert_eq!(three_of_four_bytes.nfd().collect::<String>().len(), 32 * 12);
    assert!(Recipient::parse(three_of_four_bytes.nfd().collect()).is_some());
    let long = "a".repeat(65);
    for text in [long.clone(), "a".repeat(1 << 20), "ﷺ".repeat(4), "\u{200D}".repeat(1000)] {
        assert_eq!(Recipient::parse(text), None);
    }
    let parse = |to: &str, content: &str| {
        let message = json!({"type": "private", "to": to, "content": content, "ref": "r"});
        Request::parse(&message.to_string(), 10)
    };
    let Err(BadMessage::Error(error)) = parse(&long, "x") else { panic!("an error") };
    assert_eq!((error.code, error.reference.as_deref()), (ErrorCode::NoSuchUser, Some("r")));
    assert_eq!(parse(&long, "longer than 10 bytes"), Err(BadMessage::TooBig));
    let Ok(Request::Private { to, .. }) = parse("JOSE\u{301}", "x") else { panic!("a message") };
    assert_eq!(to, Recipient { typed: "JOSE\u{301}".to_owned(), key: "josé".to_owned() });
}

#[test]
fn a_content_is_empty_only_if_nothing_in_it_can_be_seen() {
    let parse = |content: &str| {
        Request::parse(&json!({"type": "public", "content": content}).to_string(), 1 << 20)
    };
    let blank = [
        "",
        " ",
        "\n\t\u{85}",
        "\u{3000}\u{A0}\u{2003}\u{1680}",
        "\u{2028}\u{2029}",
        "\u{200B}",
        "\u{200D}\u{200C}",
        "\u{202E}",
        "\u{FEFF}",
        "\u{AD}",
        "\u{34F}",
        "\u{FE0F}",
        "\u{E0100}",
        "\u{180E}",
        "\u{E0067}\u{E007F}",
        "\0\u{1B}",
        "\u{115F}",
        "\u{1160}",
        "\u{3164}",
        "\u{FFA0}",
        "\u{2800}",
        "\u{2800} \u{2800}",
        "\u{1D159}",
        "\u{13441}",
        "\u{16FE4}",
        "\u{17B4}",
        "\u{2062}",
        "\u{FFF9}",
        "\u{FFFC}",
        "\u{E0FFF}",
        " \u{200B}\u{2800}\u{3164}\n",
    ];
    for content in blank {
        let Err(BadMessage::Error(error)) = parse(content) else { panic!("{content:?}") };
        assert_eq!(error.code, ErrorCode::EmptyContent, "{content:?}");
    }
    let seen = [
        ".",
        "\u{200B}.\u{200B}",
        "\u{301}",
        "\u{20E3}",
        "Z\u{351}\u{36B}\u{343}\u{36A}\u{302}\u{36B}\u{33D}\u{34F}\u{334}",
        "\u{202E}abc",
        "⠓\u{2800}⠓",
        "🦀",
        "👩\u{200D}",
        "\u{FFFD}",
        "\u{E000}",
        "\u{378}",
        "\u{1FAFF}",
        "\u{600}",
        "۝",
        "´",
        "␠",
        "ㄱ",
    ];
    for content in seen {
        let public = Request::Public { content: content.to_owned(), reference: None };
        assert_eq!(parse(content), Ok(public));
    }
}

#[test]
fn every_character_folds_to_what_stays_as_it_is() {
    for c in NOT_IDEOGRAPHS.into_iter().flatten().filter_map(char::from_u32) {
        let (text, code) = (c.to_string(), u32::from(c));
        let folded = fold(&text);
        // None is too long for what it folds to, in one piece or in several.
        for text in [text.clone(), text.nfd().collect(), text.nfkd().collect()] {
            let within = fold_within(&text, folded.chars().count());
            assert!(within.as_ref() == Some(&folded) || folded.is_empty(), "{code:x}");
        }
        assert_eq!(fold(&folded), folded, "{code:x}");
        if is_legible(&text) && !c.is_whitespace() {
            assert!(!folded.is_empty() && !skeleton(&text).is_empty(), "{code:x}");
            assert!(!is_invisible(c), "{code:x}");
        }
    }
}

/// Letters, marks, spaces and joiners that do something to those beside them.
fn lively_text() -> impl Strategy<Value = String> {
    let lively: Vec<char> = "aAiIıİlmMſßẞΣσςͅᾳΐkK１Ａﬁ\u{300}\u{301}\u{323}\u{327}\u{345}\u{307}\u{1100}\u{1161}\u{11A8}가ガカｶﾞ\
        \u{3099}ﷺ´¨ \u{A0}\u{1680}\u{3000}\u{2028}\t\u{200C}\u{200D}\u{FE0F}\u{34F}\u{180E}\u{115F}क\u{93C}\u{94D}ধ\u{9CD}عد\
        \u{64F}\u{651}👩💻🏴\u{E0067}\u{E007F}🇺1-_.\u{1D159}\u{0F71}\u{0F72}\u{0F74}"
        .chars()
        .collect();
    let one = prop_oneof![3 => prop::sample::select(lively), 1 => any::<char>()];
    prop::collection::vec(one, 0..12).prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_folded_stays_as_it_is(text in lively_text()) {
        let folded = fold(&text);
        prop_assert_eq!(fold(&folded), &*folded);
        prop_assert!(!folded.starts_with(' ') && !folded.ends_with(' ') && !folded.contains("  "));
        prop_assert_eq!(fold(&text.to_lowercase().to_uppercase()), fold(&text.to_uppercase()));
    }

    #[test]
    fn what_is_parsed_parses_to_itself(text in lively_text()) {
        if let Ok(name) = Name::parse(&text) {
            prop_assert!(can_be_seen(&name.shown) && !name.key.is_empty() && !name.skeleton.is_empty());
            prop_assert_eq!(Name::parse(&name.shown), Ok(name));
        }
        if let Ok(room) = parse_room(&text) {
            prop_assert!((1..=FOLDED_CHARS_MAX).contains(&room.chars().count()));
            prop_assert_eq!(parse_room(&room), Ok(room));
        }
    }
}
