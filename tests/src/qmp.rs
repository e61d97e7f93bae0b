//! QEMU's machine monitor: commands, their answers, and moves of a guest that are waited for.
//!
//! Reference: QEMU's `docs/interop/qmp-spec.rst`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::wait_for;

/// How long QEMU may take to open its monitor, and to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a guest may take to be saved, restored or moved.
const MOVE_PATIENCE: Duration = Duration::from_secs(120);

/// A connection to the machine monitor of one QEMU.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the monitor on `socket`, once QEMU has made it.
    ///
    /// # Panics
    /// When there is none.
    pub fn connect(socket: &Path) -> Self {
        let stream = wait_for("machine monitor", PATIENCE, || UnixStream::connect(socket).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut qmp = Self { reader: BufReader::new(stream) };
        let greeting = qmp.read();
        assert!(greeting["QMP"].is_object(), "{greeting}");
        qmp.execute("qmp_capabilities", &json!({}));
        qmp
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    /// Gives a command that may fail.
    ///
    /// # Errors
    /// QEMU's words.
    ///
    /// # Panics
    /// When QEMU does not answer.
    pub fn try_execute(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.reader.get_mut(), "{request}").unwrap();
        loop {
            let answer = self.read();
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                return Err(error["desc"].as_str().unwrap_or_default().to_owned());
            }
        }
    }

    /// Gives a command that has to succeed.
    ///
    /// # Panics
    /// When it fails.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        self.try_execute(command, arguments).unwrap_or_else(|e| panic!("{command} {arguments}: {e}"))
    }

    /// Gives the human monitor a command; what it printed.
    pub fn human(&mut self, line: &str) -> String {
        let printed = self.execute("human-monitor-command", &json!({"command-line": line}));
        printed.as_str().unwrap_or_default().trim().to_owned()
    }

    /// Moves the guest to `uri` and waits until all of it is there; for how many milliseconds it stood still, as QEMU
    /// counts it.
    ///
    /// # Panics
    /// When the move fails.
    pub fn migrate(&mut self, uri: &str) -> u64 {
        self.execute("migrate", &json!({"uri": uri}));
        let done = wait_for("end of the move", MOVE_PATIENCE, || {
            let state = self.execute("query-migrate", &json!({}));
            assert_ne!(state["status"], "failed", "{state}");
            (state["status"] == "completed").then_some(state)
        });
        done["downtime"].as_u64().unwrap_or(0)
    }

    /// Waits until the guest runs, after it came from elsewhere.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_running(&mut self) {
        wait_for("a guest that runs", MOVE_PATIENCE, || {
            (self.execute("query-status", &json!({}))["status"] == "running").then_some(())
        });
    }
}
