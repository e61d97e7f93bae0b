//! Replays the corpora of the fuzz targets (`tests/fuzz/corpus`) without a fuzzer: what was ever found stays found.

use std::panic::catch_unwind;
use std::path::Path;

use labsw_tests::fuzz::TARGETS;

/// One after the other: `session` counts the process's descriptors.
#[test]
fn corpora() {
    for (name, target) in TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let entries = std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
        let mut inputs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{} is empty", directory.display());
        let began = std::time::Instant::now();
        for input in &inputs {
            let bytes = std::fs::read(input).unwrap();
            assert!(catch_unwind(|| target(&bytes)).is_ok(), "{name} fails on {}", input.display());
        }
        println!("{name}: {} inputs in {} ms", inputs.len(), began.elapsed().as_millis());
    }
}
