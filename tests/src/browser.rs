//! A headless Chromium that the tests control through chromedriver's HTTP protocol (W3C WebDriver with
//! DevTools commands).
//!
//! Each browser has its own driver and its own profile, so tests that run at the same time do not affect each
//! other. The browser records all log messages and requests of a page.

use crate::run::DEADLINE;
use crate::temp::TempDir;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// A browser with one window.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// The output of the driver. The pipe stays open because the driver may still write to the pipe.
    _output: BufReader<ChildStdout>,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser whose window is `width` pixels wide and `height` pixels high.
    pub fn start(width: u32, height: u32) -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver must be there (tests/setup.sh installs it)");
        let stdout = driver.stdout.take().expect("the output is a pipe");
        let mut output = BufReader::new(stdout);
        let port = port_of(&mut output);
        let profile = TempDir::new("chromium");
        let mut browser =
            Browser { driver, port, session: String::new(), _output: output, _profile: profile };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let size = format!("--window-size={width},{height}");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            &profile,
            &size,
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let session = browser.request("POST", "/session", Some(&capabilities));
        browser.session = session["sessionId"].as_str().expect("a session has an id").to_owned();
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        browser.devtools("Emulation.setDeviceMetricsOverride", metrics);
        // At the start, the window shows a page of the browser itself. Remove the requests of the browser's
        // page from the log of requests.
        browser.command("url", &json!({ "url": "about:blank" }));
        browser.requests();
        browser
    }

    /// Sets the dark or light theme that pages see.
    pub fn set_dark(&self, is_dark: bool) {
        let value = if is_dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", features);
    }

    /// Disables scripts for pages that are opened from now on.
    pub fn disable_scripts(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    }

    /// Opens a file in the window.
    pub fn open(&self, file: &Path) {
        self.command("url", &json!({ "url": format!("file://{}", file.display()) }));
    }

    /// Opens a page of edleak and waits until the script of the page is ready.
    pub fn open_page(&self, file: &Path) {
        self.open(file);
        self.wait_for("document.documentElement.dataset.ready === 'true'");
    }

    /// The value of a JavaScript expression, computed in the page.
    pub fn value(&self, expression: &str) -> Value {
        self.command("execute/sync", &json!({ "script": format!("return {expression}"), "args": [] }))
    }

    /// The value of a JavaScript expression that gives a text.
    pub fn text(&self, expression: &str) -> String {
        let value = self.value(expression);
        value.as_str().unwrap_or_else(|| panic!("`{expression}` is {value} and no text")).to_owned()
    }

    /// The value of a JavaScript expression that gives a number.
    pub fn number(&self, expression: &str) -> f64 {
        let value = self.value(expression);
        value.as_f64().unwrap_or_else(|| panic!("`{expression}` is {value} and no number"))
    }

    /// Waits until a JavaScript expression is true in the page.
    pub fn wait_for(&self, expression: &str) {
        let start = Instant::now();
        while self.value(&format!("!!({expression})")) != Value::Bool(true) {
            assert!(
                start.elapsed() < DEADLINE,
                "`{expression}` never became true; console: {:?}",
                self.console()
            );
            sleep(POLL);
        }
    }

    /// Scrolls the element that `selector` finds into view, and clicks the middle of the element.
    pub fn click(&self, selector: &str) {
        let element = self.find(selector);
        self.command(&format!("element/{element}/click"), &json!({}));
    }

    /// Types `keys` into the element that `selector` finds. WebDriver defines codes for special keys, from
    /// U+E000 on.
    pub fn type_into(&self, selector: &str, keys: &str) {
        let element = self.find(selector);
        self.command(&format!("element/{element}/value"), &json!({ "text": keys }));
    }

    /// Drags the mouse across the element that `selector` finds, at half its height. `from` and `to` are
    /// fractions of the width of the element.
    pub fn drag_along(&self, selector: &str, from: f64, to: f64) {
        let quoted = Value::from(selector);
        self.value(&format!(
            "document.querySelector({quoted}).scrollIntoView({{ block: 'center', behavior: 'instant' }})"
        ));
        let place = |share: f64| {
            let of = |side: &str, size: &str, share: f64| {
                let expression = format!(
                    "(box => box.{side} + box.{size} * {share})\
                     (document.querySelector({quoted}).getBoundingClientRect())"
                );
                self.number(&expression).round() as i64
            };
            (of("left", "width", share), of("top", "height", 0.5))
        };
        let ((x0, y), (x1, _)) = (place(from), place(to));
        let step =
            |x: i64| json!({ "type": "pointerMove", "duration": 0, "x": x, "y": y, "origin": "viewport" });
        let (press, release) =
            (json!({ "type": "pointerDown", "button": 0 }), json!({ "type": "pointerUp", "button": 0 }));
        let actions = json!({ "actions": [{
            "type": "pointer",
            "id": "mouse",
            "parameters": { "pointerType": "mouse" },
            "actions": [step(x0), press, step((x0 + x1) / 2), step(x1), release],
        }] });
        self.command("actions", &actions);
    }

    /// All messages in the console of the page, including errors and violations of the content security
    /// policy.
    pub fn console(&self) -> Vec<String> {
        let log = self.command("se/log", &json!({ "type": "browser" }));
        log.as_array().expect("a log is a list").iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// The addresses of all requests of the page, including the request for the page itself.
    pub fn requests(&self) -> Vec<String> {
        let log = self.command("se/log", &json!({ "type": "performance" }));
        let entries = log.as_array().expect("a log is a list").iter();
        let message = |entry: &Value| -> Value {
            let text = entry["message"].as_str().expect("an entry has a message");
            serde_json::from_str::<Value>(text).expect("a message is JSON")["message"].take()
        };
        entries
            .map(message)
            .filter(|message| message["method"] == "Network.requestWillBeSent")
            .map(|message| message["params"]["request"]["url"].to_string())
            .collect()
    }

    /// The current document as HTML. Reading the document runs no script in the page.
    pub fn document(&self) -> String {
        let root = self.devtools("DOM.getDocument", json!({ "depth": 0 }));
        let html = self.devtools("DOM.getOuterHTML", json!({ "nodeId": root["root"]["nodeId"] }));
        html["outerHTML"].as_str().expect("a document is text").to_owned()
    }

    /// Runs a command of the DevTools protocol.
    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    fn find(&self, selector: &str) -> String {
        let found = self.command("element", &json!({ "using": "css selector", "value": selector }));
        let element = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        element.unwrap_or_else(|| panic!("nothing is found by `{selector}`")).to_owned()
    }

    fn command(&self, command: &str, body: &Value) -> Value {
        self.request("POST", &format!("/session/{}/{command}", self.session), Some(body))
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let reply =
            self.exchange(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let reply: Value =
            serde_json::from_str(&reply).unwrap_or_else(|error| panic!("{path}: {error}: {reply}"));
        let value = &reply["value"];
        assert!(value["error"].is_null(), "{method} {path}: {}: {}", value["error"], value["message"]);
        value.clone()
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<String> {
        let body = body.map_or_else(String::new, Value::to_string);
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        )?;
        let mut reader = BufReader::new(stream);
        let mut length = None;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok();
            }
        }
        let mut text = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut text)?;
        String::from_utf8(text).map_err(std::io::Error::other)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The end of the WebDriver session closes the browser. If no WebDriver session has begun, no browser
        // is open.
        let _ = self.exchange("DELETE", &format!("/session/{}", self.session), None);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Reads the port number that chromedriver prints when it starts.
fn port_of(output: impl BufRead) -> u16 {
    for line in output.lines() {
        let line = line.expect("chromedriver speaks UTF-8");
        if let Some(port) = line.strip_prefix("ChromeDriver was started successfully on port ") {
            return port.trim_end_matches('.').parse().expect("a port is a number");
        }
    }
    panic!("chromedriver ended before it said its port");
}
