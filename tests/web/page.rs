//! The chat page: its files, and what it does in a real browser if there is one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::browser::{Browser, Page};
use crate::support::raw::exchange_bytes;
use crate::support::{Client, TestServer, assert_has};

/// Requests `path`: the status, the headers in lower case, and the body.
fn get(server: &TestServer, method: &str, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let response = exchange_bytes(server.address, request.as_bytes());
    let end = response.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8(response[..end].to_vec()).expect("text").to_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, head, response[end..].to_vec())
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("{name} in {head}"))
}

/// The files that `index.html` names.
fn files_named(index: &str) -> BTreeSet<&str> {
    let links = index
        .split(['<', '>'])
        .filter(|tag| tag.starts_with("link ") || tag.starts_with("script "));
    let attributes = links.flat_map(|tag| tag.split(' '));
    attributes
        .filter_map(|attribute| attribute.strip_prefix("href=").or(attribute.strip_prefix("src=")))
        .map(|quoted| quoted.trim_matches('"'))
        .filter(|address| !address.starts_with("data:"))
        .collect()
}

#[test]
fn the_page_names_each_of_its_files() {
    let files = std::fs::read_dir("src/web").unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: BTreeSet<String> = files.map(|name| name.into_string().unwrap()).collect();
    assert!(files.remove("index.html") && files.remove("build.rs"));
    let index = include_str!("../../src/web/index.html");
    assert!(files_named(index).into_iter().eq(&files), "{files:?}");
}

#[test]
fn its_files_are_served_plain_compressed_and_not_twice() {
    let server = TestServer::start(&[]);
    let index = include_str!("../../src/web/index.html");
    let mut files = vec!["/".to_owned(), "/?room=rust".to_owned()];
    files.extend(files_named(index).iter().map(|name| format!("/{name}")));
    for path in &files {
        let content_type = match path.rsplit_once('.') {
            Some((_, "css")) => "text/css",
            Some((_, "js")) => "text/javascript",
            _ => "text/html",
        };
        let (status, head, plain) = get(&server, "GET", path, "");
        assert_eq!(status, 200, "{path}");
        assert!(header(&head, "content-type").starts_with(content_type), "{head}");
        assert_eq!(header(&head, "content-length"), plain.len().to_string());
        assert!(!head.contains("content-encoding"), "{head}");
        for (name, part) in [
            ("content-security-policy", "default-src 'none'"),
            ("content-security-policy", "script-src 'self';"),
            ("content-security-policy", "connect-src 'self'"),
            ("content-security-policy", "frame-ancestors 'none'"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
            ("vary", "accept-encoding"),
        ] {
            assert!(header(&head, name).contains(part), "{name} of {path}: {head}");
        }
        assert!(!header(&head, "content-security-policy").contains("unsafe"), "{head}");

        let (_, gzip_head, gzip) = get(&server, "GET", path, "Accept-Encoding: br, gzip;q=0.8\r\n");
        assert_eq!(header(&gzip_head, "content-encoding"), "gzip");
        assert!(gzip.starts_with(&[0x1f, 0x8b]) && gzip.len() < plain.len() / 2, "{path}");
        assert!(
            !get(&server, "GET", path, "Accept-Encoding: gzip;q=0\r\n")
                .1
                .contains("content-encoding")
        );

        let etag = header(&head, "etag").replace("w/", "W/");
        let (status, _, body) =
            get(&server, "GET", path, &format!("If-None-Match: \"other\", {etag}\r\n"));
        assert_eq!((status, body.len()), (304, 0));
        assert_eq!(get(&server, "GET", path, "If-None-Match: \"other\"\r\n").0, 200);
        // Compared weakly, and in `If-Match` strongly (RFC 9110, 13.1).
        let strong = etag.trim_start_matches("W/");
        assert_eq!(get(&server, "GET", path, &format!("If-None-Match: {strong}\r\n")).0, 304);
        assert_eq!(get(&server, "GET", path, &format!("If-Match: {etag}\r\n")).0, 412);
        assert_eq!(get(&server, "GET", path, "If-Match: *\r\n").0, 200);

        let (status, head_only, body) = get(&server, "HEAD", path, "");
        assert_eq!((status, body.len()), (200, 0));
        assert_eq!(header(&head_only, "content-length"), plain.len().to_string());
        assert_eq!(get(&server, "POST", path, "").0, 405);
    }
}

#[test]
fn each_file_is_fetched_once() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut page = browser.open(&format!("http://{}/", server.address));
    let fetched = page.eval(
        "performance.getEntriesByType('resource')
           .map(({ name }) => name.replace(location.href, '')).sort()",
    );
    assert_eq!(fetched, json!(files_named(include_str!("../../src/web/index.html"))));
}

/// Opens a window and joins room `rust`.
fn window(browser: &mut Browser, server: &TestServer, name: &str) -> Page {
    let mut page = browser.open(&format!("http://{}/?room=rust", server.address));
    page.join(name);
    page.wait_text("#names", name);
    page
}

#[test]
fn two_windows_hold_a_conversation_across_a_restart() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let address = server.address.to_string();
    let mut ann = window(&mut browser, &server, "Ann");
    let mut bob = window(&mut browser, &server, "Bob");
    ann.wait_text("#log", "Bob\u{2069} joined");
    ann.wait_text("#count", "2 here");

    ann.say("Hello Bob, see https://example.org/a?b=c. And (http://example.com/x)");
    bob.wait_text("#log", "Hello Bob");
    ann.wait("document.querySelectorAll('#unconfirmed li').length === 0");
    ann.wait_text("#log", "Hello Bob");
    let links = bob.eval("[...document.querySelectorAll('#log a')].map(a => [a.href, a.rel])");
    let rel = "noopener noreferrer";
    assert_eq!(links, json!([["https://example.org/a?b=c", rel], ["http://example.com/x", rel]]));

    // A message keeps its line breaks.
    bob.eval("document.getElementById('text').focus()");
    bob.type_text("line one\nline two");
    bob.press("Enter");
    ann.wait_text("#log", "line one\nline two");

    // Private messages: by a click on the member, and by command. An error stands with its message.
    ann.eval(
        "[...document.querySelectorAll('#names button')].find(b => b.innerText === 'Bob').click()",
    );
    ann.wait_text("#recipient", "Bob");
    ann.say("between us");
    bob.wait_text("#log .private", "between us");
    bob.wait_text("#log .private .only", "only the two of you");
    ann.press("Escape");
    ann.wait("document.getElementById('recipient').hidden");
    ann.say("/msg bob and by command");
    bob.wait(
        "[...document.querySelectorAll('#log .private')] \
         .some((node) => node.innerText.includes('and by command'))",
    );
    ann.say("/msg Nobody are you there?");
    ann.wait_text("#unconfirmed .failed", "Nobody here has that name");
    ann.click("#unconfirmed .failed button:last-of-type");
    ann.wait("document.querySelectorAll('#unconfirmed li').length === 0");

    // Tab completes a name.
    ann.eval("document.getElementById('text').focus()");
    ann.type_text("bo");
    ann.press("Tab");
    assert_eq!(ann.eval("document.getElementById('text').value"), "Bob: ");
    ann.eval("document.getElementById('text').value = ''");

    // The server stops and starts again. What is written in the meantime is not lost.
    drop(server);
    ann.wait_text("#connection", "Connection lost");
    ann.say("written in the dark");
    ann.wait_text("#unconfirmed", "written in the dark");
    let server = TestServer::start(&["--listen", &address]);
    for page in [&mut ann, &mut bob] {
        page.wait("document.getElementById('connection').hidden");
        page.wait_text("#log", "The room has been restarted");
    }
    bob.wait_text("#log", "written in the dark");
    ann.wait("document.querySelectorAll('#unconfirmed li').length === 0");
    bob.wait_text("#log", "Hello Bob");
    drop(server);
}

#[test]
fn hostile_names_and_messages_stay_text() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut ann = window(&mut browser, &server, "Ann");
    let mut mallory = Client::connect(&server, "room=rust&name=%3Cimg+src%3Dx+onerror%3Dboom()%3E");
    assert_has(&mallory.next(), json!({"user": "<img src=x onerror=boom()>"}));
    ann.wait_text("#names", "<img src=x onerror=boom()>");
    let hostile = [
        "<script>boom()</script><b>bold</b>",
        "<img src=x onerror=boom()>",
        "javascript:boom() data:text/html,<script>boom()</script>",
        "http://a.example/\"onmouseover=\"boom() https://b.example/<b>",
        "\u{202E}txet desrever \u{2066}\u{202D}",
        "&lt;b&gt; &amp;amp; \u{0} \u{200B}",
    ];
    for content in hostile {
        mallory.say(content);
    }
    mallory.send(json!({"type": "private", "to": "Ann", "content": "<h1>private</h1>"}));
    ann.wait_text("#log .private", "<h1>private</h1>");
    let bodies = ann.eval(
        "[...document.querySelectorAll('#log .message.public .body')].map(b => b.textContent)",
    );
    assert_eq!(bodies, json!(hostile), "each as it was sent");
    let elements = "[...document.querySelectorAll('#log *, #names *')].map(e => e.tagName)";
    let elements = ann.eval(&format!("[...new Set({elements})].sort().join()"));
    assert_eq!(elements, "A,BDI,BUTTON,DIV,LI,P,TIME", "no element but the page's own");
    let links = ann.eval("[...document.querySelectorAll('#log a')].map(a => a.href)");
    assert_eq!(links, json!(["http://a.example/", "https://b.example/"]));
    let attributes = "[...document.querySelectorAll('#log a')] \
        .map((link) => link.getAttributeNames().sort().join()).join(' ')";
    assert_eq!(ann.eval(attributes), "href,rel,target href,rel,target");
    // A change of direction ends with its own message.
    assert_eq!(
        ann.eval("getComputedStyle(document.querySelector('#log .body')).unicodeBidi"),
        "isolate"
    );
}

#[test]
fn a_refused_name_says_why_and_keeps_what_was_typed() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let _ann = Client::join_room(&server, "Ann", "rust");
    let mut page = browser.open(&format!("http://{}/?room=rust", server.address));
    page.join("ann");
    page.wait_text("#refusal", "Somebody in this room has that name");
    assert_eq!(
        page.eval("[document.getElementById('name').value, document.getElementById('room').value]"),
        json!(["ann", "rust"])
    );
    page.eval("document.getElementById('room').value = 'no such room!'");
    page.click("#join button");
    page.wait_text("#refusal", "room’s name");
    assert_eq!(page.eval("document.getElementById('room').value"), "no such room!");
    page.eval("document.getElementById('room').value = 'other'");
    page.click("#join button");
    page.wait_text("#names", "ann");
    assert!(page.eval("location.search").as_str().is_some_and(|query| query == "?room=other"));
    // After a reload, the user is back in the room at once.
    page.reload();
    page.wait_text("#names", "ann");
}

#[test]
fn an_address_that_holds_a_password_lets_in() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut page = browser.open(&format!("http://me:secret@{}/?room=rust#end", server.address));
    page.join("Ann");
    page.wait_text("#names", "Ann");
    assert_eq!(page.eval("location.pathname + location.search + location.hash"), "/?room=rust");
}

#[test]
fn every_width_shows_everything_and_ten_thousand_messages_stay_bounded() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&["--queue", "4096"]);
    let mut ann = window(&mut browser, &server, "Ann");
    let mut flood = Client::join_room(&server, "flood", "rust");
    for number in 0..10_000 {
        flood.say(&format!("message {number}"));
        if number % 100 == 99 {
            flood.next_where(|message| message["content"] == format!("message {number}"));
        }
    }
    ann.wait_text("#log", "message 9999");
    ann.wait("document.querySelectorAll('#log li').length <= 500");
    ann.wait("document.querySelectorAll('*').length < 5000");

    // Who reads further up is left in peace.
    ann.eval("document.getElementById('scroll').scrollTop = 1000");
    ann.wait("document.getElementById('scroll').scrollTop < 1100");
    flood.say("news");
    ann.wait("!document.getElementById('pill').hidden");
    assert_eq!(
        ann.eval("document.getElementById('pill').innerText.startsWith('1 new message')"),
        true
    );
    assert!(
        ann.eval("document.getElementById('scroll').scrollTop")
            .as_f64()
            .is_some_and(|top| top < 1100.0)
    );
    ann.click("#pill");
    ann.wait("document.getElementById('pill').hidden");
    ann.eval("window.scrollArea = document.getElementById('scroll')");
    ann.wait("scrollArea.scrollHeight - scrollArea.scrollTop - scrollArea.clientHeight < 5");

    for width in [320, 360, 768, 1280, 2560] {
        ann.resize(width, 640);
        ann.wait(&format!("innerWidth === {width}"));
        let fits = "document.documentElement.scrollWidth <= innerWidth && \
            [...document.querySelectorAll('header > *, #composer > *')] \
              .filter((node) => node.checkVisibility() && !node.classList.contains('unseen')) \
              .map((node) => node.getBoundingClientRect()) \
              .every((r) => r.left >= 0 && r.right <= innerWidth && r.bottom <= innerHeight)";
        assert_eq!(ann.eval(fits), true, "at {width} px");
    }
    ann.resize(320, 300);
    ann.wait("document.getElementById('text').getBoundingClientRect().bottom <= innerHeight");
    ann.click("#show-members");
    ann.wait_text("#members", "flood");
}

#[test]
fn joins_and_leaves_in_a_row_share_a_notice_and_unread_messages_are_counted() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut ann = window(&mut browser, &server, "Ann");
    let bob = Client::join_room(&server, "Bob", "rust");
    let mut cas = Client::join_room(&server, "Cas", "rust");
    bob.close();
    ann.wait_text("#log .notice", "Cas\u{2069} joined · \u{2068}Bob\u{2069} came and went");
    assert_eq!(ann.eval("document.querySelectorAll('#log .notice').length"), 1);

    ann.eval("Object.defineProperty(document, 'hidden', {value: true, configurable: true})");
    cas.say("are you there?");
    cas.say("hello?");
    ann.wait("document.title.startsWith('(2) ')");
    ann.eval("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))");
    ann.wait("document.title === 'rust · parlour'");
}

#[test]
fn it_speaks_chinese_and_its_colours_have_contrast() {
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut page = browser.open(&format!("http://{}/", server.address));
    page.prefer("dark", "zh-CN");
    page.reload();
    page.wait("document.documentElement.lang === 'zh'");
    page.wait_text("#join button", "加入");
    page.join("张三");
    page.wait_text("#count", "1 人在线");

    // WCAG AA asks for 4.5 for text, and a name can have any hue.
    let contrast = r#"(() => {
        const canvas = document.createElement('canvas');
        const context = canvas.getContext('2d', { willReadFrequently: true });
        const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        const luminance = (colour) => {
            context.fillStyle = colour;
            context.fillRect(0, 0, 1, 1);
            const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((c) => linear(c / 255));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ratio = (a, b) => {
            const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
            return (x + 0.05) / (y + 0.05);
        };
        const style = getComputedStyle(document.documentElement);
        const get = (name) => style.getPropertyValue('--' + name).trim();
        const pairs = [
            ['ink', 'page'], ['ink', 'card'], ['quiet', 'page'], ['quiet', 'card'],
            ['accent', 'page'], ['accent', 'card'], ['on-accent', 'accent'], ['ink', 'private'],
            ['private-ink', 'private'], ['alarm', 'alarm-page'], ['alarm', 'page'],
        ];
        const ratios = pairs.map(([a, b]) => [a, b, ratio(get(a), get(b))]);
        for (let hue = 0; hue < 360; hue += 5) {
            const name = `oklch(${get('name-light')} ${get('name-chroma')} ${hue})`;
            for (const back of ['page', 'card']) {
                ratios.push([`name ${hue}`, back, ratio(name, get(back))]);
            }
        }
        return ratios.filter(([, , r]) => r < 4.5);
    })()"#;
    for scheme in ["light", "dark"] {
        page.prefer(scheme, "en-US");
        page.wait(&format!("matchMedia('(prefers-color-scheme: {scheme})').matches"));
        assert_eq!(page.eval(contrast), json!([]), "{scheme}");
    }
    // Every control has a name for a screen reader.
    let unnamed = "[...document.querySelectorAll('button, input, textarea, summary')] \
        .filter((node) => !(node.textContent.trim() || node.ariaLabel || node.labels?.length)) \
        .map((node) => node.outerHTML)";
    let allowed: Value = page.eval(unnamed);
    let hidden = "<button type=\"button\" id=\"pill\" hidden=\"\"></button>";
    assert!(
        allowed.as_array().is_some_and(|nodes| nodes.iter().all(|node| node == hidden)),
        "{allowed}"
    );
}

/// Pictures of a busy room, for people to look at: `PARLOUR_SCREENSHOTS=folder make test`.
#[test]
fn screenshots() {
    if std::env::var_os("PARLOUR_SCREENSHOTS").is_none() {
        return;
    }
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let people = ["Grace", "Linus", "张三", "Amélie", "مريم", "A rather long name, 32 characters"];
    let mut others: Vec<Client> = Vec::new();
    for name in people {
        let query: String =
            name.trim_end_matches('s').bytes().map(|byte| format!("%{byte:02X}")).collect();
        others.push(Client::connect(&server, &format!("room=rust&name={query}")));
    }
    let mut ann = window(&mut browser, &server, "Ann");
    others[0].say(
        "Good morning! The slides are at https://example.org/slides/2026/threads-and-channels.html",
    );
    others[0].say("We begin at ten.");
    others[2].say("大家好！我今天用树莓派连接。");
    others[3].say("Does the hub ever block?\nI mean, on a slow client?");
    others[1].say(
        "No: try_send, and a full queue ends that client. @Ann can show you, she wrote a very long \
         message about it that needs more than one line on a narrow screen, which is the point of \
         this one.",
    );
    others[4].say("صباح الخير");
    ann.wait_text("#log", "صباح الخير");
    ann.say("Right. It never waits for anybody.");
    others[1].whisper("Ann", "psst: your microphone is on");
    ann.say("/msg Grace thank you!");
    others.pop().expect("somebody").close();
    Client::join_room(&server, "Visitor", "rust").close();
    others[5 - 1].say("\u{1F44B}");
    ann.wait_text("#log", "\u{1F44B}");
    ann.say("/msg Nobody hello");
    ann.wait_text("#unconfirmed", "Nobody here");
    for (scheme, width, height) in
        [("light", 1280, 800), ("dark", 1280, 800), ("light", 360, 740), ("dark", 360, 740)]
    {
        ann.prefer(scheme, "en-US");
        ann.resize(width, height);
        ann.wait(&format!("innerWidth === {width}"));
        ann.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
        ann.screenshot(&format!("room-{scheme}-{width}.png"));
    }
    ann.click("#show-members");
    ann.screenshot("members-dark-360.png");
    let mut door = browser.open(&format!("http://{}/?room=rust", server.address));
    door.resize(360, 640);
    door.join("ANN");
    door.wait_text("#refusal", "Somebody");
    door.screenshot("door-light-360.png");
}

/// Takes the picture in README.md, at twice its size. These make it small, and give it an edge:
/// `convert page.png +dither -colors 64 -strip -quality 90 -bordercolor '#d8dee4' -border 2 FILE`.
#[test]
fn picture_for_the_readme() {
    if std::env::var_os("PARLOUR_SCREENSHOTS").is_none() {
        return;
    }
    let Some(mut browser) = Browser::launch() else { return };
    let server = TestServer::start(&[]);
    let mut emma = browser.open(&format!("http://{}/?room=winter-market", server.address));
    emma.prefer("light", "en-GB");
    emma.reload();
    let mut tom = Client::join_room(&server, "Tom", "winter-market");
    tom.say("Good morning! The tables are here. Where do you want them?");
    tom.next_of("public");
    emma.join("Emma");
    emma.wait_text("#log", "Good morning");
    emma.say("Along the wall, please. The plan is at https://example.org/market");
    emma.wait_text("#log", "Along the wall");
    emma.say("And keep the left door free: the choir comes in there.");
    emma.wait_text("#log", "the choir");
    let mut priya = Client::join_room(&server, "Priya", "winter-market");
    priya.say("12 stalls have arrived, 5 are on their way.");
    emma.wait_text("#log", "12 stalls");
    tom.say("@Emma do we have enough extension leads?");
    emma.wait_text("#log", "extension leads");
    emma.say("Priya has four in her car. Coffee is ready at the entrance!");
    emma.wait_text("#log", "Coffee");
    priya.whisper("Emma", "The mayor comes at eleven. Don’t tell Tom, it is a surprise.");
    emma.wait_text("#log", "The mayor");
    let times = json!(["08:52", "08:55", "08:55", "09:03", "09:10", "09:11", "09:12"]);
    emma.eval(&format!(
        "const times = {times};
         document.querySelectorAll('time').forEach((time, at) => {{ time.textContent = times[at]; }});
         document.getElementById('text').style.caretColor = 'transparent';"
    ));
    emma.resize_scaled(900, 576, 2);
    emma.wait("innerWidth === 900");
    emma.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");
    emma.screenshot("page.png");
}
