//! Users and groups of this system, looked up by name or number: they own the sockets and devices that the daemon
//! makes.

/// The id of a group of this system; a number is taken as it is.
pub(super) fn group_id(name: &str) -> Result<u32, UnknownAccount> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    match nix::unistd::Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        _ => Err(UnknownAccount { kind: "group", name: name.to_owned() }),
    }
}

/// The id of a user of this system; a number is taken as it is.
pub(super) fn user_id(name: &str) -> Result<u32, UnknownAccount> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => Err(UnknownAccount { kind: "user", name: name.to_owned() }),
    }
}

/// A user or group that this system does not have.
#[derive(Debug, thiserror::Error)]
#[error("there is no {kind} {name:?} on this system; make it ({kind}add {name}), or name another")]
pub struct UnknownAccount {
    kind: &'static str,
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_users_are_found_by_name_or_number() {
        assert_eq!(group_id("root").unwrap(), 0);
        assert_eq!(group_id("4321").unwrap(), 4321);
        assert!(group_id("no-such-group-here").unwrap_err().to_string().contains("no-such-group-here"));
        assert_eq!((user_id("root").unwrap(), user_id("4321").unwrap()), (0, 4321));
        assert!(user_id("no-such-user").unwrap_err().to_string().contains("useradd no-such-user"));
    }
}
