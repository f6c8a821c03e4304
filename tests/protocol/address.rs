//! Addresses of servers, as people write them.

use parlour::protocol::address::Address;

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
    assert_eq!(parts("localhost:8080"), whole("localhost:8080", "/", ""));
    assert_eq!(parts("[::1]:8080/x"), whole("[::1]:8080", "/x", ""));
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
    ] {
        assert!(parts(bad).is_err(), "{bad}");
    }
}
