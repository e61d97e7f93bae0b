//! Proves of `control/labsw.service`: `make install-files` puts everything it names in place, systemd reads it without
//! complaint and rates it as docs/service.md says; the capabilities that it has suffice for every type of port, and
//! none of them can go; a port in a namespace needs the one more that the page names.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use labsw_tests::netns::{Netns, veth};
use labsw_tests::process::{self, Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Site, TempDir, find_binary};

const SECOND: Duration = Duration::from_secs(1);
/// A user that is nobody's.
const USER: u32 = 64_123;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The values of a key of a unit file.
fn values(unit: &str, key: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

fn unit() -> String {
    std::fs::read_to_string(root().join("control/labsw.service")).unwrap()
}

#[test]
fn what_is_installed_is_what_the_unit_names() {
    if !require::all(&[Need::Labswd, Need::Program("make"), Need::Program("systemd-analyze")]) {
        return;
    }
    let dest = TempDir::new();
    let programs = find_binary("labswd").unwrap();
    let mut make = Command::new("make");
    make.current_dir(root()).args(["--no-print-directory", "install-files", "PREFIX=/opt/labsw"]);
    make.arg(format!("DESTDIR={}", dest.path().display()));
    process::run(make.arg(format!("BIN_DIR={}", programs.parent().unwrap().display())));
    let at = |path: &str| dest.path().join(path.trim_start_matches('/'));
    let file = at("/opt/labsw/lib/systemd/system/labsw.service");
    let installed = std::fs::read_to_string(&file).unwrap();
    assert!(!installed.contains("/usr/local"), "{installed}");
    for key in ["ExecStart", "ExecReload"] {
        let program = values(&installed, key).remove(0);
        let mode = std::fs::metadata(at(&program)).unwrap_or_else(|e| panic!("{program}: {e}")).permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{program} can be run");
    }
    let page = values(&installed, "Documentation").remove(0);
    assert!(at(page.strip_prefix("file://").unwrap()).is_file(), "{page}");
    assert!(at("/opt/labsw/lib/sysusers.d/labsw.conf").is_file());
    let completion = std::fs::read_to_string(at("/opt/labsw/share/bash-completion/completions/labsw-ctl")).unwrap();
    assert!(completion.contains("_labsw__ctl") || completion.contains("labsw-ctl"), "{completion}");
    for (page, begins) in [("man1/labsw-ctl.1", "labsw-ctl 1"), ("man8/labswd.8", "labswd 8")] {
        let page = std::fs::read_to_string(at(&format!("/opt/labsw/share/man/{page}"))).unwrap();
        assert!(page.contains(&format!(".TH {begins}")), "{page}");
    }

    // systemd looks for the programs where the unit says, so a copy that names those there are.
    let copy = dest.path().join("labsw.service");
    std::fs::write(&copy, installed.replace("/opt/labsw", &format!("{}/opt/labsw", dest.path().display()))).unwrap();
    let (status, text) = process::output(Command::new("systemd-analyze").arg("verify").arg(&copy));
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("labsw.service")).collect();
    assert!(status.success() && ours.is_empty(), "{text}");
    // 0 is best, 100 worst; what docs/service.md says, times ten.
    let mut rate = Command::new("systemd-analyze");
    let (status, text) = process::output(rate.args(["security", "--offline=true", "--threshold=28"]).arg(&copy));
    assert!(status.success(), "{text}");
}

/// Starts labswd as an ordinary user with these capabilities and no others.
fn spawn_with(capabilities: &[String], site: &Site, config: &Path) -> Process {
    let set: Vec<String> =
        capabilities.iter().map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase())).collect();
    let set = format!("-all,{}", set.join(","));
    let mut command = site.ns.command("setpriv");
    command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups", "--no-new-privs"]);
    command.args(["inh-caps", "ambient-caps", "bounding-set"].map(|kind| format!("--{kind}={set}")));
    command.arg(site.dir().join("labswd")).arg("--config").arg(config);
    Process::spawn("labswd", &mut command)
}

/// The same; what it says until it answers or ends.
fn run_with(capabilities: &[String], site: &Site, config: &Path) -> Result<(), String> {
    let mut switch = spawn_with(capabilities, site, config);
    let up = wait_for("start or end of labswd", 20 * SECOND, || {
        if !switch.is_running() {
            return Some(false);
        }
        switch.log().contains("ready").then_some(true)
    });
    if up {
        switch.signal(15);
        assert!(switch.wait(10 * SECOND).success());
        return Ok(());
    }
    Err(switch.log())
}

/// The site is the user's, with a program of its own: where it was built nobody else may look.
fn hand_over(site: &Site) {
    std::fs::copy(find_binary("labswd").unwrap(), site.dir().join("labswd")).unwrap();
    chown(site.dir(), Some(USER), Some(USER)).unwrap();
}

#[test]
fn the_capabilities_suffice_and_none_can_go() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("setpriv")]) {
        return;
    }
    let capabilities = values(&unit(), "AmbientCapabilities");
    assert_eq!(capabilities, values(&unit(), "CapabilityBoundingSet"));
    assert_eq!(capabilities.len(), 5, "{capabilities:?}");
    let site = Site::new("svc");
    let far = Netns::new("svcf");
    veth((&site.ns, "svc0"), (&far, "svc1"));
    let all_types = "[ports.nic]\ntype = \"af_xdp\"\ndevice = \"name:svc0\"\n\
        [ports.vm]\ntype = \"vhost_user\"\nowner = \"nobody\"\n\
        [ports.web]\ntype = \"veth\"\npeer = \"svc-web\"\n\
        [ports.host]\ntype = \"tap\"\ninterface = \"svc-host\"\n\
        [ports.win]\ntype = \"tap\"\ninterface = \"svc-win\"\nfor = \"guest\"\nowner = \"nobody\"\n";
    let config = site.write_config(all_types);
    hand_over(&site);
    run_with(&capabilities, &site, &config).unwrap();
    for gone in &capabilities {
        let rest: Vec<String> = capabilities.iter().filter(|name| *name != gone).cloned().collect();
        assert!(run_with(&rest, &site, &config).is_err(), "{gone} is not needed");
    }

    let container = Netns::new("svcc");
    let moved = format!("[ports.web]\ntype = \"veth\"\npeer = \"svc-web\"\nnetns = \"{}\"\n", container.name());
    let config = site.write_config(&moved);
    let refused = run_with(&capabilities, &site, &config).unwrap_err();
    assert!(refused.contains("netns"), "{refused}");
    run_with(&[&capabilities[..], &["CAP_SYS_ADMIN".to_owned()]].concat(), &site, &config).unwrap();
}

/// With the unit's capabilities the sockets of guests are given to their owners, again after a crash, and stay theirs
/// when the switch's own mode changes.
#[test]
fn the_sockets_of_guests_are_given_to_their_owners() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("setpriv")]) {
        return;
    }
    let (owner, group) = (64_124, 64_125);
    let site = Site::new("svco");
    hand_over(&site);
    let ports = format!(
        "[ports.vm]\ntype = \"vhost_user\"\nowner = \"{owner}\"\ngroup = \"{group}\"\nmode = \"0600\"\n\
         [ports.other]\ntype = \"vhost_user\"\n"
    );
    let config = site.write_config(&ports);
    let file = |port: &str| {
        let meta = std::fs::metadata(site.dir().join(format!("vhost/{port}.sock"))).unwrap();
        (meta.uid(), meta.gid(), meta.permissions().mode() & 0o777)
    };
    for end in [libc::SIGKILL, libc::SIGTERM] {
        let mut switch = spawn_with(&values(&unit(), "AmbientCapabilities"), &site, &config);
        wait_for("start of labswd", 20 * SECOND, || {
            assert!(switch.is_running(), "{}", switch.log());
            switch.log().contains("ready").then_some(())
        });
        assert_eq!((file("vm"), file("other")), ((owner, group, 0o600), (USER, USER, 0o660)));
        let changed = site.write_config(&format!("socket_mode = \"0640\"\nsocket_group = \"{owner}\"\n{ports}"));
        let mut apply = Command::new(find_binary("labsw-ctl").unwrap());
        process::run(apply.arg("--socket").arg(site.control_socket()).args(["config", "apply"]).arg(changed));
        assert_eq!((file("vm"), file("other")), ((owner, group, 0o600), (USER, owner, 0o640)));
        site.write_config(&ports);
        switch.signal(end);
        switch.wait(10 * SECOND);
    }
    assert!(!site.dir().join("vhost/vm.sock").exists());
}
