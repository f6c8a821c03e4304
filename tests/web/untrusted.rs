//! The chat page with a damaged storage, and with a server that sends what no server does.

use serde_json::{Value, json};

use crate::support::browser::{Browser, Page};
use crate::support::{Client, TestServer};

/// What may stand in a tab's storage in place of a seat.
const DAMAGED: [&str; 12] = [
    "",
    "x",
    "null",
    "7",
    "[]",
    "{}",
    r#"{"name":"Ann","room":"r"}"#,
    r#"{"name":7,"room":"r","session":7,"epoch":{},"seen":"x","unsettled":7}"#,
    r#"{"name":"Ann","room":"r","session":"s","epoch":"e","seen":1,"unsettled":[null,{}]}"#,
    r#"{"name":"Ann","room":"r","unsettled":[{"message":{"ref":1}}]}"#,
    r#"{"__proto__":{"room":"r"},"name":"Ann"}"#,
    r#"{"name":"Ann","room":"r","unsettled":{"length":1}}"#,
];

fn open(browser: &mut Browser, server: &TestServer) -> Page {
    browser.open(&format!("http://{}/?room=r", server.address))
}

/// The page lets in: it shows its door, or has found its way back into the room.
fn wait_alive(page: &mut Page) {
    page.wait(
        "!document.getElementById('door').hidden ||
         (!document.getElementById('parlour').hidden && !conversation.awaitsWelcome)",
    );
}

#[test]
fn a_damaged_seat_is_dropped() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut page = open(&mut browser, &server);
    for seat in DAMAGED {
        let seat = json!(seat);
        // Once the page has been left, it writes its own seat no more.
        page.eval(&format!(
            "addEventListener('pagehide', () => sessionStorage.setItem('parlour-seat', {seat}));
             localStorage.setItem('parlour-name', {seat}.repeat(1000));"
        ));
        page.reload();
        wait_alive(&mut page);
    }
    page.eval("sessionStorage.clear(); addEventListener('pagehide', () => sessionStorage.clear())");
    page.reload();
    page.join("Bob");
    page.wait_text("#names", "Bob");
}

#[test]
fn storage_that_throws_keeps_nobody_out() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut page = open(&mut browser, &server);
    page.run_before_scripts(
        "for (const name of ['localStorage', 'sessionStorage']) {
           Object.defineProperty(window, name, { get() { throw new DOMException('', 'SecurityError'); } });
         }",
    );
    page.reload();
    page.join("Ann");
    page.wait_text("#names", "Ann");
    page.eval("document.getElementById('sound').click()");
    page.say("hello");
    page.wait_text("#log", "hello");
    assert_eq!(
        page.eval("(() => { try { return !localStorage; } catch { return true; } })()"),
        true
    );
}

/// Lets the page receive `data`, a JavaScript expression, as if its server had sent it.
fn receive(page: &mut Page, data: &str) {
    page.eval(&format!("connection.socket.onmessage({{ data: {data} }})"));
}

#[test]
fn messages_that_no_server_sends_do_not_stop_the_page() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut bob = Client::join_room(&server, "Bob", "r");
    let mut page = open(&mut browser, &server);
    page.join("Ann");
    page.wait_text("#names", "Bob");
    for data in [
        "'{'",
        "new Blob(['x'])",
        r#"'{"type":"welcome"}'"#,
        r#"'{"type":"public","user":null,"content":7,"seq":"x","ts":"now"}'"#,
        // No Date holds this time.
        r#"'{"type":"public","user":"Eve","content":"x","seq":1,"ts":1e300}'"#,
        r#"'{"type":"join","user":{},"ts":1}'"#,
        r#"'{"type":"__proto__"}'"#,
        r#"'{"type":"constructor","user":"x"}'"#,
    ] {
        receive(&mut page, data);
    }
    // The texts of an object's own prototype are none of the page's.
    receive(&mut page, r#"'{"type":"error","code":"constructor","content":"plain words","ts":1}'"#);
    page.wait_text("#log .notice", "plain words");
    bob.say("still here");
    page.wait_text("#log", "still here");
    page.say("and so am I");
    bob.next_where(|message| message["content"] == "and so am I");
}

#[test]
fn what_the_page_keeps_is_bounded() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut page = open(&mut browser, &server);
    page.join("Ann");
    page.wait_text("#names", "Ann");
    let max = parlour::terminal::received::MEMBERS_MAX;
    // A million members in a welcome, then more that join.
    receive(
        &mut page,
        "JSON.stringify({ type: 'welcome', user: 'Ann', room: 'r', epoch: 'e', session: 's',
           seq: 0, history: 0, users: Array.from({ length: 1e6 }, (_, n) => n.toString(36)) })",
    );
    page.wait_text("#count", &format!("{max} here"));
    page.eval(
        "for (let n = 0; n < 1000; n += 1) {
           connection.socket.onmessage({ data: `{\"type\":\"join\",\"user\":\"n${n}\",\"ts\":1}` });
         }",
    );
    assert_eq!(page.eval("conversation.members.size"), json!(max));
    page.wait("document.querySelectorAll('#names li').length <= 501");

    // Joins without end, and long messages.
    receive(
        &mut page,
        "JSON.stringify({ type: 'welcome', user: 'Ann', room: 'r', epoch: 'e', session: 's',
           seq: 0, history: 0, users: ['Ann'] })",
    );
    page.eval(
        "for (let n = 0; n < 450; n += 1) {
           connection.socket.onmessage({ data: `{\"type\":\"join\",\"user\":\"n${n}\",\"ts\":1}` });
         }",
    );
    page.wait("document.querySelectorAll('#log .notice').length === 5");
    page.eval(
        "for (let seq = 1; seq <= 40; seq += 1) {
           const content = 'x'.repeat(1e6);
           connection.socket.onmessage({ data: JSON.stringify(
             { type: 'public', user: 'Eve', content, seq, ts: 1 }) });
         }
         void connection.socket.onmessage({ data: JSON.stringify(
           { type: 'public', user: 'Eve', content: 'end', seq: 41, ts: 1 }) })",
    );
    page.wait(
        "[...document.querySelectorAll('#log .body')].some((node) => node.textContent === 'end')",
    );
    let units = page.eval("document.getElementById('log').textContent.length");
    assert!(units.as_u64().is_some_and(|units| units < 17 << 20), "{units}");
    assert!(units.as_u64().is_some_and(|units| units > 10 << 20), "{units}");
}

#[test]
fn a_message_costs_no_more_than_its_length() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&["--max-message-bytes", "1048576"]);
    let mut page = open(&mut browser, &server);
    page.join("Ann");
    page.wait_text("#names", "Ann");
    let mut eve = Client::join_room(&server, "Eve", "r");
    // Punctuation that could be the end of an address, and many addresses.
    eve.say(&format!("http://x{}y", ".".repeat(500_000)));
    eve.say(&"http://a.example ".repeat(10_000));
    eve.say("end");
    page.wait_text("#log", "end");
    assert_eq!(page.eval("document.querySelectorAll('#log a').length"), Value::from(101));
}
