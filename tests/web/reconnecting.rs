//! The chat page through broken connections, reloads and restarts, and in two tabs at once.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::browser::{Browser, Page};
use crate::support::proxy::{Fault, Plan, Proxy};
use crate::support::{Client, TestServer};

/// Long enough for a page on a busy machine.
const GRACE: [&str; 2] = ["--leave-grace", "60s"];

/// Opens a window of the chat at `address`, and joins room `r`.
fn window(browser: &mut Browser, address: SocketAddr, name: &str) -> Page {
    let mut page = browser.open(&format!("http://{address}/?room=r"));
    page.join(name);
    page.wait_text("#names", name);
    page
}

/// Lists the public messages that a page shows.
fn shown(page: &mut Page) -> Value {
    contents(page, "#log .message.public .body")
}

/// Lists the notices and dividers that a page shows.
fn notices(page: &mut Page) -> Value {
    contents(page, "#log .notice, #log .divider")
}

fn contents(page: &mut Page, selector: &str) -> Value {
    page.eval(&format!(
        "[...document.querySelectorAll('{selector}')].map((node) => node.textContent)"
    ))
}

fn wait_shown(page: &mut Page, message: &str) {
    let message = json!(message);
    page.wait(&format!(
        "[...document.querySelectorAll('#log .message .body')] \
           .some((body) => body.textContent === {message})"
    ));
}

fn wait_connected(page: &mut Page) {
    page.wait("!conversation.awaitsWelcome && document.getElementById('connection').hidden");
}

/// Cuts the connections, and lets the pages wait for a response that does not come.
fn hold_off(proxy: &Proxy, pages: &mut [&mut Page]) {
    proxy.plan(pages.iter().map(|_| Plan::up(0, Fault::Stall)));
    let before = proxy.faults();
    proxy.cut_all();
    for page in pages {
        page.wait("conversation.awaitsWelcome && connection.socket !== null");
    }
    assert!(proxy.faults() > before);
}

#[test]
fn two_windows_talk_on_while_their_connections_break() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&GRACE);
    let proxy = Proxy::start(server.address);
    let mut witness = Client::join_room(&server, "Wit", "r");
    let mut ann = window(&mut browser, proxy.address, "Ann");
    let mut bob = window(&mut browser, proxy.address, "Bob");
    ann.wait_text("#log", "Bob\u{2069} joined");
    let before = (notices(&mut ann), notices(&mut bob));
    for round in 0..3 {
        // The connections break while messages are on their way. The next two break as well: one
        // in the head of the 101 response, one in the welcome.
        ann.say(&format!("Ann {round}"));
        proxy.plan([Plan::down(60, Fault::Reset), Plan::down(200, Fault::Cut)]);
        proxy.cut_all();
        bob.say(&format!("Bob {round}"));
        ann.say(&format!("Ann again {round}"));
        for page in [&mut ann, &mut bob] {
            // A page that waits connects at once if the user asks for it, if the browser is online
            // again, and if the user returns to the tab.
            match round {
                0 => page.click("#reconnect"),
                1 => drop(page.eval("dispatchEvent(new Event('online'))")),
                _ => drop(page.eval("document.dispatchEvent(new Event('visibilitychange'))")),
            }
            wait_connected(page);
            page.wait("conversation.unconfirmed.size === 0");
        }
    }
    witness.say("end");
    let mut contents = Vec::new();
    while contents.last().is_none_or(|last| last != "end") {
        let message = witness.next();
        match &message["type"] {
            kind if kind == "public" => {
                contents.push(message["content"].as_str().expect("a content").to_owned())
            }
            kind => {
                assert!(kind == "join" && contents.is_empty(), "nobody joins or leaves: {message}")
            }
        }
    }
    assert_eq!(contents.len(), 3 * 3 + 1, "each once: {contents:?}");
    for page in [&mut ann, &mut bob] {
        wait_shown(page, "end");
        assert_eq!(shown(page), json!(contents), "missed messages are in their place");
    }
    assert_eq!((notices(&mut ann), notices(&mut bob)), before);
    assert_eq!(ann.eval("conversation.members.size"), 3);
}

#[test]
fn a_restart_is_a_short_wait_and_a_divider_in_the_log() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&GRACE);
    let address = server.address;
    let mut ann = window(&mut browser, address, "Ann");
    ann.say("before");
    wait_shown(&mut ann, "before");
    drop(server);
    ann.wait_text("#connection", "Connection lost");
    ann.wait_text("#reconnect", "Try now");
    let server = TestServer::start(&["--listen", &address.to_string()]);
    wait_connected(&mut ann);
    ann.say("after");
    wait_shown(&mut ann, "after");
    assert_eq!(shown(&mut ann), json!(["before", "after"]));
    let order = "[...document.querySelectorAll('#log .message.public, #log .divider')] \
        .map((node) => node.classList[0])";
    assert_eq!(ann.eval(order), json!(["message", "divider", "message"]));
    ann.wait_text("#log .divider", "The room has been restarted");
    drop(server);
}

#[test]
fn a_reload_keeps_the_place_and_loses_no_message() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&GRACE);
    let proxy = Proxy::start(server.address);
    let mut witness = Client::join_room(&server, "Wit", "r");
    let mut ann = window(&mut browser, proxy.address, "Ann");
    ann.say("one");
    wait_shown(&mut ann, "one");
    ann.reload();
    wait_shown(&mut ann, "one");
    hold_off(&proxy, &mut [&mut ann]);
    ann.say("two");
    ann.say("/msg Wit three");
    ann.wait("conversation.unconfirmed.size === 2");
    ann.reload();
    wait_shown(&mut ann, "two");
    wait_shown(&mut ann, "three");
    assert_eq!(shown(&mut ann), json!(["one", "two"]));
    assert_eq!(
        ann.eval(
            "[conversation.unconfirmed.size, document.querySelectorAll('#unconfirmed li').length]"
        ),
        json!([0, 0])
    );
    let received: Vec<Value> = (0..4).map(|_| witness.next()["content"].clone()).collect();
    assert_eq!(
        json!(received),
        json!(["Ann joined", "one", "two", "three"]),
        "nobody joins or leaves"
    );

    // Who leaves through the menu has left for good.
    ann.click("#leave");
    assert_eq!(witness.next()["content"], "Ann left");
    ann.reload();
    ann.wait("!document.getElementById('door').hidden");
}

#[test]
fn the_page_follows_the_room_that_it_is_in() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&GRACE);
    let proxy = Proxy::start(server.address);
    let mut witness = Client::join_room(&server, "Wit", "rust");
    let mut ann = browser.open(&format!("http://{}/?room=Rust", proxy.address));
    ann.join("Ann");
    ann.wait_text("#names", "Wit");
    let room = "[location.search, document.title, document.getElementById('room-name').textContent,
        JSON.parse(sessionStorage.getItem('parlour-seat')).room].join(' ')";
    assert_eq!(ann.eval(room), "?room=rust rust · parlour rust rust");

    // A reload at the address that was typed loses no message, nor does a door that asks again.
    hold_off(&proxy, &mut [&mut ann]);
    ann.say("one");
    ann.eval("history.replaceState(null, '', '?room=Rust')");
    ann.reload();
    wait_shown(&mut ann, "one");
    assert_eq!(ann.eval(room), "?room=rust rust · parlour rust rust");
    hold_off(&proxy, &mut [&mut ann]);
    ann.say("two");
    ann.click("#leave");
    ann.eval("document.getElementById('room').value = 'RUST'");
    ann.join("Ann");
    wait_shown(&mut ann, "two");
    assert_eq!(shown(&mut ann), json!(["one", "two"]));
    assert_eq!(ann.eval(room), "?room=rust rust · parlour rust rust");
    let received: Vec<Value> = (0..3).map(|_| witness.next()["content"].clone()).collect();
    assert_eq!(json!(received), json!(["Ann joined", "one", "two"]), "nobody joins or leaves");
}

#[test]
fn what_is_lost_for_good_is_shown() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&["--history", "3", "--leave-grace", "1s"]);
    let proxy = Proxy::start(server.address);
    let mut witness = Client::join_room(&server, "Wit", "r");
    let mut ann = window(&mut browser, proxy.address, "Ann");
    witness.say("0");
    wait_shown(&mut ann, "0");
    hold_off(&proxy, &mut [&mut ann]);
    for number in 1..=5 {
        witness.say(&number.to_string());
    }
    witness.next_where(|message| message["content"] == "5");
    proxy.cut_all();
    wait_shown(&mut ann, "5");
    assert_eq!(shown(&mut ann), json!(["0", "3", "4", "5"]));
    ann.wait_text("#log .divider", "messages are missing here");
    assert_eq!(ann.eval("document.querySelectorAll('#log .divider').length"), 1);

    // A private message to a member who does not return is taken back, and its sender is notified.
    drop(witness);
    ann.say("/msg Wit are you there?");
    wait_shown(&mut ann, "are you there?");
    ann.wait_text("#unconfirmed .failed .status", "Wit left before this could be delivered");
    ann.wait("document.querySelectorAll('#log .private').length === 0");
}

#[test]
fn two_tabs_of_one_session_do_not_fight() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&GRACE);
    let mut witness = Client::join_room(&server, "Wit", "r");
    let mut first = window(&mut browser, server.address, "Ann");
    let mut second = browser.duplicate(&mut first);
    wait_connected(&mut second);
    first.wait_text("#connection", "open in another tab");
    // Only a click takes the session back.
    first.eval(
        "dispatchEvent(new Event('online')); \
         document.dispatchEvent(new Event('visibilitychange')); reconnection.attempts",
    );
    first.say("waits");
    witness.say("one");
    wait_shown(&mut second, "one");
    assert_eq!(first.eval("[connection.socket, conversation.unconfirmed.size]"), json!([null, 1]));
    assert_eq!(shown(&mut first), json!([]));

    first.click("#reconnect");
    wait_connected(&mut first);
    second.wait_text("#connection", "open in another tab");
    wait_shown(&mut first, "waits");
    assert_eq!(shown(&mut first), json!(["one", "waits"]));
    let received: Vec<Value> = (0..3).map(|_| witness.next()["content"].clone()).collect();
    assert_eq!(json!(received), json!(["Ann joined", "one", "waits"]), "the room does not notice");
    assert_eq!(second.eval("connection.socket"), Value::Null);
}

#[test]
fn a_name_held_by_a_lost_attempt_is_waited_for() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&["--leave-grace", "1s"]);
    let proxy = Proxy::start(server.address);
    let mut witness = Client::join_room(&server, "Wit", "r");
    let mut ann = browser.open(&format!("http://{}/?room=r", proxy.address));
    // The welcome is lost, and the session with it.
    proxy.plan([Plan::down(200, Fault::Reset)]);
    ann.join("Ann");
    wait_connected(&mut ann);
    assert_eq!(ann.eval("document.getElementById('door').hidden"), true);
    let received: Vec<Value> = (0..3).map(|_| witness.next()["content"].clone()).collect();
    assert_eq!(json!(received), json!(["Ann joined", "Ann left", "Ann joined"]));
}

/// Pictures of each state, for people to look at: `PARLOUR_SCREENSHOTS=folder make test`.
#[test]
fn screenshots() {
    if std::env::var_os("PARLOUR_SCREENSHOTS").is_none() {
        return;
    }
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&["--history", "2", "--leave-grace", "1s"]);
    let proxy = Proxy::start(server.address);
    let mut witness = Client::join_room(&server, "Grace", "r");
    let mut ann = window(&mut browser, proxy.address, "Ann");
    witness.say("Good morning! We begin at ten.");
    wait_shown(&mut ann, "Good morning! We begin at ten.");
    hold_off(&proxy, &mut [&mut ann]);
    for content in ["First things first.", "The hub owns all state.", "And it never waits."] {
        witness.say(content);
    }
    witness.next_where(|message| message["content"] == "And it never waits.");
    proxy.cut_all();
    wait_shown(&mut ann, "And it never waits.");
    drop(witness);
    ann.say("/msg Grace are you there?");
    ann.wait_text("#unconfirmed .failed .status", "Grace left");
    let mut other = browser.duplicate(&mut ann);
    wait_connected(&mut other);
    ann.wait_text("#connection", "open in another tab");
    ann.say("This waits until the conversation goes on here.");
    for (scheme, width, height) in [("light", 1280, 800), ("dark", 360, 640), ("light", 360, 640)] {
        ann.prefer(scheme, "en-US");
        ann.resize(width, height);
        ann.wait(&format!("innerWidth === {width}"));
        ann.screenshot(&format!("returning-{scheme}-{width}.png"));
    }
    drop(server);
    other.wait_text("#connection", "Connection lost");
    other.resize(360, 640);
    other.screenshot("lost-360.png");
}
