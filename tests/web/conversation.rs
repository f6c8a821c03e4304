//! The page's `conversation.js` alone, in a browser: what it shows, sends, and sends again.

use parlour::protocol::fold::fold;
use parlour::protocol::visible::is_legible;
use serde_json::{Value, json};

use crate::support::TestServer;
use crate::support::browser::Browser;

/// Ann in room `r`, whose references begin with `a-`, and short names for what happens to her.
const ANN: &str = "
    const { Conversation, Reconnection, fold, parseTyped } = await import('./conversation.js');
    const { texts } = await import('./texts.js');
    const words = Object.entries({ ...texts, ...texts.errors });
    const key = (text) => words.find(([, each]) => each === text)?.[0] ?? text;
    const start = () => Object.assign(new Conversation('a'), { name: 'Ann', room: 'r' });
    let ann = start();
    let now = 1000;
    const receive = (message) => ann.receive({ ts: 1, ...message }, now);
    const welcome = (epoch, session, seq, history, room = 'r') => receive(
      { type: 'welcome', user: 'Ann', room, users: ['Ann', 'Bob'], epoch, session, seq, history });
    const message = (seq, user, ref) => receive({ type: 'public', user, content: 'x', seq, ref });
    const whisper = (user, to, ref) => receive({ type: 'private', user, to, content: 'x', ref });
    const say = (content, to = null) => ann.post(to, content, now);
    const sent = (effects) => effects.toSend.map(({ ref }) => ref).join();
    const entry = ({ type, content }) => `${type}: ${key(content)}`;
    const shown = (effects) => effects.toShow.map(entry).join();
    const failed = () => [...ann.unconfirmed.values()].filter((item) => item.failed)
      .map(({ message, failed }) => `${message.content}: ${key(failed)}`).join();
    const unconfirmed = () => [...ann.unconfirmed.keys()].join();
    const read = (text, recipient = null) => {
      const members = ['Bob', 'Bob Smith', 'İpek', 'ann', 'Straße'];
      const byKey = new Map(members.map((name) => [fold(name), name]));
      const request = parseTyped(text, recipient, byKey);
      return request && [request.to, request.content];
    };
    const reconnection = new Reconnection(now);
    const closed = (code, welcomed, random = 1) => {
      const next = reconnection.closed(code, { welcomed, now, random });
      return next.waitMs ?? Object.keys(next)[0];
    };
";

/// A name, JavaScript that runs after [`ANN`], and what it must return.
type Case = (&'static str, &'static str, Value);

fn check(cases: impl IntoIterator<Item = Case>) {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut page = browser.open(&format!("http://{}/", server.address));
    for (name, steps, expected) in cases {
        let result = page.eval(&format!("(async () => {{ {ANN} {steps} }})()"));
        assert_eq!(result, expected, "{name}");
    }
}

#[test]
fn it_has_no_page_no_socket_and_no_clock() {
    let script = concat!(
        include_str!("../../src/web/conversation.js"),
        include_str!("../../src/web/checked.js")
    );
    let outside = "document window self globalThis navigator location localStorage sessionStorage \
        WebSocket fetch addEventListener setTimeout setInterval Date performance crypto";
    assert!(!script.contains("Math.random"));
    for word in script.split(|c: char| !c.is_ascii_alphanumeric()) {
        assert!(outside.split(' ').all(|name| name != word), "one mentions {word}");
    }
}

#[test]
fn messages_are_sent_once_the_history_is_complete_and_again_until_they_are_confirmed() {
    check([
        (
            "what is written early waits for the history",
            "const early = say('early');
             return [sent(early), sent(welcome('e', 's', 2, 2)), sent(message(1, 'Bob', 'b')),
               sent(message(2, 'Bob', 'b')), sent(say('late', 'Bob')), String(ann.query())];",
            json!(["", "", "", "a-1", "a-2", "name=Ann&room=r&session=s&epoch=e&since=2"]),
        ),
        (
            "before the first welcome there is nothing to come back to",
            "return String(ann.query());",
            json!("name=Ann&room=r"),
        ),
        (
            "what is not confirmed goes out again with its reference, and is confirmed by it",
            "welcome('e', 's', 0, 0);
             say('1'); say('2'); say('3'); say('4', 'Bob');
             message(1, 'Bob', 'a-2'); // a reference confirms only a member's own message
             message(2, 'Ann', 'a-1');
             const before = unconfirmed();
             ann.disconnect();
             const waits = sent(say('5'));
             const early = sent(welcome('e', 's', 3, 1));
             const again = sent(message(3, 'Ann', 'a-2')); // this one had arrived
             const twice = shown(message(3, 'Ann', 'a-3')); // shown before the connection broke
             return [before, waits, early, again, twice, unconfirmed()];",
            json!(["a-2,a-3,a-4", "", "", "a-3,a-4,a-5", "", "a-4,a-5"]),
        ),
        (
            "a private message of a forgotten session is not sent twice",
            "welcome('e', 's', 0, 0);
             say('sent', 'Bob');
             ann.disconnect();
             say('kept', 'Bob');
             const early = sent(welcome('e', 'another', 1, 1));
             ann.disconnect(); // before the history is complete
             return [early, sent(welcome('e', 'another', 0, 0)), failed()];",
            json!(["", "a-2", "sent: uncertain"]),
        ),
        (
            "a public message that the room may have forgotten is not sent twice",
            "welcome('e', 's', 0, 0);
             say('old'); say('recent'); say('lost'); say('private', 'Bob');
             ann.disconnect();
             say('kept');
             const early = sent(welcome('e', 's', 4, 2)) + failed();
             message(3, 'Ann', 'a-2');
             const late = sent(message(4, 'Bob', 'b'));
             const lost = failed();
             ann.disconnect(); // without a gap, everything goes out again
             return [early, late, lost, sent(welcome('e', 's', 4, 0))];",
            json!(["", "a-4,a-5", "old: uncertain,lost: uncertain", "a-4,a-5"]),
        ),
        (
            "a room without a history forgets at once",
            "welcome('e', 's', 0, 0);
             say('arrived');
             ann.disconnect();
             return [sent(welcome('e', 's', 1, 0)), failed()];",
            json!(["", "arrived: uncertain"]),
        ),
        (
            "what has failed waits for the user, who sends it again or gives it up",
            "welcome('e', 's', 0, 0);
             say('1'); say('2');
             const first = ann.failOldest('too long').hasFailed && failed();
             ann.failOldest('too long');
             ann.disconnect();
             const none = sent(welcome('e', 's', 0, 0));
             const [one, two] = ann.unconfirmed.values();
             const again = sent(ann.retry(one, now));
             const discarded = ann.discard(two);
             return [first, none, again, discarded.hasFailed, unconfirmed(), failed()];",
            json!(["1: too long", "", "a-1", false, "a-1", ""]),
        ),
        (
            "what the user sends again counts as new",
            "welcome('e', 's', 0, 0);
             say('1');
             ann.failOldest('too long');
             ann.disconnect();
             ann.retry([...ann.unconfirmed.values()][0], now);
             return [sent(welcome('e', 's', 5, 0)), failed()];",
            json!(["a-1", ""]),
        ),
        (
            "it is confirmed under the name that it was sent with",
            "ann.name = 'ann';
             say('1');
             welcome('e', 's', 0, 0);
             message(1, 'Ann', 'a-1');
             return unconfirmed();",
            json!(""),
        ),
        (
            "a message without its confirmation for 15 seconds shows that the connection is dead",
            "welcome('e', 's', 0, 0);
             say('1');
             const overdue = [ann.isOverdue(now + 15000), ann.isOverdue(now + 15001)];
             ann.failOldest('too long');
             overdue.push(ann.isOverdue(now + 15001));
             say('2');
             ann.disconnect();
             return [...overdue, ann.isOverdue(now + 15001)];",
            json!([false, true, false, false]),
        ),
    ]);
}

#[test]
fn what_the_server_sends_is_shown_once_and_what_is_missing_is_too() {
    check([
        (
            "messages that are missing",
            "welcome('e', 's', 1, 1);
             message(1, 'Bob', 'b');
             ann.disconnect();
             const nothing = shown(welcome('e', 's', 3, 2));
             ann.disconnect();
             const gap = shown(welcome('e', 's', 9, 2));
             ann.disconnect();
             const restarted = shown(welcome('f', 's', 1, 1));
             return [nothing, gap, restarted, shown(message(1, 'Bob', 'b'))];",
            json!(["", "divider: gap", "divider: restarted", "public: x"]),
        ),
        (
            "alerts are for what others write now",
            "const alerts = [];
             const note = (effects) => alerts.push(effects.alert && effects.alert.type);
             welcome('e', 's', 1, 1);
             note(message(1, 'Bob', 'b'));
             note(message(2, 'Ann', 'a'));
             note(message(3, 'Bob', 'b'));
             note(whisper('Bob', 'Ann', 'b'));
             note(receive({ type: 'join', user: 'Cas', content: 'Cas joined' }));
             return alerts;",
            json!([null, null, "public", "private", null]),
        ),
        (
            "an error is about a message that is unconfirmed",
            "welcome('e', 's', 0, 0);
             say('psst', 'Eve');
             receive({ type: 'error', code: 'no_such_user', content: 'gone', ref: 'a-1' });
             return failed();",
            json!("psst: no_such_user"),
        ),
        (
            "or about one that was confirmed, and is now taken back",
            "welcome('e', 's', 0, 0);
             say('psst', 'Bob');
             receive({ type: 'private', user: 'Ann', to: 'Bob', content: 'psst', ref: 'a-1' });
             const error = { type: 'error', code: 'no_such_user', content: 'gone', ref: 'a-1' };
             const effects = receive(error);
             const why = failed() === `psst: ${texts.notDelivered('Bob')}`;
             return [effects.retracted, why, shown(receive({ ...error, ref: 'a-9' }))];",
            json!(["a-1", true, "note: no_such_user"]),
        ),
        (
            "or about the connection, before its welcome: the close says the same",
            "return shown(receive({ type: 'error', code: 'name_taken', content: 'taken' }));",
            json!(""),
        ),
        (
            "members, whatever their case; one's own arrival, after the history, is not shown",
            "welcome('e', 's', 0, 0);
             const own = shown(receive({ type: 'join', user: 'Ann', content: 'Ann joined' }));
             receive({ type: 'leave', user: 'BOB', content: 'Bob left' });
             receive({ type: 'join', user: 'Cas Smith', content: 'Cas Smith joined' });
             return [own, ...ann.members.values()];",
            json!(["", "Ann", "Cas Smith"]),
        ),
        (
            "what a later version may send is ignored",
            "return shown(receive({ type: 'of a later version' }));",
            json!(""),
        ),
    ]);
}

#[test]
fn a_reload_goes_on_and_another_room_starts_over() {
    check([
        (
            "a reload",
            "welcome('e', 's', 1, 1);
             message(1, 'Bob', 'b');
             say('kept');
             const seat = JSON.parse(JSON.stringify(ann.toSeat()));
             ann = start();
             ann.resume(seat);
             const query = String(ann.query());
             const nothing = shown(welcome('e', 's', 2, 1));
             return [query, nothing, sent(message(2, 'Bob', 'b')), ann.toSeat().seen];",
            json!(["name=Ann&room=r&session=s&epoch=e&since=0", "", "a-1", 2]),
        ),
        (
            "the room again, and another room",
            "welcome('e', 's', 1, 0);
             say('kept');
             const same = [ann.moveTo('r'), unconfirmed()];
             const other = [ann.moveTo('other'), unconfirmed(), String(ann.query())];
             return [...same, ...other];",
            json!([false, "a-1", true, "", "name=Ann&room=other"]),
        ),
        (
            "the room in another form, and as the server calls it",
            "ann.moveTo('Rust');
             say('kept');
             const asked = String(ann.query());
             const again = sent(welcome('e', 's', 0, 0, 'rust'));
             const { room } = ann.toSeat();
             const same = ann.moveTo(' ＲＵＳＴ') || unconfirmed();
             return [asked, again, room, same, String(ann.query())];",
            json!([
                "name=Ann&room=Rust",
                "a-1",
                "rust",
                "a-1",
                "name=Ann&room=+%EF%BC%B2%EF%BC%B5%EF%BC%B3%EF%BC%B4&session=s&epoch=e&since=0"
            ]),
        ),
    ]);
}

#[test]
fn what_the_user_writes_is_for_everyone_or_for_one_member() {
    check([
        (
            "to everyone, unless there is a recipient",
            "return [read('  indented  '), read('hi', 'Bob'), read(' \t')];",
            json!([[null, "  indented"], ["Bob", "hi"], null]),
        ),
        (
            "a command names the recipient, by the longest name that fits",
            "return [read('/msg bob smith  hello there '), read('/msg Bob Smithers hello'),
               read('/msg İpek x\\ny')];",
            json!([["Bob Smith", "hello there"], ["Bob", "Smithers hello"], ["İpek", "x\ny"]]),
        ),
        (
            "in whatever form it is typed",
            "return ['STRASSE x', 'ＢＯＢ\u{A0} smith\u{2009} x', 'i\u{307}pek x', 'Strase x']
               .map((rest) => read(`/msg ${rest}`));",
            json!([["Straße", "x"], ["Bob Smith", "x"], ["İpek", "x"], ["Strase", "x"]]),
        ),
        (
            "or somebody who is not there, which the server says",
            "return [read('/msg Eve hello', 'Bob'), read('/msg Bob')];",
            json!([["Eve", "hello"], null]),
        ),
        (
            "names are completed whatever their case, one's own is not",
            "welcome('e', 's', 0, 0);
             for (const user of ['bo', 'Annabel', 'Straße', 'José']) receive({ type: 'join', user });
             return ['b', 'BO', 'ann', 'x', 'ＢＯ', 'STRAS', 'jose\u{301}', '\u{200D}']
               .map((stem) => ann.completions(stem).join());",
            json!(["Bob,bo", "Bob,bo", "Annabel", "", "Bob,bo", "Straße", "José", ""]),
        ),
        (
            "mentions",
            "return ['@ann: hi', 'ann', '@Bob'].map((content) => ann.isMention(content));",
            json!([true, false, false]),
        ),
        (
            "mentions in another form",
            "ann.name = 'Tom Straße';
             return ['a@b, @ＴＯＭ\u{A0} strasse!', '@ tom straße', '@tom strase']
               .map((content) => ann.isMention(content));",
            json!([true, false, false]),
        ),
        (
            "a mention costs little in a long message",
            "const content = '@\u{301}\u{323}'.repeat(2 ** 18) + '\u{301}\u{323}'.repeat(2 ** 17);
             const before = performance.now();
             return [ann.isMention(content), performance.now() - before < 5000];",
            json!([false, true]),
        ),
    ]);
}

/// Names, and what each is compared by. The server's `fold` is the page's twin.
#[test]
fn names_are_compared_as_the_server_does() {
    let names = [
        ("aNN", "ann"),
        ("Ｂｏｂ", "bob"),
        ("\u{3000}Ann \u{A0}\u{85} Lee\t", "ann lee"),
        ("Jose\u{301}", "josé"),
        ("A\u{302}\u{323}", "ậ"),
        ("ﬁnal", "final"),
        ("\u{212A}elvin", "kelvin"),
        ("ſiſter", "sister"),
        ("straße", "strasse"),
        ("STRA\u{1E9E}E", "strasse"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευσ"),
        ("οδυσσευς", "οδυσσευσ"),
        ("ᾳ", "αι"),
        ("İnci", "i\u{307}nci"),
        ("Tarık", "tarık"),
        ("Ꭰ", "ꭰ"),
        ("ᲜᲘᲜᲝ", "ნინო"),
        ("\u{1100}\u{1161}", "가"),
        ("ｶﾞ", "ガ"),
        ("ﻣﺮﺣﺒﺎ", "مرحبا"),
        ("علی\u{200C}رضا", "علیرضا"),
        ("葛\u{E0100}", "葛"),
        ("☀\u{FE0F}", "☀"),
        ("👩\u{200D}💻", "👩💻"),
        ("Ann①", "ann1"),
        ("\u{200B}", ""),
    ];
    for (name, folded) in names {
        assert_eq!(fold(name), folded, "the server's form of {name:?}");
    }
    let typed = json!(names.map(|(name, _)| name));
    let steps = format!("return {typed}.map(fold);");
    check([("names", steps.leak() as &str, json!(names.map(|(_, folded)| folded)))]);
}

/// Each character in a name that both the browser and the server know.
#[test]
fn every_letter_is_folded_as_the_server_does() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut page = browser.open(&format!("http://{}/", server.address));
    let characters: Vec<char> =
        ('\0'..='\u{1FFFF}').filter(|c| is_legible(&format!("x{c}"))).collect();
    let text: String = characters.iter().collect();
    let folded = page.eval(&format!(
        "(async () => {{ {ANN} return [...{}]
             .map((c) => (/\\p{{Unassigned}}/u.test(c) ? null : fold(`x${{c}}x`))); }})()",
        json!(text)
    ));
    let folded: Vec<Option<String>> = serde_json::from_value(folded).expect("a list of texts");
    for (c, folded) in characters.into_iter().zip(folded) {
        let Some(folded) = folded else { continue };
        assert_eq!(folded, fold(&format!("x{c}x")), "U+{:04X}", u32::from(c));
    }
}

#[test]
fn it_connects_again_unless_the_user_has_to_decide() {
    check([
        (
            "each wait is twice the last, up to 30 seconds, and half of it is left to random",
            "const waits = [0, 1, 0.5].map((random) => closed(1006, true, random));
             reconnection.attempts = 60;
             return [...waits, closed(1006, true)];",
            json!([250, 1000, 1500, 30000]),
        ),
        (
            "what the user can change is asked for",
            "return [4400, 4409, 4503].map((code) => closed(code, false));",
            json!(["refused", "refused", "refused"]),
        ),
        (
            "unless the name may be taken by an attempt whose welcome got lost",
            "const waits = [closed(1006, false), closed(4409, false)];
             now += 15000;
             return [...waits, closed(4409, false)];",
            json!([500, 1000, "refused"]),
        ),
        (
            "but not by one that was welcomed",
            "return [closed(1006, true), closed(4409, false)];",
            json!([500, "refused"]),
        ),
        (
            "another tab goes on",
            "return [closed(4410, true), reconnection.replaced];",
            json!(["replaced", true]),
        ),
        (
            "after a sleep, or without confirmations, the connection is not trusted",
            "const tick = (ms, overdue) => {
               now += ms;
               return [reconnection.tick(now, overdue), reconnection.suspect];
             };
             const ticks = [tick(1000, false), tick(60000, false), tick(90001, false)];
             reconnection.suspect = false;
             return [...ticks, tick(1000, true)];",
            json!([[false, false], [false, false], [true, true], [true, true]]),
        ),
    ]);
}

#[test]
fn each_language_has_every_text() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut page = browser.open(&format!("http://{}/", server.address));
    let differences = "(async () => {
        const { TEXTS } = await import('./texts.js');
        const kinds = (table) => Object.entries(table).flatMap(([key, text]) =>
          typeof text === 'object'
            ? kinds(text).map((inner) => `${key}.${inner}`)
            : `${key}: ${typeof text}${text.length === 0 ? ', empty' : ''}`);
        const english = kinds(TEXTS.en).sort().join();
        const used = [...document.querySelectorAll('[data-text], [data-label]')]
          .flatMap(({ dataset: { text, label } }) => [text, label].filter(Boolean));
        return Object.entries(TEXTS).filter(([, table]) => kinds(table).sort().join() !== english)
          .map(([language]) => language)
          .concat(used.filter((key) => typeof TEXTS.en[key] !== 'string'))
          .concat(english.match(/[^,]*, empty/) ?? []);
    })()";
    assert_eq!(page.eval(differences), json!([]));
}
