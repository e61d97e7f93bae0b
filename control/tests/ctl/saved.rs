//! Configurations from standard input, the switch's own file, and files that are written.

use super::*;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

#[test]
fn the_running_configuration_is_saved_into_a_file_as_it_is_kept() {
    let switch = Switch::start();
    let (file, other) = (switch.file.clone(), switch.file.with_extension("other"));
    let kept = "# a lab\n[switch]\npower = \"performance\" # busy\nmac_ageing = \"5m\"\n";
    std::fs::write(&file, kept).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let inode = file.metadata().unwrap().ino();
    let expected = "# a lab\n[switch]\npower = \"adaptive\" # busy\nmac_ageing = \"5m\"\n";
    assert_eq!(switch.ok(&["config", "save", "-"]), expected, "nothing but power differs from the defaults");
    assert_eq!(switch.ok(&["config", "save", &other.display().to_string()]), "", "begins as a copy");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), expected);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), kept);
    assert_eq!(switch.json(&["config", "save"]), json!({}));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);
    let after = file.metadata().unwrap();
    assert_eq!(after.mode() & 0o7777, 0o640);
    assert_ne!(after.ino(), inode, "a new file in the place of the old one");

    // A link stays one; a file with mistakes is left alone.
    std::fs::remove_file(&other).unwrap();
    std::os::unix::fs::symlink(&file, &other).unwrap();
    switch.ok(&["config", "save", &other.display().to_string()]);
    assert!(other.symlink_metadata().unwrap().is_symlink());
    std::fs::write(&file, "[swich]\n").unwrap();
    let (status, error) = failure(switch.command(&["config", "save"]).output().unwrap());
    assert!(status == Some(1) && error.contains(":1:2: swich: unknown key"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "[swich]\n");
    let (status, error) = failure(switch.command(&["config", "save", "/proc/version"]).output().unwrap());
    assert!(status == Some(1) && error.lines().count() == 1, "{error}");
    let (status, error) = failure(switch.command(&["config", "save", "/nonexistent/lab.toml"]).output().unwrap());
    let line = "labsw-ctl: /nonexistent/lab.toml: No such file or directory (os error 2)\n";
    assert_eq!((status, error.as_str()), (Some(1), line));
    std::fs::remove_file(&other).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(switch.ok(&["config", "save"]), "");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "[switch]\npower = \"adaptive\"\n", "a file that was lost");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_configuration_comes_from_standard_input_or_is_the_switchs_own() {
    let switch = Switch::start();
    let piped = |arguments: &[&str], text: &str| {
        let mut command = switch.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    assert_eq!(text(&piped(&["config", "check", "-"], "[switch]\n").stdout), "standard input: something\n");
    let (status, error) = failure(piped(&["config", "apply", "-"], "[swich]\n"));
    let line = "labsw-ctl: standard input:1:2: swich: unknown key; did you mean `switch`?\n";
    assert_eq!((status, error.as_str()), (Some(1), line));
    assert!(piped(&["config", "apply", "-"], "[switch]\n").status.success());
    let changes = switch.take_changes();
    let Some(Change::ApplyConfig(AppliedConfig { wanted, .. })) = changes.first() else { panic!("{changes:?}") };
    assert_eq!(wanted.config, ConfigText { file: "standard input".into(), text: "[switch]\n".into() });

    let (status, error) = failure(switch.command(&["config", "diff"]).output().unwrap());
    assert!(status == Some(1) && error.contains(&switch.file.display().to_string()), "{error}");
    std::fs::write(&switch.file, "[switch]\n").unwrap();
    assert!(switch.ok(&["config", "diff"]).contains("port db"));
    std::fs::remove_file(&switch.file).unwrap();
}
