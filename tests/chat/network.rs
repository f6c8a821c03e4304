//! Lines that break, and lines that lose: the server and its clients each in a network of their
//! own, and cables between.

use std::ffi::CString;
use std::io::{Read, Write};
use std::mem::size_of;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::support::namespace::{in_own_network, ip, ip_of};
use crate::support::program::{Program, command};
use crate::support::random::Random;
use crate::support::raw::{CLOSE, FIN, PING, PONG, RawClient, TEXT, masked};
use crate::support::{DEADLINE, assert_has, eventually};

/// How long a frame takes over a bad line, and that each fifth does not arrive.
const BAD_LINE_DELAY: Duration = Duration::from_millis(100);
const BAD_LINE_LOSES_ONE_IN: usize = 5;
/// What the kernel hands over at once before it cuts it into packets, with headers.
const FRAME_BYTES_MAX: usize = 66 * 1024;
/// Where the kernel's notes end that stand before each frame, and where the frame names its
/// protocol.
const NOTES_BYTES: usize = 10;
const PROTOCOL_AT: usize = NOTES_BYTES + 12;
/// A segment that is lost several times in a row is sent again ever later.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server in a network of its own, to which nothing leads so far. It ends with the server.
fn server(options: &[&str]) -> Program {
    let parlour = command(&[&["--listen=0.0.0.0:0"], options].concat());
    let mut unshare = Command::new("unshare");
    unshare.arg("--net").arg(parlour.get_program()).args(parlour.get_args());
    Program::start(unshare.env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::piped()))
}

/// A cable from this process's network to the server's.
struct Cable {
    near: String,
    /// Where the server is at the other end.
    server: SocketAddr,
}

impl Cable {
    fn new(program: &Program, number: u8) -> Cable {
        let (near, far) = (format!("near{number}"), format!("far{number}"));
        ip(&format!("link add {near} type veth peer name {far} netns {}", program.id()));
        Cable::connect(program, number, near, &far)
    }

    /// Gives both ends their addresses, each cable's in a network of its own.
    fn connect(program: &Program, number: u8, near: String, far: &str) -> Cable {
        let server = Ipv4Addr::new(192, 0, 2, 4 * number + 1);
        ip(&format!("address add 192.0.2.{}/30 dev {near}", 4 * number + 2));
        ip(&format!("link set {near} up"));
        ip_of(program.id(), &format!("address add {server}/30 dev {far}"));
        ip_of(program.id(), &format!("link set {far} up"));
        Cable { near, server: SocketAddr::new(server.into(), program.address.port()) }
    }

    fn cut(&self) {
        ip(&format!("link set {} down", self.near));
    }

    fn mend(&self) {
        ip(&format!("link set {} up", self.near));
    }
}

/// A client that is always read, by a thread of its own, which also answers pings.
struct Member {
    stream: TcpStream,
    heard: Receiver<Value>,
}

impl Member {
    fn connect(cable: &Cable, query: &str) -> Member {
        let mut client = RawClient::connect_to(cable.server, query);
        let stream = client.stream.try_clone().unwrap();
        let mut answers = client.stream.try_clone().unwrap();
        client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (tell, heard) = channel();
        thread::spawn(move || {
            while let Some((first, payload)) = client.frame() {
                let message = match (first & !FIN, &*payload) {
                    (TEXT, text) => serde_json::from_slice(text).expect("JSON"),
                    (CLOSE, &[high, low, ..]) => {
                        json!({"type": "close", "code": u16::from_be_bytes([high, low])})
                    }
                    (PING, ping) => {
                        let _ = answers.write_all(&masked(FIN | PONG, ping));
                        continue;
                    }
                    other => panic!("{other:?}"),
                };
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        Member { stream, heard }
    }

    fn join(cable: &Cable, name: &str) -> Member {
        let member = Member::connect(cable, &format!("name={name}"));
        while member.next()["type"] != "join" {}
        member
    }

    fn next(&self) -> Value {
        self.heard.recv_timeout(PATIENCE).expect("a message before the deadline")
    }

    fn send(&mut self, message: Value) {
        self.stream
            .write_all(&masked(FIN | TEXT, message.to_string().as_bytes()))
            .expect("the socket takes it");
    }

    fn say(&mut self, content: &str) {
        self.send(json!({"type": "public", "content": content}));
    }

    #[track_caller]
    fn hears(&self, expected: Value) -> Value {
        let message = self.next();
        assert_has(&message, expected);
        message
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Its thread sees the end.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

const IMPATIENT: [&str; 2] = ["--ping-interval=200ms", "--ping-timeout=2s"];

#[test]
fn a_cut_line_ends_its_client_alone_with_4408_and_its_name_comes_free() {
    in_own_network(
        "chat::network::a_cut_line_ends_its_client_alone_with_4408_and_its_name_comes_free",
        || {
            // The rate paces the conversation, or it would fill the queue of the one who is cut
            // off.
            let program =
                server(&[&IMPATIENT[..], &["--leave-grace=0", "--message-rate=50"]].concat());
            let (cut, whole) = (Cable::new(&program, 0), Cable::new(&program, 1));
            let _ann = Member::join(&cut, "ann");
            let mut bob = Member::join(&whole, "bob");
            let cid = Member::join(&whole, "cid");
            bob.hears(json!({"type": "join", "user": "cid"}));
            cut.cut();
            let start = Instant::now();
            let (mut gone, mut said) = ([false; 2], 0);
            while gone != [true; 2] {
                assert!(start.elapsed() < DEADLINE, "{}", program.logged());
                said += 1;
                bob.say(&said.to_string());
                for (member, gone) in [&bob, &cid].into_iter().zip(&mut gone) {
                    let mut message = member.next();
                    // Bob is told once that the rate paces him.
                    if message["code"] == "slowed_down" {
                        message = member.next();
                    }
                    if message["type"] == "leave" && !*gone {
                        assert_has(&message, json!({"user": "ann"}));
                        *gone = true;
                        message = member.next();
                    }
                    assert_has(
                        &message,
                        json!({"type": "public", "content": said.to_string(), "seq": said}),
                    );
                }
            }
            Member::connect(&whole, "name=ann").hears(json!({"type": "welcome", "user": "ann"}));
            let told = eventually("the end in the log", || {
                let log = program.logged();
                log.contains("from 192.0.2.2:")
                    .then_some(log)
                    .filter(|log| log.contains("gone: 4408 ping_timeout"))
            });
            assert_eq!(told.matches("gone: 4408").count(), 1, "{told}");
        },
    );
}

#[test]
fn a_member_comes_back_over_a_mended_line_and_the_others_notice_nothing() {
    in_own_network(
        "chat::network::a_member_comes_back_over_a_mended_line_and_the_others_notice_nothing",
        || {
            let program =
                server(&[&IMPATIENT[..], &["--leave-grace=1h", "--message-rate=0"]].concat());
            let (cut, whole) = (Cable::new(&program, 0), Cable::new(&program, 1));
            let ann = Member::connect(&cut, "name=ann");
            let welcome = ann.hears(json!({"type": "welcome"}));
            ann.hears(json!({"type": "join", "user": "ann"}));
            let mut bob = Member::join(&whole, "bob");
            ann.hears(json!({"type": "join", "user": "bob"}));
            bob.say("before");
            for member in [&ann, &bob] {
                member.hears(json!({"content": "before", "seq": 1}));
            }
            cut.cut();
            eventually("the end of the cut line", || {
                program.logged().contains("gone: 4408 ping_timeout").then_some(())
            });
            for content in ["missed", "missed too"] {
                bob.say(content);
                bob.hears(json!({"type": "public", "content": content}));
            }
            bob.send(json!({"type": "private", "to": "ann", "content": "kept"}));
            bob.hears(json!({"type": "private", "content": "kept"}));
            cut.mend();
            // The old connection learns why it ended, as soon as the line lets it.
            ann.hears(json!({"type": "close", "code": 4408}));

            let said = |field: &str| welcome[field].as_str().expect("text").to_owned();
            let query =
                format!("name=ann&session={}&epoch={}&since=1", said("session"), said("epoch"));
            let mut ann = Member::connect(&cut, &query);
            ann.hears(json!({"type": "welcome", "user": "ann", "recovered": true, "history": 2}));
            ann.hears(json!({"type": "public", "content": "missed", "seq": 2}));
            ann.hears(json!({"type": "public", "content": "missed too", "seq": 3}));
            ann.hears(json!({"type": "private", "user": "bob", "content": "kept"}));
            ann.say("back");
            bob.hears(json!({"type": "public", "user": "ann", "content": "back", "seq": 4}));
        },
    );
}

#[test]
fn a_line_that_is_mended_before_it_is_missed_loses_nothing() {
    in_own_network(
        "chat::network::a_line_that_is_mended_before_it_is_missed_loses_nothing",
        || {
            let program = server(&["--message-rate=0"]);
            let (cut, whole) = (Cable::new(&program, 0), Cable::new(&program, 1));
            let mut ann = Member::join(&cut, "ann");
            let mut bob = Member::join(&whole, "bob");
            ann.hears(json!({"type": "join", "user": "bob"}));
            cut.cut();
            for number in 0..5 {
                bob.say(&number.to_string());
                bob.hears(json!({"content": number.to_string()}));
            }
            ann.say("from the dark");
            cut.mend();
            for number in 0..5 {
                ann.hears(json!({"user": "bob", "content": number.to_string()}));
            }
            for member in [&ann, &bob] {
                member.hears(json!({"user": "ann", "content": "from the dark", "seq": 6}));
            }
        },
    );
}

/// A cable in two pieces, with this process between them, which delays every frame and loses some.
/// `tc netem` would do it too, but many kernels are built without.
struct BadLine {
    cable: Cable,
    /// Frames that did not arrive.
    lost: Arc<AtomicUsize>,
}

impl BadLine {
    fn new(program: &Program) -> BadLine {
        ip("link add near type veth peer name inner");
        ip(&format!("link add outer type veth peer name far netns {}", program.id()));
        for piece in ["inner", "outer"] {
            // The kernel itself is to answer nothing there.
            ip(&format!("link set {piece} arp off up"));
        }
        let [inner, outer] = ["inner", "outer"].map(|piece| Arc::new(tap(piece)));
        let cable = Cable::connect(program, 0, "near".to_owned(), "far");
        let lost = Arc::new(AtomicUsize::new(0));
        hand_on(inner.clone(), outer.clone(), Random(1), lost.clone());
        hand_on(outer, inner, Random(2), lost.clone());
        BadLine { cable, lost }
    }
}

/// A socket for whole frames of an interface, before each the kernel's notes of what it has left
/// undone: veth leaves the checksum and the cutting to a device that is never met.
fn tap(interface: &str) -> Socket {
    let all = (libc::ETH_P_ALL as u16).to_be();
    let socket =
        Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(all)))).expect("root");
    let name = CString::new(interface).expect("a name");
    let notes: libc::c_int = 1;
    // SAFETY: a C string, and a number of the size that is told.
    let index = unsafe {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        let set = libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw const notes).cast(),
            size,
        );
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        libc::if_nametoindex(name.as_ptr())
    };
    // SAFETY: the storage is zeroed and larger than this address, whose size is told.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, size| {
            let address = &mut *storage.cast::<libc::sockaddr_ll>();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = all;
            address.sll_ifindex = index as i32;
            *size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }
    .expect("an address");
    socket.bind(&address).expect("an interface");
    socket
}

/// Hands on what comes, late, and some of it never. Of the addresses of the line's ends nothing is
/// lost.
fn hand_on(from: Arc<Socket>, to: Arc<Socket>, mut random: Random, lost: Arc<AtomicUsize>) {
    let (tell, late) = channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (due, frame) in late {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            to.send(&frame).expect("the other piece takes it");
        }
    });
    thread::spawn(move || {
        let mut frame = vec![0; FRAME_BYTES_MAX];
        loop {
            let length = (&*from).read(&mut frame).expect("a frame");
            let is_ip = frame[PROTOCOL_AT..].starts_with(&(libc::ETH_P_IP as u16).to_be_bytes());
            if is_ip && random.below(BAD_LINE_LOSES_ONE_IN) == 0 {
                lost.fetch_add(1, Ordering::Relaxed);
            } else if tell
                .send((Instant::now() + BAD_LINE_DELAY, frame[..length].to_vec()))
                .is_err()
            {
                return;
            }
        }
    });
}

#[test]
fn over_a_line_that_loses_and_delays_everything_arrives_in_order() {
    const ROUNDS: usize = 3;
    in_own_network(
        "chat::network::over_a_line_that_loses_and_delays_everything_arrives_in_order",
        || {
            let program = server(&["--message-rate=0", "--handshake-timeout=1h"]);
            let whole = Cable::new(&program, 1);
            let mut members = vec![Member::join(&whole, "m0")];
            let line = BadLine::new(&program);
            for number in 1..3 {
                members.push(Member::join(&line.cable, &format!("m{number}")));
                for member in &members[..number] {
                    member.hears(json!({"type": "join", "user": format!("m{number}")}));
                }
            }
            let mut seq = 0;
            for round in 0..ROUNDS {
                for (number, member) in members.iter_mut().enumerate() {
                    member.say(&format!("{round} of m{number}"));
                    let to = format!("m{}", (number + 1) % 3);
                    member.send(json!({"type": "private", "to": to, "content": format!("{round} after that")}));
                }
                for (number, member) in members.iter().enumerate() {
                    let mut public = Vec::new();
                    let mut private = Vec::new();
                    while public.len() < 3 || private.len() < 2 {
                        let message = member.next();
                        let (user, content) = (
                            message["user"].as_str().unwrap(),
                            message["content"].as_str().unwrap(),
                        );
                        if message["type"] == "private" {
                            assert_eq!(content, format!("{round} after that"));
                            assert!(
                                public.contains(&user.to_owned()),
                                "m{number}: a private message of {user} overtakes"
                            );
                            private.push(user.to_owned());
                        } else {
                            assert_eq!(content, format!("{round} of {user}"));
                            public.push(user.to_owned());
                            assert_eq!(message["seq"], seq + public.len());
                        }
                    }
                    private.sort();
                    let mut expected = [format!("m{number}"), format!("m{}", (number + 2) % 3)];
                    expected.sort();
                    assert_eq!(private, expected);
                }
                seq += 3;
            }
            assert_ne!(
                line.lost.load(Ordering::Relaxed),
                0,
                "the line is as bad as it is meant to be"
            );
        },
    );
}
