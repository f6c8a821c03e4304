//! The chat page over lines that break, through reloads and restarts, and in two tabs at once.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::browser::{Browser, Page};
use crate::support::proxy::{Fault, Plan, Proxy};
use crate::support::{Client, TestServer};

/// Long enough for a page whose machine is busy.
const GRACE: [&str; 2] = ["--leave-grace", "60s"];

/// A window in room `r` of the chat at `address`.
fn window(browser: &mut Browser, address: SocketAddr, name: &str) -> Page {
    let mut page = browser.open(&format!("http://{address}/?room=r"));
    page.join(name);
    page.wait_text("#names", name);
    page
}

/// The public messages that a page shows.
fn shown(page: &mut Page) -> Value {
    page.eval("[...document.querySelectorAll('#log .message.public .body')].map(body => body.textContent)")
}

/// Comings and goings that a page shows, and what else it notes.
fn notices(page: &mut Page) -> Value {
    page.eval("[...document.querySelectorAll('#log .notice, #log .divider')].map(node => node.textContent)")
}

fn wait_shown(page: &mut Page, message: &str) {
    let message = json!(message);
    page.wait(&format!(
        "[...document.querySelectorAll('#log .message .body')].some(body => body.textContent === {message})"
    ));
}

fn wait_connected(page: &mut Page) {
    page.wait("line.open && document.getElementById('line').hidden");
}

/// Cuts the lines, and lets the pages wait for an answer that does not come.
fn hold_off(proxy: &Proxy, pages: &mut [&mut Page]) {
    proxy.plan(pages.iter().map(|_| Plan::up(0, Fault::Stall)));
    let before = proxy.faults();
    proxy.cut_all();
    for page in pages {
        page.wait("!line.open && line.socket !== null");
    }
    assert!(proxy.faults() > before);
}

#[test]
fn two_windows_talk_on_while_their_lines_break() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&GRACE);
    let proxy = Proxy::start(server.address);
    let mut witness = Client::join_room(&server, "Wit", "r");
    let mut ann = window(&mut browser, proxy.address, "Ann");
    let mut bob = window(&mut browser, proxy.address, "Bob");
    ann.wait_text("#log", "Bob\u{2069} joined");
    let before = (notices(&mut ann), notices(&mut bob));
    for round in 0..3 {
        // At once, in the middle of what they say; the next lines break inside the 101 head and inside the welcome.
        ann.say(&format!("Ann {round}"));
        proxy.plan([Plan::down(60, Fault::Reset), Plan::down(200, Fault::Cut)]);
        proxy.cut_all();
        bob.say(&format!("Bob {round}"));
        ann.say(&format!("Ann again {round}"));
        for page in [&mut ann, &mut bob] {
            // Whoever has to wait asks again at once, and so does a page whose line seems to be back.
            match round {
                0 => page.click("#retry-line"),
                1 => drop(page.eval("dispatchEvent(new Event('online'))")),
                _ => drop(page.eval("document.dispatchEvent(new Event('visibilitychange'))")),
            }
            wait_connected(page);
            page.wait("pending.size === 0");
        }
    }
    witness.say("end");
    let mut said = Vec::new();
    while said.last().is_none_or(|last| last != "end") {
        let message = witness.next();
        match &message["type"] {
            kind if kind == "public" => {
                said.push(message["content"].as_str().expect("a content").to_owned())
            }
            kind => assert!(kind == "join" && said.is_empty(), "no comings and goings: {message}"),
        }
    }
    assert_eq!(said.len(), 3 * 3 + 1, "each once: {said:?}");
    for page in [&mut ann, &mut bob] {
        wait_shown(page, "end");
        assert_eq!(shown(page), json!(said), "what was missed is in its place");
    }
    assert_eq!((notices(&mut ann), notices(&mut bob)), before);
    assert_eq!(ann.eval("room.members.size"), 3);
}

#[test]
fn a_restart_is_a_short_wait_and_a_line_across_the_conversation() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&GRACE);
    let address = server.address;
    let mut ann = window(&mut browser, address, "Ann");
    ann.say("before");
    wait_shown(&mut ann, "before");
    drop(server);
    ann.wait_text("#line", "The connection is lost");
    ann.wait_text("#retry-line", "Try now");
    let server = TestServer::start(&["--listen", &address.to_string()]);
    wait_connected(&mut ann);
    ann.say("after");
    wait_shown(&mut ann, "after");
    assert_eq!(shown(&mut ann), json!(["before", "after"]));
    let order = "[...document.querySelectorAll('#log .message.public, #log .divider')].map(node => node.classList[0])";
    assert_eq!(ann.eval(order), json!(["message", "divider", "message"]));
    ann.wait_text("#log .divider", "The room has started anew");
    drop(server);
}

#[test]
fn a_reload_takes_its_place_back_and_loses_no_message() {
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
    ann.wait("pending.size === 2");
    ann.reload();
    wait_shown(&mut ann, "two");
    wait_shown(&mut ann, "three");
    assert_eq!(shown(&mut ann), json!(["one", "two"]));
    assert_eq!(
        ann.eval("[pending.size, document.querySelectorAll('#pending li').length]"),
        json!([0, 0])
    );
    let heard: Vec<Value> = (0..4).map(|_| witness.next()["content"].clone()).collect();
    assert_eq!(json!(heard), json!(["Ann joined", "one", "two", "three"]), "no comings and goings");

    // Who leaves by the door has left.
    ann.click("#leave");
    assert_eq!(witness.next()["content"], "Ann left");
    ann.reload();
    ann.wait("!document.getElementById('door').hidden");
}

#[test]
fn what_is_beyond_recovery_is_told() {
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
    ann.wait_text("#log .divider", "older than the room’s history");
    assert_eq!(ann.eval("document.querySelectorAll('#log .divider').length"), 1);

    // Nor is a private message delivered to somebody who does not come back, and its sender is told.
    drop(witness);
    ann.say("/msg Wit are you there?");
    wait_shown(&mut ann, "are you there?");
    ann.wait_text("#pending .failed .status", "Wit has left before this could be delivered");
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
    first.wait_text("#line", "goes on in another tab");
    // Nothing but a click takes it back.
    first.eval(
        "dispatchEvent(new Event('online')); document.dispatchEvent(new Event('visibilitychange')); line.attempts",
    );
    first.say("waits");
    witness.say("one");
    wait_shown(&mut second, "one");
    assert_eq!(first.eval("[line.socket, pending.size]"), json!([null, 1]));
    assert_eq!(shown(&mut first), json!([]));

    first.click("#retry-line");
    wait_connected(&mut first);
    second.wait_text("#line", "goes on in another tab");
    wait_shown(&mut first, "waits");
    assert_eq!(shown(&mut first), json!(["one", "waits"]));
    let heard: Vec<Value> = (0..3).map(|_| witness.next()["content"].clone()).collect();
    assert_eq!(json!(heard), json!(["Ann joined", "one", "waits"]), "the room has not noticed");
    assert_eq!(second.eval("line.socket"), Value::Null);
}

#[test]
fn a_name_taken_by_oneself_is_waited_for() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&["--leave-grace", "1s"]);
    let proxy = Proxy::start(server.address);
    let mut witness = Client::join_room(&server, "Wit", "r");
    let mut ann = browser.open(&format!("http://{}/?room=r", proxy.address));
    // The server's welcome gets lost, and with it the session.
    proxy.plan([Plan::down(200, Fault::Reset)]);
    ann.join("Ann");
    wait_connected(&mut ann);
    assert_eq!(ann.eval("document.getElementById('door').hidden"), true);
    let heard: Vec<Value> = (0..3).map(|_| witness.next()["content"].clone()).collect();
    assert_eq!(json!(heard), json!(["Ann joined", "Ann left", "Ann joined"]));
}

/// The new states, for people to look at: `PARLOUR_SCREENSHOTS=folder make test`.
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
    for word in ["First things first.", "The hub owns all state.", "And it never waits."] {
        witness.say(word);
    }
    witness.next_where(|message| message["content"] == "And it never waits.");
    proxy.cut_all();
    wait_shown(&mut ann, "And it never waits.");
    drop(witness);
    ann.say("/msg Grace are you there?");
    ann.wait_text("#pending .failed .status", "Grace has left");
    let mut other = browser.duplicate(&mut ann);
    wait_connected(&mut other);
    ann.wait_text("#line", "goes on");
    ann.say("This waits until the conversation goes on here.");
    for (scheme, width, height) in [("light", 1280, 800), ("dark", 360, 640), ("light", 360, 640)] {
        ann.prefer(scheme, "en-US");
        ann.resize(width, height);
        ann.wait(&format!("innerWidth === {width}"));
        ann.screenshot(&format!("returning-{scheme}-{width}.png"));
    }
    drop(server);
    other.wait_text("#line", "The connection is lost");
    other.resize(360, 640);
    other.screenshot("lost-360.png");
}
