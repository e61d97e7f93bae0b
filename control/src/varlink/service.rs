//! The interface of every Varlink service: information about the service, and the description of its interfaces.
//!
//! Reference: <https://varlink.org/Service>.

use serde_json::{Map, Value, json};

use crate::api::{DESCRIPTION, Error, INTERFACE, SERVICE_INTERFACE};

const SERVICE_DESCRIPTION: &str = "\
# What a Varlink service says about itself.
interface org.varlink.service

# Who made the service, and the interfaces it has.
method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)

# The description of one interface.
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
";

/// True if this is a method of `org.varlink.service`.
pub(super) fn owns(full_method: &str) -> bool {
    full_method.rsplit_once('.').is_some_and(|(interface, _)| interface == SERVICE_INTERFACE)
}

/// Answers a call of `org.varlink.service`.
///
/// # Errors
/// [`Error::MethodNotFound`], [`Error::InterfaceNotFound`], [`Error::InvalidParameter`].
pub(super) fn call(full_method: &str, parameters: &Map<String, Value>) -> Result<Value, Error> {
    let known: &[&str] = match full_method.rsplit('.').next() {
        Some("GetInfo") => &[],
        Some("GetInterfaceDescription") => &["interface"],
        _ => return Err(Error::MethodNotFound { method: full_method.to_owned() }),
    };
    if let Some(unknown) = parameters.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(Error::invalid(unknown.as_str()));
    }
    if known.is_empty() {
        return Ok(json!({
            "vendor": "labsw",
            "product": "labswd",
            "version": env!("CARGO_PKG_VERSION"),
            "url": "",
            "interfaces": [SERVICE_INTERFACE, INTERFACE],
        }));
    }
    match parameters.get("interface").and_then(Value::as_str) {
        Some(INTERFACE) => Ok(json!({"description": DESCRIPTION})),
        Some(SERVICE_INTERFACE) => Ok(json!({"description": SERVICE_DESCRIPTION})),
        Some(other) => Err(Error::InterfaceNotFound { interface: other.to_owned() }),
        None => Err(Error::invalid("interface")),
    }
}
