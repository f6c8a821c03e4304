//! The notifications to systemd, on a socket in place of its own.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use parlour::chat::hub::Hub;
use parlour::chat::inbox::hub_replies;
use parlour::chat::write_half::SweepQueue;
use parlour::system::systemd;

use crate::support::program::{Program, command};
use crate::support::raw::RawClient;
use crate::support::{DEADLINE, config};

/// systemd's end of the socket.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Systemd {
    fn new(name: &str) -> Systemd {
        let path =
            std::env::temp_dir().join(format!("parlour-{name}-{}.notify", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a free path");
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Systemd { socket, path }
    }

    fn receive(&self) -> String {
        let mut datagram = [0; 256];
        let n = self.socket.recv(&mut datagram).expect("a notification before the deadline");
        String::from_utf8(datagram[..n].to_vec()).expect("text")
    }

    fn command(&self) -> Command {
        let mut command = command(&["--listen=127.0.0.1:0"]);
        command.env("NOTIFY_SOCKET", &self.path).env_remove("WATCHDOG_PID");
        command
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn systemd_is_notified_of_start_life_and_stop() {
    let systemd = Systemd::new("life");
    let program = Program::start(systemd.command().env("WATCHDOG_USEC", "20000"));
    assert_eq!(systemd.receive(), "READY=1\n");
    RawClient::connect_to(program.address, "name=Ann").next_of("join");
    for _ in 0..5 {
        assert_eq!(systemd.receive(), "WATCHDOG=1\n");
    }
    program.signal("TERM");
    let last = loop {
        let received = systemd.receive();
        if received != "WATCHDOG=1\n" {
            break received;
        }
    };
    assert_eq!(last, "STOPPING=1\n");
    assert!(program.ended().0.success());
}

#[test]
fn without_a_watchdog_systemd_is_notified_of_start_and_stop_only() {
    let systemd = Systemd::new("plain");
    for none in [None, Some("0")] {
        let mut command = systemd.command();
        match none {
            None => command.env_remove("WATCHDOG_USEC"),
            Some(zero) => command.env("WATCHDOG_USEC", zero),
        };
        let program = Program::start(&mut command);
        program.stop();
        assert_eq!(
            (systemd.receive(), systemd.receive()),
            ("READY=1\n".into(), "STOPPING=1\n".into())
        );
        systemd.socket.set_nonblocking(true).unwrap();
        assert_eq!(
            systemd.socket.recv(&mut [0; 64]).expect_err("no more").kind(),
            ErrorKind::WouldBlock
        );
        systemd.socket.set_nonblocking(false).unwrap();
    }
}

#[test]
fn a_failed_notification_is_logged_and_the_server_goes_on() {
    let program =
        Program::start(command(&["--listen=127.0.0.1:0"]).env("NOTIFY_SOCKET", "/nowhere/notify"));
    RawClient::connect_to(program.address, "name=Ann").next_of("join");
    let log = program.stop();
    assert!(log.contains("can't notify systemd of READY=1"), "{log}");
}

#[test]
fn the_watchdog_is_fed_only_while_the_hub_replies() {
    let (inbox, questions) = bounded(1);
    let (to_hub, events) = bounded(1);
    let (_stop, stopped) = bounded(0);
    let hub = Hub::new(Arc::new(config(&[])), SweepQueue::new(), 1);
    let hub = thread::spawn(move || hub.run(&events, stopped));
    let (running, ended) = bounded(0);
    let (sign, signs) = unbounded();
    let feeding = thread::spawn(move || {
        systemd::feed(
            Duration::from_millis(1),
            &ended,
            || hub_replies(&inbox),
            || sign.send(()).expect("the test counts"),
        );
    });
    // Of ten questions, the hub receives every other one.
    for (number, question) in questions.iter().take(10).enumerate() {
        if number % 2 == 0 {
            to_hub.send(question).expect("the hub runs");
        }
    }
    drop((questions, running));
    feeding.join().expect("the feeder ends with its channel");
    assert_eq!(signs.iter().count(), 5);
    drop(to_hub);
    hub.join().expect("the hub ends with its inbox");
}
