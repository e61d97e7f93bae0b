//! Texts made from the model: the types of settings in the interface description, the options of the NixOS module, and
//! the rows of the page about the configuration file. So a key stands in the model alone.
//!
//! Each test makes the text that a file has to hold, and compares. `make generated` (`LABSW_BLESS=1`) writes the files.

mod key;
mod nix;
mod page;
mod varlink;

use std::path::Path;

use super::*;

/// Checks that `file` of the repository holds what `make` makes of its text; with `LABSW_BLESS` writes it instead.
fn hold(file: &str, make: impl FnOnce(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let wanted = make(&before);
    if std::env::var_os("LABSW_BLESS").is_some() {
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    let differs = before.lines().zip(wanted.lines()).position(|(before, wanted)| before != wanted);
    let line = differs.unwrap_or_else(|| before.lines().count().min(wanted.lines().count()));
    let [is, should_be] = [&before, &wanted].map(|text| text.lines().nth(line).unwrap_or("the end of the file"));
    assert!(
        before == wanted,
        "{file}:{}: differs from the model; `make generated` writes it again\nis:        {is}\nshould be: {should_be}",
        line + 1
    );
}

#[test]
fn the_interface_description_has_the_settings_of_the_model() {
    hold("control/org.labsw.Switch1.varlink", varlink::description);
}

#[test]
fn the_options_of_the_module_are_the_keys_of_the_model() {
    hold("nix/module/keys.nix", |_| nix::options());
}

#[test]
fn the_page_has_a_row_for_every_key_of_the_model() {
    hold("docs/configuration.md", page::page);
}
