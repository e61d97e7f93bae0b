//! What the pages under `docs/` list has to be what the code has.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use labsw_switch::DropReason;

/// `docs/drops.md` has one row per drop reason, in the order of the code, and none for a reason that is gone.
#[test]
fn every_drop_reason_has_its_row() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/drops.md");
    let text = std::fs::read_to_string(page).unwrap();
    // Behind them stand the kernel's counters.
    let text = text.split("\n## ").next().unwrap();
    let rows: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let names: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    let (in_page, in_code) = (BTreeSet::from_iter(&rows), BTreeSet::from_iter(&names));
    let missing: Vec<_> = in_code.difference(&in_page).collect();
    let surplus: Vec<_> = in_page.difference(&in_code).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "docs/drops.md lacks {missing:?} and has surplus {surplus:?}");
    assert_eq!(rows, names, "docs/drops.md lists the reasons in another order than switch/src/drop_reason.rs");
}

/// And one per counter of the kernel, in the order of the code.
#[test]
fn every_counter_of_the_kernel_has_its_row() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/drops.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (_, text) = text.split_once("\n## What the kernel drops").unwrap();
    let rows: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(rows, labsw_dataplane::xdp::XdpCounters::default().named().map(|(name, _)| name));
}
