//! Quotes values in the languages of the targets. Sockets and interfaces can have almost any name.

/// A word of a shell's command line.
pub(crate) fn shell(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:=,+@%-".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A value among QEMU's `key=value,…`: commas are doubled.
pub(super) fn qemu(value: &str) -> String {
    value.replace(',', ",,")
}

/// A value among cloud-hypervisor's `key=value,…`: in quotes if it has commas.
pub(super) fn cloud_hypervisor(value: &str) -> String {
    if value.contains(',') { format!("\"{value}\"") } else { value.to_owned() }
}

/// An attribute of XML, in single quotes.
pub(super) fn xml(value: &str) -> String {
    let escaped = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;");
    format!("'{escaped}'")
}

/// Text in a comment of XML, where two hyphens may not stand together.
pub(super) fn xml_comment(text: &str) -> String {
    text.replace("--", "- - ")
}

/// A string of Nix.
pub(super) fn nix(value: &str) -> String {
    let escaped = value.replace('\\', r"\\").replace('"', "\\\"").replace("${", "\\${");
    format!("\"{escaped}\"")
}
