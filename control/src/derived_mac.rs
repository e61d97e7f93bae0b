//! The MAC address of a station at a port, derived from the port's name.
//!
//! Guests (`labsw-ctl guest`, `nix/lib`), containers and the host's TAP interfaces share one rule, so that a station
//! keeps its address, and with it its lease at the gateway, over restarts of the switch and on another machine. Two
//! names share an address in one of 2²⁴ cases.
//!
//! **The rule.** 52:54:00 (QEMU's range, locally administered), then the 32-bit FNV-1a hash of the name, folded to 24
//! bits. `nix/lib/port.nix` repeats the rule; a test compares the two.

use labsw_switch::Mac;

/// The address of the station at the port of this name.
pub fn of_station(port: &str) -> Mac {
    Mac::from_u64(0x5254_0000_0000 | hash(port))
}

/// The address of the switch's own end of a veth pair. No station sees it; setting it keeps other programs from doing
/// so.
pub fn of_switch_end(port: &str) -> Mac {
    Mac::from_u64(0x5254_0100_0000 | hash(port))
}

/// The address from which copies go to another machine by this port.
pub fn of_mirror(port: &str) -> Mac {
    Mac::from_u64(0x5254_0200_0000 | hash(port))
}

fn hash(name: &str) -> u64 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u64::from((hash >> 24) ^ (hash & 0x00ff_ffff))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const NAMES: [&str; 5] = ["dc01", "web", "a", "Uplink_2", "a-rather.long-name-of-a-port"];

    #[test]
    fn one_name_has_one_address_of_one_station() {
        assert_eq!(of_station("dc01").to_string(), "52:54:00:af:1a:e1", "as printed in docs/guests.md");
        for name in NAMES {
            assert!(!of_station(name).is_group());
            assert_ne!(of_station(name), of_switch_end(name));
        }
    }

    #[test]
    fn nix_has_the_same_rule() {
        let library = concat!(env!("CARGO_MANIFEST_DIR"), "/../nix/lib/port.nix");
        // The functions of nixpkgs' library that the rule uses, so that the test needs no nixpkgs.
        let lib = r#"{
            foldl' = builtins.foldl';
            toLower = builtins.replaceStrings ["A" "B" "C" "D" "E" "F"] ["a" "b" "c" "d" "e" "f"];
            stringToCharacters = s: builtins.genList (n: builtins.substring n 1 s) (builtins.stringLength s);
            fixedWidthString = n: fill: s:
              if builtins.stringLength s >= n then s else lib.fixedWidthString n fill (fill + s);
            trivial.toHexString = n:
              let digit = builtins.substring (n - n / 16 * 16) 1 "0123456789ABCDEF";
              in if n < 16 then digit else lib.trivial.toHexString (n / 16) + digit;
            strings.charToInt = c: TABLE.${c};
        }"#;
        let table: String =
            (b'-'..=b'z').map(|byte| format!("{:?} = {byte}; ", char::from(byte).to_string())).collect();
        let lib = lib.replace("TABLE", &format!("{{ {table} }}"));
        let names = NAMES.map(|name| format!("{name:?}")).join(" ");
        let expression = format!("let lib = {lib}; in map (import {library} {{ inherit lib; }}).macOf [ {names} ]");
        let command =
            Command::new("nix-instantiate").args(["--eval", "--strict", "--json", "-E", &expression]).output();
        let output = match command {
            Ok(output) => output,
            Err(error) => {
                assert!(std::env::var("LABSW_TEST_REQUIRE").as_deref() != Ok("1"), "nix-instantiate: {error}");
                println!("skipped: nix-instantiate: {error}");
                return;
            }
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found, NAMES.map(|name| of_station(name).to_string()));
    }
}
