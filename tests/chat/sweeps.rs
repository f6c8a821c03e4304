//! Writers that help each other: nobody misses anything, whoever's socket is full and whoever
//! leaves meanwhile.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use parlour::chat::outbox;
use parlour::chat::write_half::SweepQueue;
use serde_json::{Value, json};

use crate::support::raw::{FIN, RawClient, TEXT, masked};
use crate::support::{Client, TestServer, eventually};

fn public(content: &str) -> Vec<u8> {
    masked(FIN | TEXT, json!({"type": "public", "content": content}).to_string().as_bytes())
}

/// Reads until `last` has been said; fails on a gap in `seq` or a message that comes twice. Counts
/// the public messages in `heard`, and returns the private ones.
fn listen(client: &mut RawClient, last: &str, heard: &AtomicU64) -> Vec<Value> {
    let mut seq = None;
    let mut private = Vec::new();
    loop {
        let (first, payload) = client.frame().expect("the connection is open");
        assert_eq!(first, FIN | TEXT, "{:?}", String::from_utf8_lossy(&payload));
        let message: Value = serde_json::from_slice(&payload).expect("JSON");
        match message["type"].as_str().expect("a type") {
            "public" => {
                let number = message["seq"].as_u64().expect("a number");
                assert!(seq.is_none_or(|before| number == before + 1), "{number} after {seq:?}");
                seq = Some(number);
                heard.fetch_add(1, Ordering::Relaxed);
                if message["content"] == last {
                    return private;
                }
            }
            "private" => private.push(message),
            _ => {}
        }
    }
}

#[test]
fn everyone_hears_everything_in_order_in_two_rooms_at_once() {
    const MEMBERS: usize = 60;
    const MESSAGES: usize = 400;
    let server = TestServer::start(&["--queue", "4096"]);
    thread::scope(|scope| {
        for room in ["one", "two"] {
            let join = |number| {
                let mut member =
                    RawClient::connect(&server, &format!("room={room}&name=m{number}"));
                // Before, it would miss the private messages to it.
                member.next_of("join");
                member
            };
            let mut members: Vec<RawClient> = (0..MEMBERS).map(join).collect();
            let mut talker = members[0].stream.try_clone().unwrap();
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    talker.write_all(&public(&number.to_string())).unwrap();
                    // Private ones in between, to everybody in turn.
                    let to = format!("m{}", number % MEMBERS);
                    let text =
                        json!({"type": "private", "to": to, "content": format!("after {number}")})
                            .to_string();
                    talker.write_all(&masked(FIN | TEXT, text.as_bytes())).unwrap();
                }
                talker.write_all(&public("end")).unwrap();
            });
            for (number, mut member) in members.drain(..).enumerate() {
                scope.spawn(move || {
                    let private = listen(&mut member, "end", &AtomicU64::new(0));
                    let expected = if number == 0 { MESSAGES } else { MESSAGES.div_ceil(MEMBERS) };
                    assert!(private.len() >= expected - 1, "{number} got {private:?}");
                    assert!(private.iter().all(|message| message["room"] == room));
                });
            }
        }
    });
}

#[test]
fn full_sockets_and_leavers_in_the_middle_of_sweeps_cost_the_others_nothing() {
    const HEALTHY: usize = 20;
    /// Messages that those who read may be behind, far fewer than would have one of them dropped.
    const BEHIND_MAX: u64 = 32;
    let server = TestServer::start(&["--queue", "64", "--write-timeout", "1s"]);
    let done = AtomicBool::new(false);
    let heard: Vec<AtomicU64> = (0..HEALTHY).map(|_| AtomicU64::new(0)).collect();
    let left = thread::scope(|scope| {
        let healthy: Vec<RawClient> = (0..HEALTHY)
            .map(|number| RawClient::connect(&server, &format!("name=h{number}")))
            .collect();
        // These never read. Their sockets fill up, then their queues.
        let _stalled: Vec<RawClient> =
            (0..10).map(|number| RawClient::connect(&server, &format!("name=s{number}"))).collect();
        // These come and go all the while, some without a word.
        for churner in 0..4 {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                for round in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let client = Client::join(server, &format!("c{churner}-{round}"));
                    if round % 2 == 0 {
                        client.close();
                    }
                }
            });
        }
        let mut talker = Client::join(&server, "talker");
        for (mut member, heard) in healthy.into_iter().zip(&heard) {
            scope.spawn(move || listen(&mut member, "end", heard));
        }
        let content = "x".repeat(4000);
        let mut left: HashMap<String, usize> = HashMap::new();
        // However this thread ends, the churners do too.
        let _done = SetOnDrop(&done);
        for said in 1.. {
            if left.keys().filter(|name| !name.starts_with('c')).count() == 10 {
                break;
            }
            talker.say(&content);
            loop {
                let message = talker.next();
                if message["type"] == "leave" {
                    *left
                        .entry(message["user"].as_str().expect("a name").to_owned())
                        .or_default() += 1;
                }
                if message["type"] == "public" {
                    break;
                }
            }
            eventually("those who read have read", || {
                heard
                    .iter()
                    .all(|heard| said - heard.load(Ordering::Relaxed) <= BEHIND_MAX)
                    .then_some(())
            });
        }
        talker.say("end");
        // Before it has been heard, it could be lost with the connection.
        talker.next_where(|message| message["content"] == "end");
        left
    });
    assert!(
        left.values().all(|&times| times == 1) && !left.keys().any(|name| name.starts_with('h')),
        "{left:?}"
    );
}

/// Sets a flag when it is dropped, by a panic too.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_sweep_that_nobody_takes_does_not_keep_another_room_waiting() {
    let sweeps = SweepQueue::new();
    // All writers of this room block on their own sockets.
    let stuck: Vec<_> = (0..2).map(|_| outbox::channel(1, u64::MAX, &sweeps)).collect();
    stuck.iter().for_each(|(_, _, mail)| mail.become_unavailable());
    sweeps.start(&stuck.iter().map(|(outbox, ..)| outbox.line()).collect(), 0);

    let (woken, wakes) = mpsc::channel();
    let other: Vec<_> = (0..2).map(|_| outbox::channel(1, u64::MAX, &sweeps)).collect();
    for (_, controls, _) in &other {
        let woken = woken.clone();
        let writer = thread::spawn(move || {
            thread::park_timeout(Duration::from_secs(60));
            woken.send(())
        });
        controls.set_writer(writer.thread().clone());
    }
    sweeps.start(&other.iter().map(|(outbox, ..)| outbox.line()).collect(), 0);
    wakes.recv_timeout(Duration::from_secs(10)).expect("a writer is woken");
}

#[test]
fn a_writer_that_its_own_client_needs_does_not_help_for_ever() {
    let sweeps = SweepQueue::new();
    let (_outbox, _controls, writer) = outbox::channel(1, u64::MAX, &sweeps);
    // So many that sweeps are asked for faster than one writer alone can see to them.
    let crowd: Vec<_> = (0..10_000).map(|_| outbox::channel(1, u64::MAX, &sweeps)).collect();
    let roster = crowd.iter().map(|(outbox, ..)| outbox.line()).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        (0..100).for_each(|_| sweeps.start(&roster, 0));
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                sweeps.start(&roster, 0);
            }
        });
        let (tell, told) = mpsc::channel();
        scope.spawn(move || {
            writer.become_unavailable();
            tell.send(())
        });
        let told = told.recv_timeout(Duration::from_secs(10));
        done.store(true, Ordering::Relaxed);
        told.expect("somebody else takes over");
    });
}
