//! The server behind nginx, with the book's configuration, TLS and a certificate of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use serde_json::json;

use crate::support::program::{Program, command};
use crate::support::raw::{FIN, PING, RawClient, exchange, public, text, upgrade};
use crate::support::{config, eventually};

/// The site that the book recommends.
const SITE: &str = include_str!("nginx.conf");
const READ_TIMEOUT: &str = "proxy_read_timeout 90s;";
/// Debian installs it where a user's PATH does not find it.
const NAMES: [&str; 2] = ["nginx", "/usr/sbin/nginx"];
/// The options that the book tells an owner to set.
const BEHIND_NGINX: [&str; 2] = ["--listen=127.0.0.1:0", "--trusted-proxy=127.0.0.1"];
/// Set where no test may be left out because nginx is missing.
const REQUIRED: &str = "PARLOUR_REQUIRE_NGINX";

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// A running nginx in a folder of its own.
struct Nginx {
    process: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl Nginx {
    /// Starts nginx in front of `upstream`, with `timeout` in place of [`READ_TIMEOUT`]. Without
    /// nginx, says so and returns `None`.
    fn launch(upstream: SocketAddr, timeout: &str) -> Option<Nginx> {
        let runs = |name: &str| {
            Command::new(name).arg("-v").stderr(Stdio::null()).status().is_ok_and(|s| s.success())
        };
        let Some(program) = NAMES.into_iter().find(|name| runs(name)) else {
            assert!(
                std::env::var_os(REQUIRED).is_none(),
                "{REQUIRED} is set, and nginx is not installed"
            );
            eprintln!("LEFT OUT: nginx is not installed (Debian: apt-get install nginx)");
            return None;
        };
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("parlour-nginx-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        certify(&folder);
        // nginx gets a socket that is already bound, as when it replaces itself. So nobody else
        // can take the port.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let configuration = folder.join("nginx.conf");
        let site = site(&folder, address, upstream, timeout);
        fs::write(&configuration, around(&site, &folder)).unwrap();
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
            .expect("nginx starts, as it did for the check");
        Some(Nginx { process, folder, address })
    }

    /// Opens a tunnel to nginx for one connection, and returns its address. openssl connects from
    /// `source` and speaks TLS.
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
            // Its descriptors would keep the connection open.
            drop(openssl);
            process.wait().expect("a child");
        });
        address
    }

    fn connect(&self, query: &str) -> RawClient {
        RawClient::connect_to(self.tunnel("127.0.0.1:0"), query)
    }

    /// Returns all logs so far.
    fn logs(&self) -> String {
        ["access.log", "error.log"]
            .map(|name| fs::read_to_string(self.folder.join(name)).expect("a log"))
            .concat()
    }
}

impl Drop for Nginx {
    /// Stops nginx with a signal: killed, it would leave its workers.
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[track_caller]
fn succeeded(output: std::io::Result<Output>) {
    let output = output.expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Makes a key and a certificate signed with it.
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

/// Returns the site with this test's addresses and paths.
fn site(folder: &Path, address: SocketAddr, upstream: SocketAddr, timeout: &str) -> String {
    // In quotes, since the folder's path may have spaces.
    let here = |file: &str| format!("\"{}\"", folder.join(file).display());
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

/// Returns a whole configuration for a site, like Debian's, with all files in `folder`.
fn around(site: &str, folder: &Path) -> String {
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary =
        temporary.map(|name| format!("{name}_temp_path \"{folder}/{name}\";\n")).concat();
    format!(
        "daemon off;\npid \"{folder}/pid\";\nerror_log \"{folder}/error.log\";\nevents {{}}\n\
         http {{\naccess_log \"{folder}/access.log\";\n{temporary}{site}}}\n"
    )
}

#[test]
fn the_book_has_this_site_and_its_timeout_is_longer_than_two_pings() {
    let chapter = include_str!("../../src/book/operating.md");
    assert!(
        chapter.contains(&format!("```nginx\n{SITE}```\n")),
        "operating.md differs from tests/http/nginx.conf"
    );
    let timeout = READ_TIMEOUT.trim_start_matches("proxy_read_timeout ").trim_end_matches(';');
    let timeout = humantime::parse_duration(timeout).expect("a duration");
    assert!(SITE.contains(READ_TIMEOUT) && timeout > 2 * config(&[]).ping_interval);
}

#[test]
fn clients_chat_through_nginx_and_tls() {
    let program = Program::start(&mut command(&BEHIND_NGINX));
    let Some(nginx) = Nginx::launch(program.address, READ_TIMEOUT) else {
        program.stop();
        return;
    };
    let page =
        exchange(nginx.tunnel("127.0.0.1:0"), b"GET / HTTP/1.0\r\nHost: chat.example.org\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("<html"), "{page}");
    let mut ann = nginx.connect("name=Ann");
    let session = ann.next_of("welcome")["session"].as_str().expect("text").to_owned();
    let mut bob = nginx.connect("name=Bob");
    bob.next_of("join");
    ann.send(&public("hello"));
    assert_eq!(bob.next_of("public")["content"], "hello");
    bob.send(&text(&json!({"type": "private", "to": "Ann", "content": "psst"})));
    assert_eq!(ann.next_of("private")["content"], "psst");
    // No log of nginx has a session that comes back, neither while the server runs nor after.
    let query = format!("name=Ann&session={session}");
    let mut again = nginx.connect(&query);
    assert_eq!(ann.closed(), (4410, "replaced".into()));
    bob.send(&public("hello again"));
    assert_eq!(again.next_of("welcome")["session"], session);
    let log = program.stop();
    assert_eq!(bob.closed(), (1001, "server_shutdown".into()));
    let request = upgrade(&query).replace("keep-alive", "close");
    assert!(exchange(nginx.tunnel("127.0.0.1:0"), request.as_bytes()).starts_with("HTTP/1.1 502 "));
    let gone = exchange(
        nginx.tunnel("127.0.0.1:0"),
        b"GET /gone HTTP/1.0\r\nHost: chat.example.org\r\n\r\n",
    );
    assert!(gone.starts_with("HTTP/1.1 502 "), "{gone}");
    // nginx logs after the response.
    let logs = eventually("the line in the log", || {
        Some(nginx.logs()).filter(|logs| logs.contains("\"GET /gone "))
    });
    assert!(!logs.contains(&session) && !log.contains(&session), "{logs}");
}

#[test]
fn pings_keep_nginx_from_cutting_silent_clients() {
    let often =
        Program::start(&mut command(&[&BEHIND_NGINX[..], &["--ping-interval=100ms"]].concat()));
    let never = Program::start(&mut command(&BEHIND_NGINX));
    let timeout = "proxy_read_timeout 500ms;";
    let Some(nginx) = Nginx::launch(often.address, timeout) else {
        often.stop();
        never.stop();
        return;
    };
    let mut ann = nginx.connect("name=Ann");
    ann.next_of("join");
    // Without pings, nginx does cut the connection.
    let other = Nginx::launch(never.address, timeout).expect("the first one has started");
    let mut cut = other.connect("name=Cut");
    cut.next_of("join");
    assert_eq!(cut.frame(), None);
    // Nothing but pings, for much longer than the timeout.
    for _ in 0..20 {
        assert_eq!(ann.control(), (FIN | PING, Vec::new()));
    }
    ann.send(&public("still here"));
    assert_eq!(ann.next_of("public")["content"], "still here");
    for program in [often, never] {
        program.stop();
    }
}

#[test]
fn the_log_has_the_address_from_nginx_and_not_one_from_the_client() {
    let program = Program::start(&mut command(&BEHIND_NGINX));
    let Some(nginx) = Nginx::launch(program.address, READ_TIMEOUT) else {
        program.stop();
        return;
    };
    let source = "127.0.0.9";
    let tunnel = || nginx.tunnel(&format!("{source}:0"));
    let mut ann = RawClient::connect_to(tunnel(), "name=Ann");
    ann.next_of("join");
    let forged =
        "GET /nowhere HTTP/1.0\r\nHost: chat.example.org\r\nX-Forwarded-For: 203.0.113.5\r\n\r\n";
    assert!(exchange(tunnel(), forged.as_bytes()).starts_with("HTTP/1.1 404 "));
    // nginx passes on the host that the browser asked for, which the origin must match.
    let page = |origin: &str| {
        let head = format!("Host: chat.example.org\r\nOrigin: https://{origin}");
        upgrade("name=page").replace("Host: localhost", &head).replace("keep-alive", "close")
    };
    assert!(exchange(tunnel(), page("elsewhere.example").as_bytes()).starts_with("HTTP/1.1 403 "));
    let mut stream = TcpStream::connect(tunnel()).expect("the tunnel listens");
    stream.write_all(page("chat.example.org").as_bytes()).unwrap();
    let mut response = [0; 12];
    stream.read_exact(&mut response).expect("an upgrade");
    assert_eq!(&response, b"HTTP/1.1 101");
    let log = program.stop();
    for part in [
        "asks to join lobby as \"Ann\"",
        "refused: 404",
        "refused: 403",
        "asks to join lobby as \"page\"",
    ] {
        let line = log.lines().find(|line| line.contains(part));
        assert!(line.is_some_and(|line| line.contains(source)), "{part:?} in {log}");
    }
    assert!(!log.contains("203.0.113.5"), "{log}");
}

#[test]
fn a_server_that_does_not_know_its_proxy_says_which_option_names_it() {
    let program = Program::start(&mut command(&["--listen=127.0.0.1:0"]));
    let Some(nginx) = Nginx::launch(program.address, READ_TIMEOUT) else {
        program.stop();
        return;
    };
    let request = b"GET / HTTP/1.0\r\nHost: chat.example.org\r\n\r\n";
    let response = exchange(nginx.tunnel("127.0.0.1:0"), request);
    assert!(response.starts_with("HTTP/1.1 421 "), "{response}");
    let log = program.stop();
    for text in [&response, &log] {
        assert!(text.contains("--allow-host") && text.contains("--trusted-proxy"), "{text}");
    }
    assert!(log.contains("refused: 421 unknown_host (GET \"/\"): the host \"chat.example.org\""));
}

#[test]
fn an_upgrade_that_nginx_takes_away_is_missed_and_the_remedy_named() {
    let program = Program::start(&mut command(&BEHIND_NGINX));
    let Some(nginx) = Nginx::launch(program.address, READ_TIMEOUT) else {
        program.stop();
        return;
    };
    // The site passes upgrades on at /ws alone.
    let request = upgrade("session=secret").replace("/ws", "/").replace("keep-alive", "close");
    let response = exchange(nginx.tunnel("127.0.0.1:0"), request.as_bytes());
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    let log = program.stop();
    for text in [&response, &log] {
        assert!(text.contains("proxy_set_header Upgrade $http_upgrade"), "{text}");
    }
    assert!(log.contains("refused: 400 bad_request (GET \"/\"): not a WebSocket upgrade"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}
