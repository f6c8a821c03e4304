//! The page's `checked.js` alone, in a browser: what it keeps of messages and of a stored seat.

use serde_json::{Value, json};

use crate::support::TestServer;
use crate::support::browser::Browser;

/// Evaluates each expression after the import of `checked.js`, and compares the result.
fn check<'a>(cases: impl IntoIterator<Item = (&'a str, Value)>) {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut page = browser.open(&format!("http://{}/", server.address));
    for (expression, expected) in cases {
        let result = page.eval(&format!(
            "(async () => {{
               const {{ readMessage, readName, readSeat }} = await import('./checked.js');
               const message = (fields) => readMessage(JSON.stringify(fields));
               const seat = (fields) => readSeat(JSON.stringify({{ ...SEAT, ...fields }}));
               const WELCOME = {{ type: 'welcome', user: 'Ann', room: 'r', users: ['Ann', 'Bob'],
                 epoch: 'e', session: 's', seq: 2, history: 1, recovered: false, ts: 1 }};
               const PUBLIC = {{ type: 'public', user: 'Bob', content: 'x', room: 'r', seq: 1,
                 ref: 'b', ts: 1 }};
               const ITEM = {{ message: {{ type: 'private', to: 'Bob', content: 'x', ref: 'a-1' }},
                 sent: 5, by: 'Ann', failed: '' }};
               const SEAT = {{ name: 'Ann', room: 'r', session: 's', epoch: 'e', seen: 3,
                 unsettled: [ITEM] }};
               return {expression};
             }})()"
        ));
        assert_eq!(result, expected, "{expression}");
    }
}

#[test]
fn a_message_is_kept_with_its_known_fields() {
    check([
        (
            "message(WELCOME)",
            json!({"type": "welcome", "user": "Ann", "room": "r", "users": ["Ann", "Bob"],
                "epoch": "e", "session": "s", "seq": 2, "history": 1}),
        ),
        (
            "message({ ...PUBLIC, later: {} })",
            json!({"type": "public", "user": "Bob", "content": "x", "seq": 1, "ref": "b", "ts": 1}),
        ),
        (
            "message({ type: 'private', user: 'Bob', to: 'Ann', content: 'x', ts: 1 })",
            json!({"type": "private", "user": "Bob", "to": "Ann", "content": "x", "ts": 1}),
        ),
        (
            "['join', 'leave'].map((type) => message({ type, user: 'Bob', content: 'c', ts: 1 }))",
            json!([{"type": "join", "user": "Bob", "ts": 1}, {"type": "leave", "user": "Bob", "ts": 1}]),
        ),
        (
            "message({ type: 'error', code: 'too_big', content: 'c', ref: 'a', ts: 1 })",
            json!({"type": "error", "code": "too_big", "content": "c", "ref": "a"}),
        ),
        // The longest content that a server can be set to accept.
        ("message({ ...PUBLIC, content: 'x'.repeat(2 ** 20) }).content.length", json!(1 << 20)),
    ]);
}

#[test]
fn any_other_message_is_ignored() {
    check([
        (
            "['', '{', 'null', '7', '\"x\"', '[]', '{}', '[[]]', '{\"type\":{}}', '{\"type\":null}']
               .map(readMessage).filter(Boolean)",
            json!([]),
        ),
        // A binary frame.
        ("[new Blob(['{}']), new ArrayBuffer(8), undefined].map(readMessage)", json!([null, null, null])),
        (
            "['later', '__proto__', 'constructor', 'toString', 'hasOwnProperty']
               .map((type) => message({ ...PUBLIC, type })).filter(Boolean)",
            json!([]),
        ),
        // Each field in turn is missing, and of each wrong type.
        (
            "[WELCOME, PUBLIC, { ...PUBLIC, type: 'private', to: 'Ann' }, { ...PUBLIC, type: 'join' },
              { type: 'error', code: 'x', content: 'x', ref: 'a' }]
               .flatMap((whole) => Object.keys(message(whole)).flatMap((key) =>
                 [undefined, null, true, -1, 0.5, 1e300, {}, [7], { length: 1 }]
                   .filter((value) => !(key === 'ref' && value === undefined))
                   .map((value) => message({ ...whole, [key]: value }))))
               .filter(Boolean)",
            json!([]),
        ),
        ("message({ ...PUBLIC, ts: 8.64e15 + 2 })", json!(null)),
        ("message({ ...PUBLIC, content: 'x'.repeat(2 ** 20 + 1) })", json!(null)),
        ("message({ ...WELCOME, session: 's'.repeat(65) })", json!(null)),
        ("message({ ...WELCOME, room: 'r'.repeat(129) })", json!(null)),
        ("readMessage(JSON.stringify(PUBLIC) + ' '.repeat(2 ** 23))", json!(null)),
        ("readMessage('['.repeat(2 ** 22))", json!(null)),
        (
            "(() => {
               const fields = readMessage(
                 '{\"type\":\"join\",\"user\":\"Bob\",\"ts\":1,\"__proto__\":{\"user\":\"x\"}}');
               return [Object.keys(fields).join(), Object.getPrototypeOf(fields) === Object.prototype];
             })()",
            json!(["type,user,ts", true]),
        ),
    ]);
}

#[test]
fn names_and_lists_of_them_are_cut() {
    check([
        (
            "message({ ...PUBLIC, user: '😀'.repeat(1e6) }).user === '😀'.repeat(32) + '…'",
            json!(true),
        ),
        ("message({ ...PUBLIC, user: '😀'.repeat(32) }).user === '😀'.repeat(32)", json!(true)),
        (
            "message({ ...WELCOME, users: Array(8e5).fill('Bob') }).users.length",
            json!(parlour::terminal::received::MEMBERS_MAX),
        ),
        (
            "message({ type: 'error', code: 'x', content: 'x'.repeat(1e6) }).content.length",
            json!(501),
        ),
    ]);
}

#[test]
fn a_seat_is_kept_field_by_field() {
    let item = json!({"message": {"type": "private", "to": "Bob", "content": "x", "ref": "a-1"},
        "sent": 5, "by": "Ann", "failed": ""});
    let whole = json!({"name": "Ann", "room": "r", "session": "s", "epoch": "e", "seen": 3,
        "unsettled": [item]});
    check([
        ("seat({ later: {} })", whole),
        // Nothing can be used without a name and a room, which are short.
        (
            "[['name', 65], ['room', 129]].flatMap(([key, units]) =>
               [undefined, null, 7, {}, [], 'x'.repeat(units)]
                 .map((value) => seat({ [key]: value })))
               .filter(Boolean)",
            json!([]),
        ),
        // The longest name of a room.
        ("seat({ room: '𐐷'.repeat(64) }).room === '𐐷'.repeat(64)", json!(true)),
        // Half a session is none.
        (
            "['session', 'epoch'].flatMap((key) =>
               [undefined, null, 7, {}, 'x'.repeat(65)].map((value) => seat({ [key]: value })))
               .filter(({ session, epoch }) => session !== undefined || epoch !== undefined)",
            json!([]),
        ),
        (
            "[undefined, null, -1, 0.5, '3', {}, 1e300].map((seen) => seat({ seen }).seen)",
            json!([0, 0, 0, 0, 0, 0, 0]),
        ),
        (
            "[undefined, null, 7, 'x', {}, { length: 1 }].map((unsettled) => seat({ unsettled }))
               .flatMap(({ unsettled }) => unsettled)",
            json!([]),
        ),
        // A message that can't be used does not take the others with it.
        (
            "seat({ unsettled: [
               null, 7, 'x', [], {}, { message: null }, { message: {} },
               ...['sent', 'by', 'failed'].map((key) => ({ ...ITEM, [key]: undefined })),
               ...['type', 'to', 'content', 'ref'].map((key) =>
                 ({ ...ITEM, message: { ...ITEM.message, [key]: 7 } })),
               { ...ITEM, message: { ...ITEM.message, type: '__proto__' } },
               { ...ITEM, message: { ...ITEM.message, type: 'constructor' } },
               { ...ITEM, message: { type: 'public', content: 'y', ref: 'a-2' } },
             ] }).unsettled.map(({ message }) => message)",
            json!([{"type": "public", "content": "y", "ref": "a-2"}]),
        ),
        (
            "['', '{', 'null', '7', '\"x\"', '[]', '{}', '[[]]'].map(readSeat).filter(Boolean)",
            json!([]),
        ),
        ("[null, undefined, 7].map(readSeat)", json!([null, null, null])),
        ("readSeat('{\"__proto__\":{\"name\":\"Ann\",\"room\":\"r\"}}')", json!(null)),
        (
            "[readName('Ann'), ...[null, undefined, 7, 'x'.repeat(65)].map(readName)]",
            json!(["Ann", "", "", "", ""]),
        ),
    ]);
}
