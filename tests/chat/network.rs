//! Networks that fail: the server and its clients each in a network of their own, with cables in
//! between that can be cut or lose packets.

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
use crate::support::raw::{CLOSE, FIN, PING, PONG, RawClient, TEXT, masked, text};
use crate::support::{DEADLINE, assert_has, eventually};

/// How long each frame takes over a lossy cable, and that one in so many does not arrive.
const LOSSY_DELAY: Duration = Duration::from_millis(100);
const LOSSY_ONE_IN: usize = 5;
/// The most that the kernel hands over at once before it cuts it into packets, with headers.
const FRAME_BYTES_MAX: usize = 66 * 1024;
/// Length of the header that the kernel puts before each frame (`virtio_net_hdr`).
const KERNEL_HEADER_BYTES: usize = 10;
/// Where a frame names its protocol.
const PROTOCOL_AT: usize = KERNEL_HEADER_BYTES + 12;
/// How long a client waits. A packet that is lost several times in a row is sent again ever later.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts a server in a network of its own, without a cable. The network ends with the server.
fn server(options: &[&str]) -> Program {
    let parlour = command(&[&["--listen=0.0.0.0:0"], options].concat());
    let mut unshare = Command::new("unshare");
    unshare.arg("--net").arg(parlour.get_program()).args(parlour.get_args());
    Program::start(unshare.env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::piped()))
}

/// A cable from this process's network to the server's.
struct Cable {
    near: String,
    /// The server's address at the other end.
    server: SocketAddr,
}

impl Cable {
    fn new(program: &Program, number: u8) -> Cable {
        let (near, far) = (format!("near{number}"), format!("far{number}"));
        ip(&format!("link add {near} type veth peer name {far} netns {}", program.id()));
        Cable::connect(program, number, near, &far)
    }

    /// Gives both ends their addresses, in a subnet of this cable's own.
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

/// A client with a thread that reads all the time, and replies to pings.
struct ReadingClient {
    stream: TcpStream,
    received: Receiver<Value>,
}

impl ReadingClient {
    fn connect(cable: &Cable, query: &str) -> ReadingClient {
        let mut client = RawClient::connect_to(cable.server, query);
        let stream = client.stream.try_clone().unwrap();
        let mut replies = client.stream.try_clone().unwrap();
        client.stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        let (sender, received) = channel();
        thread::spawn(move || {
            while let Some((first, payload)) = client.frame() {
                let message = match (first & !FIN, &*payload) {
                    (TEXT, text) => serde_json::from_slice(text).expect("JSON"),
                    (CLOSE, &[high, low, ..]) => {
                        json!({"type": "close", "code": u16::from_be_bytes([high, low])})
                    }
                    (PING, ping) => {
                        let _ = replies.write_all(&masked(FIN | PONG, ping));
                        continue;
                    }
                    other => panic!("{other:?}"),
                };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        ReadingClient { stream, received }
    }

    fn join(cable: &Cable, name: &str) -> ReadingClient {
        let client = ReadingClient::connect(cable, &format!("name={name}"));
        while client.next()["type"] != "join" {}
        client
    }

    fn next(&self) -> Value {
        self.received.recv_timeout(READ_TIMEOUT).expect("a message before the deadline")
    }

    fn send(&mut self, message: Value) {
        self.stream.write_all(&text(&message)).expect("the socket takes it");
    }

    fn say(&mut self, content: &str) {
        self.send(json!({"type": "public", "content": content}));
    }

    /// Receives the next message, which must have the fields of `expected`.
    #[track_caller]
    fn receive(&self, expected: Value) -> Value {
        let message = self.next();
        assert_has(&message, expected);
        message
    }
}

impl Drop for ReadingClient {
    fn drop(&mut self) {
        // Ends the thread.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Options of a server that soon notices a cut cable.
const IMPATIENT: [&str; 2] = ["--ping-interval=200ms", "--ping-timeout=2s"];

#[test]
fn a_cut_cable_ends_its_client_alone_with_4408_and_its_name_becomes_free() {
    in_own_network(|| {
        // Without a limit on messages, the conversation would fill the queue of the client
        // that is cut off.
        let program = server(&[&IMPATIENT[..], &["--leave-grace=0", "--message-rate=50"]].concat());
        let (cut, whole) = (Cable::new(&program, 0), Cable::new(&program, 1));
        let _ann = ReadingClient::join(&cut, "ann");
        let mut bob = ReadingClient::join(&whole, "bob");
        let cid = ReadingClient::join(&whole, "cid");
        bob.receive(json!({"type": "join", "user": "cid"}));
        cut.cut();
        let start = Instant::now();
        // True for Bob, and for Cid, once Ann's leave was received.
        let (mut left, mut seq) = ([false; 2], 0);
        while left != [true; 2] {
            assert!(start.elapsed() < DEADLINE, "{}", program.logged());
            seq += 1;
            bob.say(&seq.to_string());
            for (client, left) in [&bob, &cid].into_iter().zip(&mut left) {
                let mut message = client.next();
                // Bob is notified once that the rate paces him.
                if message["code"] == "slowed_down" {
                    message = client.next();
                }
                if message["type"] == "leave" && !*left {
                    assert_has(&message, json!({"user": "ann"}));
                    *left = true;
                    message = client.next();
                }
                assert_has(
                    &message,
                    json!({"type": "public", "content": seq.to_string(), "seq": seq}),
                );
            }
        }
        ReadingClient::connect(&whole, "name=ann")
            .receive(json!({"type": "welcome", "user": "ann"}));
        let log = eventually("the end in the log", || {
            let is_there = |log: &String| {
                log.contains("from 192.0.2.2:") && log.contains("gone: 4408 ping_timeout")
            };
            Some(program.logged()).filter(is_there)
        });
        assert_eq!(log.matches("gone: 4408").count(), 1, "{log}");
    });
}

#[test]
fn a_member_comes_back_over_a_mended_cable_and_nobody_notices() {
    in_own_network(|| {
        let program = server(&[&IMPATIENT[..], &["--leave-grace=1h", "--message-rate=0"]].concat());
        let (cut, whole) = (Cable::new(&program, 0), Cable::new(&program, 1));
        let ann = ReadingClient::connect(&cut, "name=ann");
        let welcome = ann.receive(json!({"type": "welcome"}));
        ann.receive(json!({"type": "join", "user": "ann"}));
        let mut bob = ReadingClient::join(&whole, "bob");
        ann.receive(json!({"type": "join", "user": "bob"}));
        bob.say("before");
        for member in [&ann, &bob] {
            member.receive(json!({"content": "before", "seq": 1}));
        }
        cut.cut();
        eventually("the end of the connection", || {
            program.logged().contains("gone: 4408 ping_timeout").then_some(())
        });
        for content in ["missed", "missed too"] {
            bob.say(content);
            bob.receive(json!({"type": "public", "content": content}));
        }
        bob.send(json!({"type": "private", "to": "ann", "content": "kept"}));
        bob.receive(json!({"type": "private", "content": "kept"}));
        cut.mend();
        // The old connection now receives why it ended.
        ann.receive(json!({"type": "close", "code": 4408}));

        let field = |name: &str| welcome[name].as_str().expect("text").to_owned();
        let query =
            format!("name=ann&session={}&epoch={}&since=1", field("session"), field("epoch"));
        let mut ann = ReadingClient::connect(&cut, &query);
        ann.receive(json!({"type": "welcome", "user": "ann", "recovered": true, "history": 2}));
        ann.receive(json!({"type": "public", "content": "missed", "seq": 2}));
        ann.receive(json!({"type": "public", "content": "missed too", "seq": 3}));
        ann.receive(json!({"type": "private", "user": "bob", "content": "kept"}));
        ann.say("back");
        bob.receive(json!({"type": "public", "user": "ann", "content": "back", "seq": 4}));
    });
}

#[test]
fn a_cable_that_is_soon_mended_loses_nothing() {
    in_own_network(|| {
        let program = server(&["--message-rate=0"]);
        let (cut, whole) = (Cable::new(&program, 0), Cable::new(&program, 1));
        let mut ann = ReadingClient::join(&cut, "ann");
        let mut bob = ReadingClient::join(&whole, "bob");
        ann.receive(json!({"type": "join", "user": "bob"}));
        cut.cut();
        for number in 0..5 {
            bob.say(&number.to_string());
            bob.receive(json!({"content": number.to_string()}));
        }
        ann.say("while cut off");
        cut.mend();
        for number in 0..5 {
            ann.receive(json!({"user": "bob", "content": number.to_string()}));
        }
        for member in [&ann, &bob] {
            member.receive(json!({"user": "ann", "content": "while cut off", "seq": 6}));
        }
    });
}

/// A cable in two pieces, with this process in between, which delays every frame and loses some.
/// `tc netem` would do it too, but many kernels are built without it.
struct LossyCable {
    cable: Cable,
    /// How many frames did not arrive.
    lost: Arc<AtomicUsize>,
}

impl LossyCable {
    fn new(program: &Program) -> LossyCable {
        ip("link add near type veth peer name inner");
        ip(&format!("link add outer type veth peer name far netns {}", program.id()));
        for piece in ["inner", "outer"] {
            // Here, the kernel itself must not reply to anything.
            ip(&format!("link set {piece} arp off up"));
        }
        let [inner, outer] = ["inner", "outer"].map(|piece| Arc::new(tap(piece)));
        let cable = Cable::connect(program, 0, "near".to_owned(), "far");
        let lost = Arc::new(AtomicUsize::new(0));
        forward(inner.clone(), outer.clone(), Random(1), lost.clone());
        forward(outer, inner, Random(2), lost.clone());
        LossyCable { cable, lost }
    }
}

/// Opens a socket for the whole frames of an interface. Before each frame, the kernel puts a header
/// with what it left undone: veth leaves the checksum and the cutting to a device, and there is
/// none.
fn tap(interface: &str) -> Socket {
    let all = (libc::ETH_P_ALL as u16).to_be();
    let socket =
        Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(all)))).expect("root");
    let name = CString::new(interface).expect("a name");
    let enabled: libc::c_int = 1;
    // SAFETY: a number with its size, and a C string.
    let index = unsafe {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        let set = libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw const enabled).cast(),
            size,
        );
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        libc::if_nametoindex(name.as_ptr())
    };
    // SAFETY: the storage is zeroed and larger than this address, whose size is given.
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

/// Forwards frames after a delay, and loses some. Only IP packets get lost, so that the ends always
/// find each other's addresses.
fn forward(from: Arc<Socket>, to: Arc<Socket>, mut random: Random, lost: Arc<AtomicUsize>) {
    let (delay, delayed) = channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (due, frame) in delayed {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            to.send(&frame).expect("the other piece takes the frame");
        }
    });
    thread::spawn(move || {
        let mut frame = vec![0; FRAME_BYTES_MAX];
        loop {
            let length = (&*from).read(&mut frame).expect("a frame");
            let is_ip = frame[PROTOCOL_AT..].starts_with(&(libc::ETH_P_IP as u16).to_be_bytes());
            if is_ip && random.below(LOSSY_ONE_IN) == 0 {
                lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let due = Instant::now() + LOSSY_DELAY;
            if delay.send((due, frame[..length].to_vec())).is_err() {
                return;
            }
        }
    });
}

#[test]
fn everything_arrives_in_order_over_a_lossy_cable() {
    in_own_network(|| {
        let program = server(&["--message-rate=0", "--handshake-timeout=1h"]);
        let whole = Cable::new(&program, 1);
        let mut clients = vec![ReadingClient::join(&whole, "m0")];
        let lossy = LossyCable::new(&program);
        for number in 1..3 {
            clients.push(ReadingClient::join(&lossy.cable, &format!("m{number}")));
            for client in &clients[..number] {
                client.receive(json!({"type": "join", "user": format!("m{number}")}));
            }
        }
        for round in 0..3 {
            for (number, client) in clients.iter_mut().enumerate() {
                client.say(&format!("{round} of m{number}"));
                let to = format!("m{}", (number + 1) % 3);
                let content = format!("{round} after that");
                client.send(json!({"type": "private", "to": to, "content": content}));
            }
            for (number, client) in clients.iter().enumerate() {
                receive_round(client, number, round);
            }
        }
        assert_ne!(lossy.lost.load(Ordering::Relaxed), 0, "the cable loses nothing");
    });
}

/// Receives what the three members send in one round, as member `number`: a public message of each
/// and, after their senders' public ones, the private messages to and of this member.
fn receive_round(client: &ReadingClient, number: usize, round: usize) {
    let mut public = Vec::new();
    let mut private = Vec::new();
    while public.len() < 3 || private.len() < 2 {
        let message = client.next();
        let user = message["user"].as_str().unwrap().to_owned();
        if message["type"] == "private" {
            assert_eq!(message["content"], format!("{round} after that"));
            assert!(public.contains(&user), "m{number}: a private message of {user} overtakes");
            private.push(user);
        } else {
            assert_eq!(message["content"], format!("{round} of {user}"));
            public.push(user);
            assert_eq!(message["seq"], 3 * round + public.len());
        }
    }
    private.sort();
    let mut expected = [format!("m{number}"), format!("m{}", (number + 2) % 3)];
    expected.sort();
    assert_eq!(private, expected);
}
