//! Behind nginx, configured as the book says, with TLS and a certificate of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::program::{Program, command};
use crate::support::raw::{FIN, PING, RawClient, TEXT, exchange, masked, upgrade};
use crate::support::{config, eventually};

/// The site that the book tells an owner to use.
const SITE: &str = include_str!("nginx.conf");
const READ_TIMEOUT: &str = "proxy_read_timeout 90s;";
/// Debian's place for it is in no user's PATH.
const NAMES: [&str; 2] = ["nginx", "/usr/sbin/nginx"];
/// The options that the book tells an owner to set.
const BEHIND_NGINX: [&str; 2] = ["--listen=127.0.0.1:0", "--trusted-proxy=127.0.0.1"];
/// Set where a missing nginx is a failure and no reason to skip.
const REQUIRED: &str = "PARLOUR_REQUIRE_NGINX";

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// A running nginx in a folder of its own.
struct Nginx {
    process: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl Nginx {
    /// Starts nginx in front of `upstream`, with `timeout` in place of [`READ_TIMEOUT`], or says
    /// loudly that there is none.
    fn launch(upstream: SocketAddr, timeout: &str) -> Option<Nginx> {
        let runs = |name: &str| {
            Command::new(name).arg("-v").stderr(Stdio::null()).status().is_ok_and(|s| s.success())
        };
        let Some(program) = NAMES.into_iter().find(|name| runs(name)) else {
            assert!(
                std::env::var_os(REQUIRED).is_none(),
                "{REQUIRED} is set, and there is no nginx"
            );
            eprintln!("LEFT OUT: nginx, of Debian's package of this name, is not here");
            return None;
        };
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("parlour-nginx-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        certify(&folder);
        // The socket is bound here and handed on, as nginx does when it replaces itself: so the
        // port is free for certain.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let configuration = folder.join("nginx.conf");
        fs::write(&configuration, around(&site(&folder, address, upstream, timeout), &folder))
            .unwrap();
        let nginx = || {
            let mut nginx = Command::new(program);
            nginx.arg("-p").arg(&folder).arg("-c").arg(&configuration);
            nginx
        };
        succeeded(nginx().arg("-tq").output());
        let process = nginx()
            .env("NGINX", "0;")
            .stdin(OwnedFd::from(listener))
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts, as it did before");
        Some(Nginx { process, folder, address })
    }

    /// A way into nginx: what connects to this address, once, talks TLS through openssl, and comes
    /// from `source`.
    fn tunnel(&self, source: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().unwrap();
        let mut openssl = Command::new("openssl");
        openssl
            .args(["s_client", "-quiet", "-no_ign_eof", "-nocommands", "-verify_return_error"])
            .args([
                "-servername",
                "chat.example.org",
                "-verify_hostname",
                "chat.example.org",
                "-CAfile",
            ])
            .arg(self.folder.join("fullchain.pem"))
            .args(["-bind", source, "-connect", &self.address.to_string()])
            .stderr(Stdio::null());
        thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let output = stream.try_clone().expect("a descriptor");
            openssl.stdin(OwnedFd::from(stream)).stdout(OwnedFd::from(output));
            let mut process = openssl.spawn().expect("openssl starts");
            // The descriptors in it would keep the client from seeing the end.
            drop(openssl);
            process.wait().expect("a child");
        });
        address
    }

    fn connect(&self, query: &str) -> RawClient {
        RawClient::connect_to(self.tunnel("127.0.0.1:0"), query)
    }

    /// What it has logged.
    fn logs(&self) -> String {
        ["access.log", "error.log"]
            .map(|name| fs::read_to_string(self.folder.join(name)).expect("a log"))
            .concat()
    }
}

impl Drop for Nginx {
    /// Its workers end with it only if it is asked.
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[track_caller]
fn succeeded(output: std::io::Result<Output>) {
    let output = output.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A key and a certificate signed with it.
fn certify(folder: &Path) {
    let key = folder.join("privkey.pem");
    let certificate = folder.join("fullchain.pem");
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.args([
        "-subj",
        "/CN=chat.example.org",
        "-addext",
        "subjectAltName=DNS:chat.example.org",
    ]);
    succeeded(openssl.arg("-keyout").arg(key).arg("-out").arg(certificate).output());
}

/// The site with this machine's places in place of an owner's.
fn site(folder: &Path, address: SocketAddr, upstream: SocketAddr, timeout: &str) -> String {
    let here = |file: &str| folder.join(file).display().to_string();
    let changes = [
        ("    listen [::]:443 ssl;\n", String::new()),
        ("listen 443 ssl;", format!("listen {address} ssl;")),
        ("/etc/letsencrypt/live/chat.example.org/fullchain.pem", here("fullchain.pem")),
        ("/etc/letsencrypt/live/chat.example.org/privkey.pem", here("privkey.pem")),
        ("/var/log/nginx/error.log", here("error.log")),
        ("http://127.0.0.1:8080", format!("http://{upstream}")),
        (READ_TIMEOUT, timeout.to_owned()),
    ];
    changes.iter().fold(SITE.to_owned(), |site, (from, to)| {
        assert!(site.contains(from), "{from}");
        site.replace(from, to)
    })
}

/// What stands around a site in Debian's nginx.conf, in `folder` instead of the system's.
fn around(site: &str, folder: &Path) -> String {
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|name| format!("{name}_temp_path {folder}/{name};\n")).concat();
    format!(
        "daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n\
         http {{\naccess_log {folder}/access.log;\n{temporary}{site}}}\n"
    )
}

fn say(client: &mut RawClient, message: Value) {
    client.send(&masked(FIN | TEXT, message.to_string().as_bytes()));
}

fn end(program: Program) -> String {
    program.signal("TERM");
    let (status, log) = program.ended();
    assert!(status.success(), "{log}");
    log
}

#[test]
fn the_book_has_the_same_lines_and_they_wait_longer_than_a_ping_takes() {
    let chapter = include_str!("../../src/book/operating.md");
    assert!(
        chapter.contains(&format!("```nginx\n{SITE}```\n")),
        "operating.md has other lines than tests/http/nginx.conf"
    );
    let timeout = READ_TIMEOUT.trim_start_matches("proxy_read_timeout ").trim_end_matches(';');
    let timeout = humantime::parse_duration(timeout).expect("a duration");
    assert!(SITE.contains(READ_TIMEOUT) && timeout > 2 * config(&[]).ping_interval);
}

#[test]
fn people_talk_through_nginx_and_tls() {
    let program = Program::start(&mut command(&BEHIND_NGINX));
    let Some(nginx) = Nginx::launch(program.address, READ_TIMEOUT) else {
        return drop(end(program));
    };
    let page =
        exchange(nginx.tunnel("127.0.0.1:0"), b"GET / HTTP/1.0\r\nHost: chat.example.org\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("<html"), "{page}");
    let mut ann = nginx.connect("name=Ann");
    let session = ann.next_of("welcome")["session"].as_str().expect("text").to_owned();
    let mut bob = nginx.connect("name=Bob");
    bob.next_of("join");
    say(&mut ann, json!({"type": "public", "content": "hello"}));
    assert_eq!(bob.next_of("public")["content"], "hello");
    say(&mut bob, json!({"type": "private", "to": "Ann", "content": "psst"}));
    assert_eq!(ann.next_of("private")["content"], "psst");
    // A session that comes back, to a server that runs and to one that has gone, is in no log of
    // nginx.
    let query = format!("name=Ann&session={session}");
    let mut again = nginx.connect(&query);
    assert_eq!(ann.closed(), (4410, "replaced".into()));
    say(&mut bob, json!({"type": "public", "content": "hello again"}));
    assert_eq!(again.next_of("welcome")["session"], session);
    let log = end(program);
    assert_eq!(bob.closed(), (1001, "server_shutdown".into()));
    let request = upgrade(&query).replace("keep-alive", "close");
    assert!(exchange(nginx.tunnel("127.0.0.1:0"), request.as_bytes()).starts_with("HTTP/1.1 502 "));
    let gone = exchange(
        nginx.tunnel("127.0.0.1:0"),
        b"GET /gone HTTP/1.0\r\nHost: chat.example.org\r\n\r\n",
    );
    assert!(gone.starts_with("HTTP/1.1 502 "), "{gone}");
    // It logs after the response.
    let logs = eventually("the line in the log", || {
        Some(nginx.logs()).filter(|logs| logs.contains("\"GET /gone "))
    });
    assert!(!logs.contains(&session) && !log.contains(&session), "{logs}");
}

#[test]
fn pings_keep_nginx_from_cutting_those_who_are_silent() {
    let often =
        Program::start(&mut command(&[&BEHIND_NGINX[..], &["--ping-interval=100ms"]].concat()));
    let never = Program::start(&mut command(&BEHIND_NGINX));
    let timeout = "proxy_read_timeout 500ms;";
    let Some(nginx) = Nginx::launch(often.address, timeout) else {
        end(often);
        return drop(end(never));
    };
    let mut ann = nginx.connect("name=Ann");
    ann.next_of("join");
    // A server that is silent for as long is cut off: so nginx does count.
    let other = Nginx::launch(never.address, timeout).expect("the first one has started");
    let mut cut = other.connect("name=Cut");
    cut.next_of("join");
    assert_eq!(cut.frame(), None);
    // Far more than a timeout's worth of pings, and nothing else.
    for _ in 0..20 {
        assert_eq!(ann.control(), (FIN | PING, Vec::new()));
    }
    say(&mut ann, json!({"type": "public", "content": "still here"}));
    assert_eq!(ann.next_of("public")["content"], "still here");
    for program in [often, never] {
        end(program);
    }
}

#[test]
fn the_log_names_the_client_that_nginx_speaks_for_and_nobody_whom_the_client_names() {
    let program = Program::start(&mut command(&BEHIND_NGINX));
    let Some(nginx) = Nginx::launch(program.address, READ_TIMEOUT) else {
        return drop(end(program));
    };
    let source = "127.0.0.9";
    let tunnel = || nginx.tunnel(&format!("{source}:0"));
    let mut ann = RawClient::connect_to(tunnel(), "name=Ann");
    ann.next_of("join");
    let forged =
        "GET /nowhere HTTP/1.0\r\nHost: chat.example.org\r\nX-Forwarded-For: 203.0.113.5\r\n\r\n";
    assert!(exchange(tunnel(), forged.as_bytes()).starts_with("HTTP/1.1 404 "));
    // A page is compared with the host that its browser asked for, which nginx hands on.
    let page = |origin: &str| {
        let head = format!("Host: chat.example.org\r\nOrigin: https://{origin}");
        upgrade("name=page").replace("Host: localhost", &head).replace("keep-alive", "close")
    };
    assert!(exchange(tunnel(), page("elsewhere.example").as_bytes()).starts_with("HTTP/1.1 403 "));
    let mut stream = std::net::TcpStream::connect(tunnel()).expect("the tunnel");
    stream.write_all(page("chat.example.org").as_bytes()).unwrap();
    let mut response = [0; 12];
    stream.read_exact(&mut response).expect("an upgrade");
    assert_eq!(&response, b"HTTP/1.1 101");
    let log = end(program);
    let about = |part: &str| {
        log.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part} in {log}"))
    };
    for part in [
        "asks to join lobby as \"Ann\"",
        "refused: 404",
        "refused: 403",
        "asks to join lobby as \"page\"",
    ] {
        assert!(about(part).contains(source), "{log}");
    }
    assert!(!log.contains("203.0.113.5"), "{log}");
}

#[test]
fn a_server_that_does_not_know_its_proxy_says_which_option_names_it() {
    let program = Program::start(&mut command(&["--listen=127.0.0.1:0"]));
    let Some(nginx) = Nginx::launch(program.address, READ_TIMEOUT) else {
        return drop(end(program));
    };
    let request = b"GET / HTTP/1.0\r\nHost: chat.example.org\r\n\r\n";
    let response = exchange(nginx.tunnel("127.0.0.1:0"), request);
    assert!(response.starts_with("HTTP/1.1 421 "), "{response}");
    let log = end(program);
    for text in [&response, &log] {
        assert!(text.contains("--allow-host") && text.contains("--trusted-proxy"), "{text}");
    }
    assert!(log.contains("refused: 421 unknown_host (GET \"/\"): the host \"chat.example.org\""));
}

#[test]
fn an_upgrade_that_nginx_takes_away_is_missed_and_the_remedy_named() {
    let program = Program::start(&mut command(&BEHIND_NGINX));
    let Some(nginx) = Nginx::launch(program.address, READ_TIMEOUT) else {
        return drop(end(program));
    };
    // The site passes upgrades on at /ws alone.
    let request = upgrade("session=secret").replace("/ws", "/").replace("keep-alive", "close");
    let response = exchange(nginx.tunnel("127.0.0.1:0"), request.as_bytes());
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    let log = end(program);
    for text in [&response, &log] {
        assert!(text.contains("proxy_set_header Upgrade $http_upgrade"), "{text}");
    }
    assert!(log.contains("refused: 400 bad_request (GET \"/\"): not a WebSocket upgrade"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}
