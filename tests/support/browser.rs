//! A headless Chromium, driven over its DevTools protocol: JSON messages on a WebSocket, so
//! tungstenite is all it takes.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::{DEADLINE, eventually};

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
/// Set where a missing browser is a failure, not a reason to skip the test.
const REQUIRED: &str = "PARLOUR_REQUIRE_BROWSER";

static PROFILES: AtomicU32 = AtomicU32::new(0);

/// A running browser with a profile of its own.
pub struct Browser {
    process: Child,
    profile: PathBuf,
    port: u16,
    control: Connection,
}

impl Browser {
    /// Starts the browser. If there is none, says so loudly.
    pub fn launch() -> Option<Browser> {
        let found = NAMES.iter().find(|name| {
            Command::new(name)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok()
        });
        let Some(name) = found else {
            assert!(
                std::env::var_os(REQUIRED).is_none(),
                "{REQUIRED} is set, and there is no browser"
            );
            // Not through the test harness, which would swallow it.
            use std::io::Write;
            let _ = writeln!(
                std::io::stderr(),
                "\nLEFT OUT: a browser test, since none of {NAMES:?} was found\n"
            );
            return None;
        };
        let profile = std::env::temp_dir().join(format!(
            "parlour-test-{}-{}",
            std::process::id(),
            PROFILES.fetch_add(1, Ordering::Relaxed)
        ));
        let process = Command::new(name)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args(["--disable-dev-shm-usage", "--remote-debugging-port=0", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser starts");
        // The file has two lines: the port, and the path of the browser's own connection.
        let (port, path) = eventually("the browser's start", || {
            let text = std::fs::read_to_string(profile.join("DevToolsActivePort")).ok()?;
            let (port, path) = text.trim().split_once('\n')?;
            Some((port.parse().ok()?, path.to_owned()))
        });
        Some(Browser { process, profile, port, control: Connection::open(port, &path) })
    }

    /// Opens `url` in a window as large as a laptop's, which shares nothing with the others.
    pub fn open(&mut self, url: &str) -> Page {
        let context =
            self.control.call("Target.createBrowserContext", json!({}))["browserContextId"].clone();
        let target = self.control.call(
            "Target.createTarget",
            json!({"url": "about:blank", "browserContextId": context, "newWindow": true}),
        );
        let id = target["targetId"].as_str().expect("an id");
        let mut page = Page(Connection::open(self.port, &format!("/devtools/page/{id}")));
        page.0.call("Page.enable", json!({}));
        page.resize(1280, 800);
        page.navigate(url);
        page
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// A window.
pub struct Page(Connection);

impl Browser {
    /// Opens what `page` shows in a second tab, which begins with a copy of its session storage.
    pub fn duplicate(&mut self, page: &mut Page) -> Page {
        let before = self.pages();
        let open = json!({"expression": "void window.open(location.href)", "userGesture": true});
        page.0.call("Runtime.evaluate", open);
        let id =
            eventually("the new tab", || self.pages().into_iter().find(|id| !before.contains(id)));
        let mut page = Page(Connection::open(self.port, &format!("/devtools/page/{id}")));
        page.wait_loaded();
        page
    }

    fn pages(&mut self) -> Vec<String> {
        let targets = self.control.call("Target.getTargets", json!({}));
        let pages = targets["targetInfos"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|target| target["type"] == "page");
        pages.map(|target| target["targetId"].as_str().expect("an id").to_owned()).collect()
    }
}

impl Page {
    /// Waits until the page is complete, and makes its script's exports global, for `eval`.
    #[track_caller]
    fn wait_loaded(&mut self) {
        // A new tab begins with a blank page, which is complete.
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'");
        self.eval("import('./app.js').then((script) => void Object.assign(window, script))");
    }

    fn navigate(&mut self, url: &str) {
        self.0.call("Page.navigate", json!({"url": url}));
        self.wait_loaded();
    }

    /// Runs `script` in each later document of this window, before its own scripts.
    pub fn run_before_scripts(&mut self, script: &str) {
        self.0.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": script}));
    }

    /// Evaluates a JavaScript expression, and awaits it if it is a promise.
    #[track_caller]
    pub fn eval(&mut self, expression: &str) -> Value {
        let parameters =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.0.call("Runtime.evaluate", parameters);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until the expression is true.
    #[track_caller]
    pub fn wait(&mut self, expression: &str) {
        eventually(expression, || {
            let parameters =
                json!({"expression": format!("Boolean({expression})"), "returnByValue": true});
            (self.0.call("Runtime.evaluate", parameters)["result"]["value"] == true).then_some(())
        });
    }

    /// Waits until the element shows the text.
    #[track_caller]
    pub fn wait_text(&mut self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.wait(&format!("document.querySelector({selector})?.innerText.includes({text})"));
    }

    /// Types into the element with the focus, as an input method would.
    pub fn type_text(&mut self, text: &str) {
        self.0.call("Input.insertText", json!({"text": text}));
    }

    /// Presses and releases a key: `Enter`, `Tab`, `Escape`.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            "Escape" => (27, ""),
            other => panic!("no key called {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text,
            });
            self.0.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Clicks an element through the page, as a keyboard or a screen reader would.
    pub fn click(&mut self, selector: &str) {
        self.eval(&format!("document.querySelector({}).click()", json!(selector)));
    }

    pub fn resize(&mut self, width: u32, height: u32) {
        self.resize_scaled(width, height, 1);
    }

    /// Resizes the window, on a screen with `scale` pixels in each direction for one of CSS.
    pub fn resize_scaled(&mut self, width: u32, height: u32, scale: u32) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": false,
        });
        self.0.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Sets what the user prefers. A change of language takes a reload.
    pub fn prefer(&mut self, scheme: &str, language: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.0.call("Emulation.setEmulatedMedia", json!({"features": features}));
        let agent = self.eval("navigator.userAgent");
        self.0.call(
            "Emulation.setUserAgentOverride",
            json!({"userAgent": agent, "acceptLanguage": language}),
        );
    }

    pub fn reload(&mut self) {
        self.eval("window.beforeReload = true");
        self.0.call("Page.reload", json!({}));
        self.wait("!window.beforeReload");
        self.wait_loaded();
    }

    /// Joins from the door.
    pub fn join(&mut self, name: &str) {
        self.wait("!document.getElementById('door').hidden");
        self.eval(&format!("document.getElementById('name').value = {}", json!(name)));
        self.click("#join button");
    }

    /// Types a message and presses Enter.
    pub fn say(&mut self, text: &str) {
        self.eval("document.getElementById('text').focus()");
        self.type_text(text);
        self.press("Enter");
    }

    /// Saves a picture, for people to look at, in the folder that `PARLOUR_SCREENSHOTS` names.
    pub fn screenshot(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("PARLOUR_SCREENSHOTS") else { return };
        let data = self.0.call("Page.captureScreenshot", json!({}))["data"].clone();
        let png = decode_base64(data.as_str().expect("a picture"));
        std::fs::write(PathBuf::from(folder).join(name), png).expect("the folder takes it");
    }
}

/// A DevTools connection: calls and their replies. Events in between are skipped.
struct Connection {
    socket: WebSocket<TcpStream>,
    calls: u64,
}

impl Connection {
    fn open(port: u16, path: &str) -> Connection {
        let socket = eventually("a DevTools connection", || {
            let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            Some(tungstenite::client(format!("ws://127.0.0.1:{port}{path}"), stream).ok()?.0)
        });
        Connection { socket, calls: 0 }
    }

    #[track_caller]
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let call = json!({"id": self.calls, "method": method, "params": parameters});
        self.socket.send(Message::text(call.to_string())).expect("the browser lives");
        loop {
            let text = match self.socket.read() {
                Ok(Message::Text(text)) => text,
                Ok(_) => continue,
                // For one, a process that was stopped and continued (signal(7)).
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {
                    continue;
                }
                Err(error) => panic!("a reply was expected before the deadline, not {error}"),
            };
            let mut reply: Value = serde_json::from_str(&text).expect("JSON");
            if reply["id"] == self.calls {
                assert!(reply.get("error").is_none(), "{method}: {reply}");
                return reply["result"].take();
            }
        }
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|&byte| byte != b'=').map(digit).collect();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let number = group.iter().fold(0u32, |number, &digit| number << 6 | u32::from(digit))
            << (6 * (4 - group.len()));
        bytes.extend(&number.to_be_bytes()[1..group.len()]);
    }
    bytes
}
