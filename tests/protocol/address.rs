//! Addresses of servers, as people write them.

use nix::net::if_::if_nametoindex;
use parlour::cli::Options;
use parlour::config::Config;
use parlour::protocol::address::Address;

/// Texts, each with the address that a server given it listens on, and the `Host` header that a
/// client given it sends.
const MEANINGS: [(&str, &str, &str); 27] = [
    ("127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1:8080"),
    ("  127.0.0.1:8080\t", "127.0.0.1:8080", "127.0.0.1:8080"),
    ("127.0.0.1:8080/", "127.0.0.1:8080", "127.0.0.1:8080"),
    ("192.0.2.7:1", "192.0.2.7:1", "192.0.2.7:1"),
    ("192.0.2.7", "192.0.2.7:8080", "192.0.2.7:8080"),
    ("localhost:65535", "localhost:65535", "localhost:65535"),
    ("localhost", "localhost:8080", "localhost:8080"),
    ("Chat_1.example-2.org.:80", "Chat_1.example-2.org.:80", "Chat_1.example-2.org.:80"),
    ("9000", "127.0.0.1:9000", "127.0.0.1:9000"),
    (":9000", "[::]:9000", "localhost:9000"),
    ("[::]:9000", "[::]:9000", "localhost:9000"),
    (":::9000", "[::]:9000", "localhost:9000"),
    ("[::]", "[::]:8080", "localhost:8080"),
    ("::", "[::]:8080", "localhost:8080"),
    ("0.0.0.0:9000", "0.0.0.0:9000", "localhost:9000"),
    ("[::1]:9000", "[::1]:9000", "[::1]:9000"),
    ("::1:9000", "[::1]:9000", "[::1]:9000"),
    ("[::1]", "[::1]:8080", "[::1]:8080"),
    ("::1", "[::1]:8080", "[::1]:8080"),
    ("[2001:DB8:0::7]:9000", "[2001:db8::7]:9000", "[2001:db8::7]:9000"),
    ("2001:db8::7:9000", "[2001:db8::7]:9000", "[2001:db8::7]:9000"),
    ("2001:db8::cafe", "[2001:db8::cafe]:8080", "[2001:db8::cafe]:8080"),
    ("1:2:3:4:5:6:7:8:9000", "[1:2:3:4:5:6:7:8]:9000", "[1:2:3:4:5:6:7:8]:9000"),
    ("[::ffff:192.0.2.7]:9000", "[::ffff:192.0.2.7]:9000", "[::ffff:192.0.2.7]:9000"),
    ("[fe80::1%eth0]:9000", "[fe80::1%eth0]:9000", "[fe80::1]:9000"),
    ("fe80::1%eth0:9000", "[fe80::1%eth0]:9000", "[fe80::1]:9000"),
    ("fe80::1%2", "[fe80::1%2]:8080", "[fe80::1]:8080"),
];

/// Texts that are not an address, each with a part of the error.
const MISTAKES: [(&str, &str); 24] = [
    ("", "no host"),
    (" ", "no host"),
    (":", "no host"),
    ("/ws", "no host"),
    ("a b", "\"a b\""),
    ("*:8080", "\"*\""),
    ("10.0.0.0/8", "write 10.0.0.0:8080"),
    ("a:b", "from 0 to 65535"),
    ("a:", "from 0 to 65535"),
    ("a:99999", "from 0 to 65535"),
    ("a:-1", "from 0 to 65535"),
    ("a:+1", "from 0 to 65535"),
    ("99999", "from 0 to 65535"),
    ("::1:99999", "from 0 to 65535"),
    ("::1:", "from 0 to 65535"),
    ("[::1]:", "from 0 to 65535"),
    ("[::1", "bracket is not closed"),
    ("[::1]8080", "a colon and a port"),
    ("[localhost]:80", "only an IPv6 address"),
    ("[]:80", "only an IPv6 address"),
    ("1:2:3", "brackets"),
    ("localhost:80:80", "brackets"),
    ("fe80::1:8080", "name the interface"),
    ("me:pw@a", "a password"),
];

#[test]
fn a_text_means_the_same_for_listening_and_for_connecting() {
    for (text, listens, host) in MEANINGS {
        let address = Address::parse_listen(text).expect(text);
        assert_eq!(address.with_port(address.port), listens, "{text}");
        let connects = Address::parse(text).expect(text);
        assert_eq!((&*connects.authority, &connects), (host, &address), "{text}");
        assert_eq!(Address::parse_listen(listens), Ok(address), "{listens} is itself");
    }
    let listen = Config::read(["parlour"]).expect("defaults go together").listen;
    assert_eq!(Address::parse_listen("8080"), Address::parse_listen(&listen));
}

#[test]
fn a_mistake_is_named_in_the_same_words_everywhere() {
    for (text, part) in MISTAKES {
        let problem = Address::parse_listen(text).expect_err(text);
        assert!(problem.contains(part), "{text}: {part:?} in {problem}");
        // A client may name a path.
        if !part.starts_with("write") {
            assert_eq!(Address::parse(text).expect_err(text), problem, "{text}");
        }
    }
}

#[test]
fn an_address_is_split_into_its_parts_or_refused() {
    let parts = |text: &str| {
        Address::parse(text).map(|address| (address.authority, address.path, address.query))
    };
    let whole = |authority: &str, path: &str, query: &str| {
        Ok((authority.into(), path.into(), query.into()))
    };
    assert_eq!(parts("ws://example.org"), whole("example.org", "/", ""));
    assert_eq!(
        parts("HTTP://example.org:81/a/?room=b#c"),
        whole("example.org:81", "/a/", "room=b")
    );
    assert_eq!(parts("http://example.org?room=b"), whole("example.org", "/", "room=b"));
    assert_eq!(parts("localhost:8080"), whole("localhost:8080", "/", ""));
    assert_eq!(parts("[::1]:8080/x"), whole("[::1]:8080", "/x", ""));
    assert_eq!(parts("http://[::1]"), whole("[::1]", "/", ""));
    assert_eq!(parts("http://[fe80::1%25eth0]:81/"), whole("[fe80::1]:81", "/", ""));
    for same in ["http://[fe80::1%25eth0]:81", "ws://[fe80::1%eth0]:81/"] {
        assert_eq!(Address::parse(same), Address::parse("[fe80::1%eth0]:81"), "{same}");
    }
    for bad in [
        "",
        "ws://",
        "ws://:80",
        "ws://a:b",
        "ws://a:99999",
        "ws://a:",
        "ws://me:pw@a",
        "ftp://a",
        "wss://a",
        "a b",
        "127.0.0.1:0",
        "http://a:0/",
    ] {
        assert!(parts(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_server_given_a_browser_address_says_what_to_write() {
    for (text, right) in [
        ("http://127.0.0.1:8080/", "write 127.0.0.1:8080"),
        ("http://chat.example", "write chat.example:80"),
        ("ws://[::]:8080/ws", "write [::]:8080"),
        ("https://0.0.0.0:8443", "write 0.0.0.0:8443, and put a proxy"),
        ("https://chat.example/", "write chat.example:443, and put a proxy"),
        ("chat.example/?room=rust", "write chat.example:8080"),
    ] {
        let problem = Address::parse_listen(text).expect_err(text);
        assert!(problem.contains(right), "{text}: {right:?} in {problem}");
        for option in ["--listen", "--metrics-listen"] {
            let error = Options::read(["parlour", option, text]).expect_err(text).to_string();
            assert!(error.contains(&format!("{option} {text}: {problem}")), "{error}");
        }
    }
}

#[test]
fn port_0_and_interfaces_resolve_to_addresses_to_listen_on() {
    let addresses = |text: &str| {
        let addresses = Address::parse_listen(text).expect(text).resolve().expect(text);
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(addresses("0"), ["127.0.0.1:0"]);
    assert_eq!(addresses(":0"), ["[::]:0", "0.0.0.0:0"]);
    let lo = if_nametoindex("lo").expect("a loopback interface");
    assert_eq!(addresses("[fe80::1%lo]:9000"), [format!("[fe80::1%{lo}]:9000")]);
    assert_eq!(addresses("[fe80::1%4711]:9000"), ["[fe80::1%4711]:9000"]);
    let missing = Address::parse_listen("[fe80::1%nowhere]:9000").expect("a name");
    assert!(missing.resolve().expect_err("it is not here").to_string().contains("nowhere"));
}
