//! Text that is not a valid message: its sender receives an error, and nothing else happens.

use std::thread;

use parlour::protocol::message::{BadMessage, Request};
use serde_json::json;

use crate::support::{Client, TestServer, assert_has};

/// The largest value of `--max-message-bytes`.
const MESSAGE_BYTES_MAX: &str = "1048576";
/// About the longest text that may then be sent.
const TEXT_BYTES_MAX: usize = 6 << 20;
/// Less stack than a reader has.
const STACK_BYTES: usize = 64 * 1024;

#[test]
fn json_nested_as_deep_as_possible_is_an_error() {
    let server = TestServer::start(&["--max-message-bytes", MESSAGE_BYTES_MAX]);
    let mut ann = Client::join(&server, "Ann");
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"[{"content":"#, "}]")] {
        let levels = TEXT_BYTES_MAX / (open.len() + close.len()) - 100;
        let nested = open.repeat(levels) + "0" + &close.repeat(levels);
        ann.send_text(&format!(r#"{{"type":"public","content":{nested}}}"#));
        assert_has(&ann.next(), json!({"type": "error", "code": "bad_request"}));
        // Without its end, and with its end but not an object.
        ann.send_text(&format!(r#"{{"content":{}"#, open.repeat(levels)));
        assert_has(&ann.next(), json!({"type": "error", "code": "bad_json"}));
        ann.send_text(&nested);
        assert_has(&ann.next(), json!({"type": "error", "code": "bad_request"}));
        // In an unknown field, which is ignored.
        ann.send_text(&format!(r#"{{"x":{nested},"type":"public","content":"deep"}}"#));
        assert_has(&ann.next(), json!({"type": "public", "content": "deep"}));
    }
}

#[test]
fn deeper_json_takes_no_more_stack_to_parse() {
    let parsing = thread::Builder::new().stack_size(STACK_BYTES).spawn(|| {
        for open in ["[", r#"{"a":"#] {
            let text = format!(r#"{{"content":{}"#, open.repeat(TEXT_BYTES_MAX / open.len()));
            assert!(matches!(Request::parse(&text, 1), Err(BadMessage::Error(_))));
        }
    });
    parsing.expect("a thread").join().expect("the parser does not panic");
}

#[test]
fn unusual_json_is_an_error_or_a_message_and_the_connection_stays_open() {
    let server = TestServer::start(&["--max-message-bytes", MESSAGE_BYTES_MAX]);
    let mut ann = Client::join(&server, "Ann");
    let digits = "9".repeat(1 << 20);
    let keys = (0..100_000).map(|number| format!(r#""{number}":0,"#)).collect::<String>();
    let public = |content: &str| format!(r#"{{"type":"public","content":{content}}}"#);
    let errors = [
        (public(&digits), "bad_request"),
        (public(&format!("-{digits}.{digits}e{digits}")), "bad_request"),
        (public(&format!("1e{digits}")), "bad_request"),
        (format!(r#"{{"type":{digits},"content":"x"}}"#), "bad_request"),
        (public("NaN"), "bad_json"),
        (public("-"), "bad_json"),
        (public("01"), "bad_json"),
        (public(r#""\ud83d""#), "bad_json"),
        (public(r#""\ude00\ud83d""#), "bad_json"),
        (public(r#""\ud83d\u0041""#), "bad_json"),
        (public(r#""\ud83d\n""#), "bad_json"),
        (public(r#""\x""#), "bad_json"),
        (public("\"\u{0}\""), "bad_json"),
        (public("\"\n\""), "bad_json"),
        (r#"{"type":"public","content":"x","ref":"\ud83d"}"#.to_owned(), "bad_json"),
        (r#"{"\ud83d":0,"type":"public","content":"x"}"#.to_owned(), "bad_request"),
        (r#"{"type":"public","type":"public","content":"x"}"#.to_owned(), "bad_request"),
        (r#"{"type":"public","content":"x","content":"x"}"#.to_owned(), "bad_request"),
        (r#"{"type":"public","content":"x","ref":"a","ref":"a"}"#.to_owned(), "bad_request"),
        (r#"{"type":"private","to":"Ann","to":"Ann","content":"x"}"#.to_owned(), "bad_request"),
        (public("true"), "bad_request"),
        (public("null"), "bad_request"),
        (public("[]"), "bad_request"),
        (r#"{"type":null,"content":"x"}"#.to_owned(), "bad_request"),
        (r#"{"type":{"public":null},"content":"x"}"#.to_owned(), "bad_request"),
        ("\u{FEFF}{}".to_owned(), "bad_json"),
        ("{}\u{0}".to_owned(), "bad_json"),
        ("{".to_owned(), "bad_json"),
        (" ".repeat(TEXT_BYTES_MAX), "bad_json"),
        ("null".to_owned(), "bad_request"),
    ];
    for (text, code) in errors {
        ann.send_text(&text);
        let error = ann.next();
        let shown: String = text.chars().take(100).collect();
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("error"), &json!(code)),
            "{shown}: {error}"
        );
        // The error is a short line that does not repeat the text.
        assert!(error["content"].as_str().is_some_and(|content| content.len() < 200), "{error}");
    }
    let messages = [
        (public(r#""\ud83d\ude00""#), "\u{1F600}"),
        (format!(r#"{{{keys}"type":"public","content":"many keys"}}"#), "many keys"),
        (
            format!(r#"{{"x":1,"x":2,"x":{digits},"type":"public","content":"twice unknown"}}"#),
            "twice unknown",
        ),
        (r#"{"\u0074ype":"public","content":"escaped key"}"#.to_owned(), "escaped key"),
        (format!("\t\r\n {} \n", public("\"padded\"")), "padded"),
    ];
    for (text, content) in messages {
        ann.send_text(&text);
        assert_has(&ann.next(), json!({"type": "public", "content": content}));
    }
}
