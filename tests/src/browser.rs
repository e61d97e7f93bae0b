//! A Chromium without a window, driven through a pipe: opens a page, looks at it, and keeps what its console says.
//!
//! **How it works.** With `--remote-debugging-pipe` Chromium takes commands at descriptor 3 and answers at 4, each a
//! JSON text with a zero byte behind it (the Chrome DevTools Protocol). A thread reads the answers, so that a browser
//! that says nothing fails a test instead of holding it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::netns::Netns;
use crate::process::wait_for;
use crate::switch::TempDir;

/// The program.
pub const CHROMIUM: &str = "chromium-headless-shell";
/// How long the browser may take for an answer; its start is part of the first one.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: Receiver<Value>,
    last: u64,
    session: Option<String>,
    complaints: Vec<String>,
    /// Its profile.
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser in a namespace, with an empty page.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(ns: &Netns) -> Self {
        let profile = TempDir::new();
        let script = format!(
            "exec {CHROMIUM} --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe \
             --user-data-dir={} about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1",
            profile.path().display()
        );
        let mut command = ns.command("sh");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a browser");
        let (commands, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, answers) = channel();
        thread::spawn(move || {
            for text in BufReader::new(stdout).split(0).map_while(Result::ok) {
                let answer = serde_json::from_slice(&text).expect("JSON of the browser");
                if sender.send(answer).is_err() {
                    return;
                }
            }
        });
        let (last, session, complaints) = (0, None, Vec::new());
        let mut browser = Self { child, commands, answers, last, session, complaints, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))["targetId"].clone();
        let session = browser.call("Target.attachToTarget", &json!({"targetId": target, "flatten": true}));
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, &json!({}));
        }
        browser
    }

    /// Calls a method of the protocol.
    ///
    /// # Panics
    /// When the browser refuses, ends, or says nothing.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).expect("a browser that takes commands");
        loop {
            let answer = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{method}: no answer: {e}"));
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.hear(&answer);
        }
    }

    /// Keeps the errors and warnings among what the browser tells.
    fn hear(&mut self, event: &Value) {
        let of = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => Some(of["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") => Some(of["args"].to_string()),
            Some("Log.entryAdded") => Some(of["entry"].to_string()),
            _ => None,
        };
        self.complaints.extend(complaint);
    }

    /// What the consoles of the pages said since the last time: errors, warnings, anything.
    pub fn complaints(&mut self) -> Vec<String> {
        self.evaluate("0");
        std::mem::take(&mut self.complaints)
    }

    /// Goes to a page, of this size in pixels, light or dark.
    pub fn open(&mut self, url: &str, (width, height): (u32, u32), dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &features);
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size);
        // The same address with another fragment would be the same document.
        self.call("Page.navigate", &json!({"url": "about:blank"}));
        self.call("Page.navigate", &json!({"url": url}));
    }

    /// The value of an expression in the page, whose promise is waited for.
    ///
    /// # Panics
    /// When it throws.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", &parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    pub fn wait(&mut self, what: &str, timeout: Duration, expression: &str) {
        wait_for(what, timeout, || (self.evaluate(expression) == json!(true)).then_some(()));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to close, it ends its helper processes; killed, they see that it is gone.
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}
