//! `docs/life-of-a-frame.md` names files and functions: all of them exist, and a newcomer has at most twelve files to
//! open.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test reports by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

/// Most files that a reader has to open.
const MAX_FILES: usize = 12;

/// The words in backticks of a cell.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_file_and_function_of_the_life_of_a_frame_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/life-of-a-frame.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| hop"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 10, "the table of hops is there");
    let (mut files, mut missing) = (BTreeSet::new(), Vec::new());
    for row in &rows {
        let [_, _, file, functions] = row.as_slice() else { panic!("a row of another form: {row:?}") };
        let file = names(file).next().unwrap();
        let code = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        files.insert(file);
        let mut named = 0;
        for function in names(functions) {
            named += 1;
            if ![format!("fn {function}("), format!("fn {function}<")].iter().any(|begin| code.contains(begin)) {
                missing.push(format!("{file}: {function}"));
            }
        }
        assert!(named > 0, "{file}: no function");
    }
    assert!(missing.is_empty(), "docs/life-of-a-frame.md names what is not there: {missing:?}");
    assert!(files.len() <= MAX_FILES, "{} files", files.len());
}
