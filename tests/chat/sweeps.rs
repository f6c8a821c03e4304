//! Writers that help each other: nobody misses anything, even if other sockets are full or other
//! members leave in the meantime.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use parlour::chat::outbox;
use parlour::chat::write_half::SweepQueue;
use serde_json::{Value, json};

use crate::support::raw::{FIN, RawClient, TEXT, public, text};
use crate::support::{Client, TestServer, eventually};

/// Reads up to a public message `last`. Fails on a gap in `seq` or a message that comes twice.
/// Counts public messages in `received`, and returns the private ones.
fn read_up_to(last: &str, client: &mut RawClient, received: &AtomicU64) -> Vec<Value> {
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
                received.fetch_add(1, Ordering::Relaxed);
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
fn all_members_of_two_rooms_receive_everything_in_order() {
    const MEMBERS: usize = 60;
    const MESSAGES: usize = 400;
    let server = TestServer::start(&["--queue", "4096"]);
    thread::scope(|scope| {
        for room in ["one", "two"] {
            let join = |number| {
                let mut member =
                    RawClient::connect(&server, &format!("room={room}&name=m{number}"));
                // Private messages before its join would be lost.
                member.next_of("join");
                member
            };
            let mut members: Vec<RawClient> = (0..MEMBERS).map(join).collect();
            let mut talker = members[0].stream.try_clone().unwrap();
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    talker.write_all(&public(&number.to_string())).unwrap();
                    // A private message after each, to one member after the other.
                    let to = format!("m{}", number % MEMBERS);
                    let content = format!("after {number}");
                    let private = json!({"type": "private", "to": to, "content": content});
                    talker.write_all(&text(&private)).unwrap();
                }
                talker.write_all(&public("end")).unwrap();
            });
            for (number, mut member) in members.drain(..).enumerate() {
                scope.spawn(move || {
                    let private = read_up_to("end", &mut member, &AtomicU64::new(0));
                    let expected = if number == 0 { MESSAGES } else { MESSAGES.div_ceil(MEMBERS) };
                    assert!(private.len() >= expected - 1, "m{number} received {private:?}");
                    assert!(private.iter().all(|message| message["room"] == room));
                });
            }
        }
    });
}

#[test]
fn full_sockets_and_leaving_members_cost_the_others_nothing() {
    const HEALTHY: usize = 20;
    /// How far behind the members that read may be: far less than would drop one of them.
    const BEHIND_MAX: u64 = 32;
    let server = TestServer::start(&["--queue", "64", "--write-timeout", "1s"]);
    let done = AtomicBool::new(false);
    let received: Vec<AtomicU64> = (0..HEALTHY).map(|_| AtomicU64::new(0)).collect();
    let left = thread::scope(|scope| {
        let healthy: Vec<RawClient> = (0..HEALTHY)
            .map(|number| RawClient::connect(&server, &format!("name=h{number}")))
            .collect();
        // These never read. First their sockets become full, then their queues.
        let _stalled: Vec<RawClient> =
            (0..10).map(|number| RawClient::connect(&server, &format!("name=s{number}"))).collect();
        // These join and leave all the time, half of them without a close frame.
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
        for (mut member, received) in healthy.into_iter().zip(&received) {
            scope.spawn(move || read_up_to("end", &mut member, received));
        }
        let content = "x".repeat(4000);
        let mut left: HashMap<String, usize> = HashMap::new();
        // Also ends the churners if this thread panics.
        let _done = SetOnDrop(&done);
        for sent in 1.. {
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
            let is_near =
                |received: &AtomicU64| sent - received.load(Ordering::Relaxed) <= BEHIND_MAX;
            eventually("reading by those that read", || received.iter().all(is_near).then_some(()));
        }
        talker.say("end");
        // Until this has come back, it could be lost with the connection.
        talker.next_where(|message| message["content"] == "end");
        left
    });
    assert!(
        left.values().all(|&times| times == 1) && !left.keys().any(|name| name.starts_with('h')),
        "{left:?}"
    );
}

/// Sets a flag when it is dropped, even by a panic.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_sweep_without_a_helper_does_not_delay_another_room() {
    let sweeps = SweepQueue::new();
    // All writers of this room are blocked by their own sockets.
    let stuck: Vec<_> = (0..2).map(|_| outbox::channel(1, u64::MAX, &sweeps)).collect();
    stuck.iter().for_each(|(_, _, writer_end)| writer_end.become_unavailable());
    sweeps.start(&stuck.iter().map(|(outbox, ..)| outbox.line()).collect(), 0);

    let (woken, wakes) = mpsc::channel();
    let other: Vec<_> = (0..2).map(|_| outbox::channel(1, u64::MAX, &sweeps)).collect();
    for (_, reader_end, _) in &other {
        let woken = woken.clone();
        let writer = thread::spawn(move || {
            thread::park_timeout(Duration::from_secs(60));
            woken.send(())
        });
        reader_end.set_writer(writer.thread().clone());
    }
    sweeps.start(&other.iter().map(|(outbox, ..)| outbox.line()).collect(), 0);
    wakes.recv_timeout(Duration::from_secs(10)).expect("a writer is woken");
}

#[test]
fn a_writer_that_its_own_client_needs_does_not_help_forever() {
    let sweeps = SweepQueue::new();
    let (_outbox, _reader_end, writer_end) = outbox::channel(1, u64::MAX, &sweeps);
    // So large a room that sweeps start faster than one writer alone can run them.
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
        let (sender, free) = mpsc::channel();
        scope.spawn(move || {
            writer_end.become_unavailable();
            sender.send(())
        });
        let free = free.recv_timeout(Duration::from_secs(10));
        done.store(true, Ordering::Relaxed);
        free.expect("another writer takes over");
    });
}
