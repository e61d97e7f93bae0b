//! Proves `labsw-ctl web` in a real Chromium, at 100 ports: the page is there within a second, shows the numbers that
//! `--json` has, follows what happens, and its console is silent; and by sockets: nobody else's page gets at it, and
//! the slow and the many do not keep it from others.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use labsw_tests::browser::{Browser, CHROMIUM};
use labsw_tests::packet::{Frame, mac};
use labsw_tests::process::{Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, find_binary};
use labsw_tests::veth_lab::{Flow, Lab};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);
const PORTS: [(&str, &str); 3] = [
    ("a", "vlan = { mode = \"access\", tag = 10 }"),
    ("b", "vlan = { mode = \"access\", tag = 10 }"),
    ("span", "mirror_only = true"),
];
/// An interface with all that HTML would read, as far as names of interfaces go.
const EVIL: &str = "<u>&lt;'\"x";

/// The configuration beside [`PORTS`]: four more ports, a mirror, an impairment, and a sensor in the wire of b.
fn more() -> String {
    format!(
        "[ports.evil]\ntype = \"tap\"\ninterface = {EVIL:?}\n\
         [ports.trunk]\ntype = \"vhost_user\"\nvlan = {{ mode = \"trunk\", trunks = [10, \"12-14\"] }}\n\
         [ports.ips-in]\ntype = \"vhost_user\"\n[ports.ips-out]\ntype = \"vhost_user\"\n\
         [inline.ips]\nof = \"b\"\nthrough = [\"ips-in\", \"ips-out\"]\non_failure = \"open\"\n\
         [mirrors.detect]\nsources = [\"a\"]\nto = \"span\"\n[impair.b]\ndelay = \"1ms\"\ndirection = \"tx\"\n"
    )
}

/// Adds ports in 7 VLANs, up to 100. One by one: a busy machine takes its time for all of them.
fn add_ports(switch: &Labswd<'_>) {
    for number in 7..100 {
        let (name, tag) = (format!("vm{number}"), format!("vlan.tag={}", 10 + number % 7));
        switch.ctl(&["port", "add", &name, "--type", "vhost_user", "--set", "vlan.mode=access", "--set", &tag]);
    }
}

/// `labsw-ctl web` in the switch's namespace, by a user who may only read.
struct Web {
    process: Process,
    /// `127.0.0.1:PORT`.
    address: String,
}

impl Web {
    fn start(lab: &Lab) -> Web {
        let program = lab.site.dir().join("labsw-ctl");
        if !program.exists() {
            std::fs::copy(find_binary("labsw-ctl").unwrap(), &program).unwrap();
        }
        for path in [lab.site.dir(), program.as_path()] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = lab.site.ns.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
        command.arg("--socket").arg(lab.site.control_socket()).args(["web", "--listen", "127.0.0.1:0"]);
        let mut process = Process::spawn("web", &mut command);
        let (said, _) = process.wait_for_text(0, "/ until", PATIENCE);
        let (_, address) = said.split_once("http://").unwrap();
        Web { address: address.to_owned(), process }
    }

    fn connect(&self, lab: &Lab) -> TcpStream {
        let stream = lab.site.ns.enter(|| TcpStream::connect(&self.address)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The answer to a request; empty if there is none.
    fn ask(&self, lab: &Lab, request: &str) -> String {
        let (mut stream, mut answer) = (self.connect(lab), Vec::new());
        // A connection for which there is no room is closed.
        let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut answer));
        String::from_utf8(answer).unwrap()
    }

    /// Asked to end, it ends well.
    fn stop(mut self) {
        self.process.signal(libc::SIGINT);
        assert!(self.process.wait(PATIENCE).success());
    }
}

/// The page is whole: every port has a card, and the state is live.
const DRAWN: &str =
    "document.querySelectorAll('.card').length === 100 && document.getElementById('health').className === 'live'";

/// The name, state and counters of every port, as the page shows them for the selected port.
const SHOWN: &str = "(() => {
    const shown = Object.fromEntries([...document.querySelectorAll('.card')].map((card) => {
        selected = card.dataset.port;
        drawPort();
        const count = (name) => Number(document.querySelector(`[data-count=\"${name}\"]`).textContent.replaceAll(',', ''));
        const counts = ['in_frames', 'in_bytes', 'out_frames', 'out_bytes', 'dropped_frames'].map(count);
        return [selected, [document.querySelector('#port h2').textContent, card.dataset.state, ...counts]];
    }));
    select(null);
    return shown;
})()";

/// The same of `port list --json`.
fn told(switch: &Labswd<'_>) -> Value {
    let ports = switch.ctl(&["port", "list"]);
    let told = ports.as_array().unwrap().iter().map(|port| {
        let dropped: u64 = port["drops"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        let name = port["name"].as_str().unwrap().to_owned();
        let counts = ["rx_frames", "rx_bytes", "tx_frames", "tx_bytes"].map(|counter| &port[counter]);
        let row = json!([name, port["state"], counts[0], counts[1], counts[2], counts[3], dropped]);
        (name, row)
    });
    Value::Object(told.collect())
}

#[test]
fn a_browser_shows_what_the_switch_says_and_follows_it() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program(CHROMIUM), Need::Program("setpriv")]) {
        return;
    }
    let lab = Lab::new("web");
    let mut switch = lab.start("socket_mode = \"0666\"", &PORTS, &more());
    add_ports(&switch);
    let web = Web::start(&lab);
    let url = format!("http://{}/", web.address);
    let mut browser = Browser::start(&lab.site.ns);
    the_page_is_up_within_a_second(&mut browser, &url);

    // Rates of what flows, and drops.
    let flow = Flow::start(&lab, "a", "b");
    let tagged = Frame::new(mac(1), mac(2)).vlan(10).build();
    (0..7).for_each(|_| lab.socket("a").send(&tagged));
    let rate = "/^in [1-9]/.test(document.querySelector('[data-port=a] .rates').textContent)";
    browser.wait("rate of port a", PATIENCE, rate);
    flow.finish();
    wait_for("numbers of --json on the page", PATIENCE, || {
        let (shown, told) = (browser.evaluate(SHOWN), told(&switch));
        (shown == told && told["a"][6] == 7).then_some(())
    });
    the_page_says_what_is_plugged_in(&mut browser, &switch);
    nothing_overlaps(&mut browser, &url);

    // What happens, as it happens.
    browser.open(&format!("{url}#vm7"), (1440, 900), false);
    browser.wait("port of the address", PATIENCE, "document.querySelector('#port h2')?.textContent === 'vm7'");
    switch.ctl(&["port", "down", "vm7"]);
    browser.wait("event", PATIENCE, "[...document.querySelectorAll('#events li')].some((line) => line.textContent.includes('port vm7 is down: administratively down'))");
    browser.wait(
        "new state",
        PATIENCE,
        "document.querySelector('#port .reason').textContent === 'administratively down'",
    );
    switch.ctl(&["port", "del", "vm7"]);
    browser.wait(
        "99 ports",
        PATIENCE,
        "document.querySelectorAll('.card').length === 99 && document.getElementById('port').hidden",
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // The switch goes and comes back.
    switch.kill9();
    browser.wait("trouble", PATIENCE, "document.getElementById('health').textContent.includes(\"can't be reached\") && document.querySelectorAll('.card').length === 99");
    switch.restart();
    // Ports that are not in the file are gone.
    browser.wait("the switch again", PATIENCE, &DRAWN.replace("100", "7"));
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains("503")), "{complaints:?}");
    drop(browser);
    web.stop();
    // The killed switch could not remove the sockets of ports that the file does not have.
    (7..100).for_each(|number| drop(std::fs::remove_file(switch.vhost_socket(&format!("vm{number}")))));
    switch.stop();
}

/// From the address to the whole lab. A load that takes longer counts only where the machine had time for it; the work
/// of the page itself is bounded in any case.
fn the_page_is_up_within_a_second(browser: &mut Browser, url: &str) {
    let at = format!("{DRAWN} ? performance.now() : null");
    browser.call("Performance.enable", &json!({"timeDomain": "threadTicks"}));
    let mut loads = Vec::<f64>::new();
    while loads.len() < 5 && loads.iter().all(|milliseconds| *milliseconds > 1000.0) {
        browser.open(url, (1440, 900), false);
        loads.push(wait_for("the lab on the page", PATIENCE, || browser.evaluate(&at).as_f64()));
        let metrics = browser.call("Performance.getMetrics", &json!({}))["metrics"].clone();
        let work = metrics.as_array().unwrap().iter().find(|metric| metric["name"] == "TaskDuration").unwrap();
        assert!(work["value"].as_f64().unwrap() < 1.0, "the page takes the processor for {} s", work["value"]);
    }
    let best = loads.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(best <= 1000.0 || is_busy(), "the page is up after {loads:?} ms");
}

/// True if programs had to wait for a processor in more than half of the last ten seconds (PSI, Linux's accounting).
fn is_busy() -> bool {
    let pressure = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let share = pressure.split_once("avg10=").and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
    share.is_some_and(|percent| percent > 50.0)
}

/// Who is plugged in, marks, and commands; whatever a name holds, it is text.
fn the_page_says_what_is_plugged_in(browser: &mut Browser, switch: &Labswd<'_>) {
    let mut text = |expression: &str| browser.evaluate(expression).as_str().unwrap_or_default().to_owned();
    let who = text("document.querySelector('[data-port=evil] .who').textContent");
    assert!(who.contains(EVIL), "{who}");
    assert_eq!(text("String(document.querySelectorAll('u').length)"), "0");
    assert_eq!(text("document.querySelector('[data-port=a] .marks').textContent"), "◉ detect");
    assert_eq!(text("document.querySelector('[data-port=b] .marks').textContent"), "⇄ ips≈ tx impaired");
    assert_eq!(text("document.querySelector('[data-port=ips-in] .marks').textContent"), "⇄ ips");
    let inline = text("document.querySelector('#inlines .route').textContent");
    assert!(inline.starts_with("b ⇄ ips-in ⇄ ips-out, bypassed: "), "{inline}");
    let socket = switch.site().control_socket();
    let first = text("select('b'), document.querySelector('.command').textContent");
    assert_eq!(first, format!("labsw-ctl --socket {} port show b", socket.display()));
    // Found by a word: the port itself, and nothing else.
    let found = "document.getElementById('search').value = 'labsw-none'; search(); \
                 const none = document.querySelectorAll('.card:not([hidden])').length; \
                 document.getElementById('search').value = 'impaired VETH'; search(); \
                 const one = [...document.querySelectorAll('.card:not([hidden])')].map((card) => card.dataset.port); \
                 document.getElementById('search').value = ''; search(); \
                 JSON.stringify([none, one])";
    assert_eq!(
        text(&format!("(() => {{ {} }})()", found.replace("JSON.stringify", "return JSON.stringify"))),
        "[0,[\"b\"]]"
    );
}

/// At a desk and on a telephone, light and dark: no card covers another, and nothing is wider than the window.
fn nothing_overlaps(browser: &mut Browser, url: &str) {
    let overlap = "(() => {
        const boxes = [...document.querySelectorAll('.card')].map((card) => card.getBoundingClientRect());
        const covers = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
        const pairs = boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => covers(a, b)));
        const visible = boxes.every((box) => box.width > 100 && box.height > 20);
        return [pairs.length, visible, document.documentElement.scrollWidth <= innerWidth];
    })()";
    let mut colours = Vec::new();
    for (size, dark) in [((1440, 900), true), ((390, 844), false)] {
        browser.open(url, size, dark);
        browser.wait("the lab on the page", PATIENCE, DRAWN);
        assert_eq!(browser.evaluate(overlap), json!([0, true, true]), "{size:?}");
        colours.push(browser.evaluate("getComputedStyle(document.documentElement).backgroundColor"));
    }
    assert_ne!(colours[0], colours[1], "dark and light");
}

#[test]
fn requests_that_are_wrong_slow_or_many_get_nothing_and_keep_nobody_out() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("setpriv")]) {
        return;
    }
    let lab = Lab::new("webh");
    let switch = lab.start("socket_mode = \"0666\"", &[], "[ports.vm]\ntype = \"vhost_user\"\n");
    let web = Web::start(&lab);
    let get = |path: &str, host: &str| web.ask(&lab, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let state = get("/api/state", &web.address);
    let (head, body) = state.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"), "{head}");
    assert!(head.contains("default-src 'none'") && !head.to_lowercase().contains("access-control"), "{head}");
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["lanes"][0]["ports"][0]["name"], "vm");
    for (path, host, status) in [
        ("/", "localhost:80", "200"),
        ("/api/state", "lab.evil.example:9480", "421"),
        ("/page.js", "evil.example", "421"),
        ("/../etc/passwd", "127.0.0.1", "404"),
        ("/api/state/x", "127.0.0.1", "404"),
    ] {
        assert!(get(path, host).starts_with(&format!("HTTP/1.1 {status} ")), "{path} at {host}: {}", get(path, host));
    }
    for (request, status) in [
        ("GET /api/state HTTP/1.1\r\n\r\n", "421"),
        ("POST /api/state HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
        ("DELETE /api/ports/vm HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
        (&format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(5000)), "431"),
    ] {
        let answer = web.ask(&lab, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }

    // Many that never finish: others get in again once their time is up, and the switch is asked all the while.
    let mut stuck: Vec<TcpStream> = (0..80).map(|_| web.connect(&lab)).collect();
    stuck.iter_mut().step_by(2).for_each(|stream| drop(stream.write(b"GET /api/st")));
    switch.ctl(&["status"]);
    wait_for("room for another one", PATIENCE, || get("/", "localhost").starts_with("HTTP/1.1 200").then_some(()));
    drop(stuck);

    // An address of another machine, and a switch that is not there.
    assert_eq!(switch.ctl_output(&["web", "--listen", "192.0.2.1:1"]).0, 1);
    web.stop();
    switch.stop();
    let program = find_binary("labsw-ctl").unwrap();
    let mut command = std::process::Command::new(program);
    let output = command.arg("--socket").arg(lab.site.control_socket()).arg("web").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}
