//! `labsw-ctl wait` beside a switch that is not there yet.

use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_switch_that_does_not_run_yet_is_waited_for_if_a_time_is_given() {
    let dir = std::env::temp_dir().join(format!("labsw-wait-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let socket = dir.join("control.sock");
    let wait = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_labsw-ctl"));
        command.arg("--socket").arg(&socket).args(["wait", "web", "--for", "up"]).args(more);
        command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    assert_eq!(wait(&[]).wait().unwrap().code(), Some(3), "without a time it is asked once");
    assert_eq!(wait(&["--timeout", "200ms"]).wait().unwrap().code(), Some(3), "nobody came");
    let mut waits = wait(&["--timeout", "60s"]);
    std::thread::sleep(Duration::from_millis(300));
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    // This waits for a minute at most: then the client has given up.
    while waits.try_wait().unwrap().is_none() {
        if listener.accept().is_ok() {
            std::fs::remove_dir_all(&dir).unwrap();
            assert_eq!(waits.wait().unwrap().code(), Some(3), "the switch hung up");
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it gave up");
}
