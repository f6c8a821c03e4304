//! Lines that break, stall and are slow, at every byte and at random: nobody misses anything, and
//! nobody hears it twice.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::TestServer;
use crate::support::proxy::{Fault, Plan, Proxy};
use crate::support::random::Random;
use crate::support::resumer::Resumer;

/// Rounds at random; more take longer: `PARLOUR_LINES_ROUNDS=1000 cargo test lines`. Also makes the
/// tests at chosen bytes try every byte.
const ROUNDS: &str = "PARLOUR_LINES_ROUNDS";
const ROUNDS_USUAL: usize = 12;
/// The first round's seed; a round that fails says which it was.
const SEED: &str = "PARLOUR_LINES_SEED";
/// Bytes between the chosen ones, by default: a prime, so that each part of a message has its turn.
const STRIDE_BYTES_USUAL: usize = 7;

/// Somebody who is away for longer than this is a failure of its own.
const GRACE: &str = "60s";
/// About where the parts of what comes from the server begin: the 101 head, the welcome, the
/// messages; and their end.
const DOWN: [Range<usize>; 3] = [0..129, 129..345, 345..2000];
/// And of what goes to it: the request's head, the messages.
const UP: [Range<usize>; 2] = [0..250, 250..1000];

fn setting(name: &str) -> Option<usize> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn server() -> TestServer {
    TestServer::start(&["--leave-grace", GRACE, "--history", "100000"])
}

/// Says one message after another over lines that break at each of `bytes`.
fn break_at(bytes: impl Iterator<Item = usize>, plan: impl Fn(usize) -> Plan) -> usize {
    let server = server();
    let proxy = Proxy::start(server.address);
    let mut ann = Resumer::new(proxy.address, "Ann", "r");
    ann.run_until(0, 0);
    let mut said = Vec::new();
    for at in bytes {
        let content = format!("broken at {at}");
        proxy.plan([plan(at)]);
        ann.say(&content);
        said.push(content);
        ann.run_until(said.len(), 0);
    }
    assert_eq!(contents(&ann.heard), said);
    let mut bob = Resumer::new(server.address, "Bob", "r");
    bob.run_until(said.len(), 0);
    assert_eq!(bob.heard, ann.heard);
    assert_eq!(ann.notices, ["Ann joined"], "nobody has noticed");
    proxy.faults()
}

fn contents(messages: &[Value]) -> Vec<String> {
    messages
        .iter()
        .map(|message| message["content"].as_str().expect("a content").to_owned())
        .collect()
}

fn stride() -> usize {
    if setting(ROUNDS).is_some() { 1 } else { STRIDE_BYTES_USUAL }
}

/// As many faults as bytes, but for the last of the bytes, which the shorter conversations don't
/// reach.
#[track_caller]
fn assert_most(faults: usize, bytes: usize) {
    assert!(faults > bytes * 2 / 3, "{faults} faults at {bytes} bytes");
}

#[test]
fn what_comes_breaks_at_every_byte() {
    let bytes = (0..450).step_by(stride());
    for fault in [Fault::Cut, Fault::Reset] {
        let faults = break_at(bytes.clone(), |at| Plan::down(at, fault));
        assert_most(faults, bytes.len());
    }
}

#[test]
fn what_goes_breaks_at_every_byte() {
    let bytes = (0..330).step_by(stride());
    for fault in [Fault::Cut, Fault::Reset] {
        let faults = break_at(bytes.clone(), |at| Plan::up(at, fault));
        assert_most(faults, bytes.len());
    }
}

#[test]
fn a_line_that_falls_silent_is_given_up_and_replaced() {
    let bytes = [1, 60, 150, 250, 350];
    assert_most(break_at(bytes.into_iter(), |at| Plan::down(at, Fault::Stall)), bytes.len());
    let bytes = [1, 100, 200, 260, 290];
    assert_most(break_at(bytes.into_iter(), |at| Plan::up(at, Fault::Stall)), bytes.len());
}

#[test]
fn a_slow_line_only_takes_longer() {
    let slow =
        |bytes: [usize; 5]| bytes.map(|at| (at, Fault::Delay(Duration::from_millis(5)))).to_vec();
    let plan = Plan { up: slow([10, 100, 200, 260, 290]), down: slow([10, 140, 250, 330, 400]) };
    let faults = break_at(0..3, |_| plan.clone());
    // Those in the request at least: a client that loses patience is not there for the others.
    assert!(faults >= 3 * 3, "{faults}");
}

#[test]
fn who_never_got_its_session_gets_its_name_back_after_the_grace() {
    let server = TestServer::start(&["--leave-grace", "100ms"]);
    let proxy = Proxy::start(server.address);
    proxy.plan([Plan::down(200, Fault::Reset)]);
    let mut ann = Resumer::new(proxy.address, "Ann", "r");
    ann.say("here I am");
    ann.run_until(1, 0);
    assert_eq!(ann.notices, ["Ann joined"]);
    assert!(ann.wire.contains(&"-- refused: \"name_taken\"".to_owned()), "{:?}", ann.wire);
}

#[test]
fn conversations_survive_lines_that_break_at_random() {
    let first = setting(SEED).unwrap_or(1) as u64;
    let rounds = setting(ROUNDS).unwrap_or(ROUNDS_USUAL) as u64;
    let server = server();
    let (mut connections, mut faults) = (0, 0);
    for seed in first..first + rounds {
        let told = TellSeed(seed);
        let round = converse(&server, seed);
        connections += round.0;
        faults += round.1;
        drop(told);
    }
    println!("{rounds} rounds, {connections} connections, {faults} faults");
    assert!(faults as u64 > rounds, "lines that never break prove nothing");
}

/// Says how to run a round again that fails.
struct TellSeed(u64);

impl Drop for TellSeed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{SEED}={} {ROUNDS}=1 shows this failure again", self.0);
        }
    }
}

/// Three talk over lines that break, and a fourth, whose line is good, is witness. Returns
/// connections and faults.
fn converse(server: &TestServer, seed: u64) -> (usize, usize) {
    let room = format!("round-{seed}");
    let names = ["Ann", "Bob", "Cas"];
    let mut random = Random(seed);
    let mut witness = Resumer::new(server.address, "Wit", &room).on_a_good_line();
    witness.run_until(0, 0);

    let (mut public, mut to_witness) = (Vec::new(), Vec::new());
    let mut talkers = Vec::new();
    for name in names {
        let proxy = Proxy::start(server.address);
        let mut talker = Resumer::new(proxy.address, name, &room);
        // Once undisturbed, so that it knows its session.
        talker.run_until(0, 0);
        for number in 0..12 {
            let content = format!("{name} {number} {}", "é".repeat(random.below(120)));
            match random.below(6) {
                0 => {
                    talker.whisper("Wit", &content);
                    to_witness.push(content);
                }
                1 => talker.whisper(names[random.below(names.len())], &content),
                _ => {
                    talker.say(&content);
                    public.push(content);
                }
            }
        }
        proxy.plan((0..random.below(8)).map(|_| trouble(&mut random)));
        talkers.push((proxy, talker));
    }
    let (total, private) = (public.len(), to_witness.len());
    let (mut connections, mut faults) = (0, 0);
    thread::scope(|scope| {
        let talking: Vec<_> = talkers
            .into_iter()
            .map(|(proxy, mut talker)| {
                scope.spawn(move || {
                    talker.run_until(total, 0);
                    (proxy, talker)
                })
            })
            .collect();
        witness.run_until(total, private);
        for talker in talking {
            let (proxy, talker) = talker.join().expect("a talker that is content");
            assert_eq!(talker.heard, witness.heard, "everyone heard the same");
            assert_eq!(talker.notices, [format!("{} joined", talker.name)]);
            assert_each_once_in_order(
                &names,
                &numbered(talker.whispers.iter().map(|(_, message)| message)),
            );
            connections += talker.connections;
            faults += proxy.faults();
        }
    });
    // Had something more been on its way, it would come before this.
    witness.say("end");
    witness.run_until(total + 1, private);
    witness.heard.pop();
    assert_eq!(sorted(contents(&witness.heard)), sorted(public), "each message once");
    let whispers: Vec<Value> =
        witness.whispers.iter().map(|(_, message)| message.clone()).collect();
    assert_eq!(sorted(contents(&whispers)), sorted(to_witness), "each private message once");
    assert_eq!(
        witness.notices,
        ["Wit joined"],
        "the others came while it was away, and there was nothing more to tell"
    );

    // What one sender says keeps its order, public and private alike.
    let mut all: Vec<Value> = Vec::new();
    let mut whispers = witness.whispers.iter().peekable();
    for (before, message) in witness.heard.iter().enumerate() {
        while let Some((_, whisper)) = whispers.next_if(|(after, _)| *after <= before) {
            all.push(whisper.clone());
        }
        all.push(message.clone());
    }
    all.extend(whispers.map(|(_, whisper)| whisper.clone()));
    assert_each_once_in_order(&names, &numbered(all.iter()));
    (connections + 1, faults)
}

/// What befalls one connection.
fn trouble(random: &mut Random) -> Plan {
    let mut plan = Plan::default();
    let mut add = |faults: &mut Vec<(usize, Fault)>, parts: &[Range<usize>]| {
        let part = &parts[random.below(parts.len())];
        let at = part.start + random.below(part.len());
        let fault = match random.below(20) {
            0..9 => Fault::Cut,
            9..14 => Fault::Reset,
            14 => Fault::Stall,
            _ => Fault::Delay(Duration::from_millis(1 + random.below(20) as u64)),
        };
        faults.push((at, fault));
        faults.sort_by_key(|(at, _)| *at);
    };
    add(&mut plan.down, &DOWN);
    add(&mut plan.up, &UP);
    add(&mut plan.down, &DOWN);
    plan
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort_unstable();
    texts
}

/// Who said which of its messages.
fn numbered<'a>(messages: impl Iterator<Item = &'a Value>) -> Vec<(String, usize)> {
    let parse = |message: &Value| {
        let content = message["content"].as_str()?;
        let mut words = content.split(' ');
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    messages.map(|message| parse(message).expect("a message of this test")).collect()
}

fn assert_each_once_in_order(names: &[&str], said: &[(String, usize)]) {
    for name in names {
        let numbers: Vec<usize> =
            said.iter().filter(|(user, _)| user == name).map(|(_, number)| *number).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{name}: {numbers:?}");
    }
}
