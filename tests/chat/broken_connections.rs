//! Connections that break, stall or are slow, at chosen bytes and at random: every client receives
//! each message once.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::TestServer;
use crate::support::proxy::{Fault, Plan, Proxy};
use crate::support::random::Random;
use crate::support::resumer::Resumer;

/// Rounds of random faults. More take longer: `PARLOUR_FAULT_ROUNDS=1000 cargo test broken`. When
/// set, the tests at chosen bytes try every byte.
const ROUNDS: &str = "PARLOUR_FAULT_ROUNDS";
const ROUNDS_DEFAULT: usize = 12;
/// The seed of the first round. A round that fails prints its own.
const SEED: &str = "PARLOUR_FAULT_SEED";
/// Distance between the chosen bytes: a prime, so that each part of a message has its turn.
const STRIDE_BYTES_DEFAULT: usize = 7;

/// Longer than any fault, so a member that leaves fails the test.
const GRACE: &str = "60s";
/// Roughly what the server sends, in bytes: the response head, the welcome, the messages.
const DOWN: [Range<usize>; 3] = [0..129, 129..345, 345..2000];
/// Roughly what a client sends, in bytes: the request head, the messages.
const UP: [Range<usize>; 2] = [0..250, 250..1000];

fn setting(name: &str) -> Option<usize> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn server() -> TestServer {
    TestServer::start(&["--leave-grace", GRACE, "--history", "100000"])
}

/// Sends one message after another, each over a connection that breaks at one of `bytes`. Returns
/// how many faults happened.
fn break_at(bytes: impl Iterator<Item = usize>, plan: impl Fn(usize) -> Plan) -> usize {
    let server = server();
    let proxy = Proxy::start(server.address);
    let mut ann = Resumer::new(proxy.address, "Ann", "r");
    ann.run_until(0, 0);
    let mut sent = Vec::new();
    for at in bytes {
        let content = format!("broken at {at}");
        proxy.plan([plan(at)]);
        ann.say(&content);
        sent.push(content);
        ann.run_until(sent.len(), 0);
    }
    assert_eq!(contents(&ann.received), sent);
    let mut bob = Resumer::new(server.address, "Bob", "r");
    bob.run_until(sent.len(), 0);
    assert_eq!(bob.received, ann.received);
    assert_eq!(ann.notices, ["Ann joined"], "she never left");
    proxy.faults()
}

fn contents(messages: &[Value]) -> Vec<String> {
    messages
        .iter()
        .map(|message| message["content"].as_str().expect("a content").to_owned())
        .collect()
}

fn stride() -> usize {
    if setting(ROUNDS).is_some() { 1 } else { STRIDE_BYTES_DEFAULT }
}

/// Asserts that there were about as many faults as bytes. The shorter conversations don't reach the
/// last bytes.
#[track_caller]
fn assert_most(faults: usize, bytes: usize) {
    assert!(faults > bytes * 2 / 3, "{faults} faults at {bytes} bytes");
}

/// Breaks connections at the first `bytes` bytes of one direction, without and with a reset.
fn break_below(bytes: usize, plan: impl Fn(usize, Fault) -> Plan) {
    let bytes = (0..bytes).step_by(stride());
    for fault in [Fault::Cut, Fault::Reset] {
        assert_most(break_at(bytes.clone(), |at| plan(at, fault)), bytes.len());
    }
}

#[test]
fn a_connection_may_break_at_any_byte_from_the_server() {
    break_below(450, Plan::down);
}

#[test]
fn a_connection_may_break_at_any_byte_to_the_server() {
    break_below(330, Plan::up);
}

#[test]
fn a_connection_that_stalls_is_replaced() {
    let bytes = [1, 60, 150, 250, 350];
    assert_most(break_at(bytes.into_iter(), |at| Plan::down(at, Fault::Stall)), bytes.len());
    let bytes = [1, 100, 200, 260, 290];
    assert_most(break_at(bytes.into_iter(), |at| Plan::up(at, Fault::Stall)), bytes.len());
}

#[test]
fn a_slow_connection_only_takes_longer() {
    let slow =
        |bytes: [usize; 5]| bytes.map(|at| (at, Fault::Delay(Duration::from_millis(5)))).to_vec();
    let plan = Plan { up: slow([10, 100, 200, 260, 290]), down: slow([10, 140, 250, 330, 400]) };
    let faults = break_at(0..3, |_| plan.clone());
    // At least those in the request. A client that times out never meets the later ones.
    assert!(faults >= 3 * 3, "{faults}");
}

#[test]
fn a_client_without_its_welcome_gets_its_name_back_after_the_grace() {
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
fn conversations_survive_random_faults() {
    let first = setting(SEED).unwrap_or(1) as u64;
    let rounds = setting(ROUNDS).unwrap_or(ROUNDS_DEFAULT) as u64;
    let server = server();
    let (mut connections, mut faults) = (0, 0);
    for seed in first..first + rounds {
        let _print = PrintSeed(seed);
        let round = converse(&server, seed);
        connections += round.0;
        faults += round.1;
    }
    println!("{rounds} rounds, {connections} connections, {faults} faults");
    assert!(faults as u64 > rounds, "connections without faults prove nothing");
}

/// Prints how to repeat a round that fails.
struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{SEED}={} {ROUNDS}=1 repeats this failure", self.0);
        }
    }
}

/// Lets three members talk over connections with faults, and a fourth watch over one without.
/// Returns how many connections and faults there were.
fn converse(server: &TestServer, seed: u64) -> (usize, usize) {
    let room = format!("round-{seed}");
    let names = ["Ann", "Bob", "Cas"];
    let mut random = Random(seed);
    let mut witness = Resumer::new(server.address, "Wit", &room).patient();
    witness.run_until(0, 0);

    let (mut public, mut to_witness) = (Vec::new(), Vec::new());
    let mut talkers = Vec::new();
    for name in names {
        let proxy = Proxy::start(server.address);
        let mut talker = Resumer::new(proxy.address, name, &room);
        // First without faults, so that it knows its session.
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
        proxy.plan((0..random.below(8)).map(|_| random_faults(&mut random)));
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
            let (proxy, talker) = talker.join().expect("the talker does not panic");
            assert_eq!(talker.received, witness.received, "the same for everyone");
            assert_eq!(talker.notices, [format!("{} joined", talker.name)]);
            let private = talker.private.iter().map(|(_, message)| message);
            assert_each_once_in_order(&names, &numbered(private));
            connections += talker.connections;
            faults += proxy.faults();
        }
    });
    // Anything else on its way would come before this.
    witness.say("end");
    witness.run_until(total + 1, private);
    witness.received.pop();
    assert_eq!(sorted(contents(&witness.received)), sorted(public), "each message once");
    let private: Vec<Value> = witness.private.iter().map(|(_, message)| message.clone()).collect();
    assert_eq!(sorted(contents(&private)), sorted(to_witness), "each private message once");
    assert_eq!(witness.notices, ["Wit joined"], "the others joined in its absence, and never left");

    // The messages of one sender keep their order, of both kinds together.
    assert_each_once_in_order(&names, &numbered(all_in_order(&witness).into_iter()));
    (connections + 1, faults)
}

/// Returns all that a member received, public and private messages in their order.
fn all_in_order(member: &Resumer) -> Vec<&Value> {
    let mut all = Vec::new();
    let mut private = member.private.iter().peekable();
    for (before, message) in member.received.iter().enumerate() {
        while let Some((_, message)) = private.next_if(|(after, _)| *after <= before) {
            all.push(message);
        }
        all.push(message);
    }
    all.extend(private.map(|(_, message)| message));
    all
}

/// Plans random faults for one connection.
fn random_faults(random: &mut Random) -> Plan {
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

/// Returns the sender and the number of each message.
fn numbered<'a>(messages: impl Iterator<Item = &'a Value>) -> Vec<(String, usize)> {
    let parse = |message: &Value| {
        let content = message["content"].as_str()?;
        let mut words = content.split(' ');
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    messages.map(|message| parse(message).expect("a message of this test")).collect()
}

fn assert_each_once_in_order(names: &[&str], messages: &[(String, usize)]) {
    for name in names {
        let numbers: Vec<usize> =
            messages.iter().filter(|(user, _)| user == name).map(|(_, number)| *number).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{name}: {numbers:?}");
    }
}
