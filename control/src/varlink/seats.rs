//! Places at the control socket, and who gets one when they are scarce.
//!
//! **How it works.** [`choose`] compares the holders of the places with the newcomer. It returns a free place, or a
//! place whose holder gives way, or the reason why there is none. Nothing here owns a socket.
//!
//! **Rules.**
//! - Root always gets a place.
//! - A peer that may only read has at most [`READER_PLACES`] places for its user, and all such peers together leave
//!   [`KEPT_PLACES`] to peers that may change the switch.
//! - Peers that may only read give way to peers that may change the switch, whatever they are doing.
//! - Otherwise only a client that has been idle for [`IDLE`] gives way.

use std::time::{Duration, Instant};

use crate::api::Peer;

/// Clients at the same time.
pub(super) const MAX_CLIENTS: usize = 128;
/// Places of one user whose peers may only read.
pub(super) const READER_PLACES: usize = 16;
/// Places that are kept for peers that may change the switch.
pub(super) const KEPT_PLACES: usize = 32;
/// Time that a client must have been idle to lose its place to a newcomer.
const IDLE: Duration = Duration::from_secs(10);

/// The facts about a client with a place that count.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) peer: Peer,
    /// No work is under way for the client.
    pub(super) idle: bool,
    /// The time of the last activity.
    pub(super) active_at: Instant,
}

/// The place for a newcomer; its holder, if it has one, gives way. The error says why there is no place.
pub(super) fn choose(newcomer: &Peer, holders: &[Option<Holder>], now: Instant) -> Result<usize, String> {
    let free = holders.iter().position(Option::is_none);
    let oldest = |may_go: &dyn Fn(&Holder) -> bool| {
        let held = holders.iter().enumerate().filter_map(|(place, holder)| Some((place, holder.as_ref()?)));
        held.filter(|(_, holder)| may_go(holder)).min_by_key(|(_, holder)| holder.active_at).map(|(place, _)| place)
    };
    let is_idle = |holder: &Holder| holder.idle && now >= holder.active_at + IDLE;
    if newcomer.may_change() {
        return free
            .or_else(|| oldest(&is_idle))
            .or_else(|| oldest(&|holder| !holder.peer.may_change()))
            .or_else(|| oldest(&|holder| newcomer.uid == 0 && holder.peer.uid != 0))
            .or_else(|| oldest(&|_| newcomer.uid == 0))
            .ok_or_else(|| format!("{MAX_CLIENTS} clients are connected"));
    }
    let readers = || holders.iter().flatten().filter(|holder| !holder.peer.may_change());
    let is_own = |holder: &Holder| holder.peer.uid == newcomer.uid;
    if readers().filter(|holder| is_own(holder)).count() >= READER_PLACES {
        let own = |holder: &Holder| !holder.peer.may_change() && is_own(holder) && is_idle(holder);
        return oldest(&own)
            .ok_or_else(|| format!("user {} has {READER_PLACES} connections open already", newcomer.uid));
    }
    let place = if readers().count() < MAX_CLIENTS - KEPT_PLACES { free } else { None };
    place
        .or_else(|| oldest(&|holder| !holder.peer.may_change() && is_idle(holder)))
        .ok_or_else(|| "too many clients are connected; try again later".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(uid: u32, may_change: bool, idle: bool, active_at: Instant) -> Option<Holder> {
        Some(Holder { peer: Peer::new(uid, uid, 1, may_change), idle, active_at })
    }

    fn empty() -> Vec<Option<Holder>> {
        vec![None; MAX_CLIENTS]
    }

    const ROOT: u32 = 0;
    const ADMIN: u32 = 500;

    #[test]
    fn a_reader_has_a_limit_of_its_own_and_others_are_served_on() {
        let now = Instant::now();
        let (reader, other) = (Peer::new(1000, 1000, 1, false), Peer::new(1001, 1001, 1, false));
        let mut holders = empty();
        for place in 0..READER_PLACES {
            assert_eq!(choose(&reader, &holders, now), Ok(place));
            holders[place] = holder(1000, false, false, now);
        }
        let refused = choose(&reader, &holders, now).unwrap_err();
        assert_eq!(refused, "user 1000 has 16 connections open already");
        assert_eq!(choose(&other, &holders, now), Ok(READER_PLACES));
        // A connection of the same user gives way once it has been idle for long.
        holders[3] = holder(1000, false, true, now);
        assert!(choose(&reader, &holders, now).is_err());
        assert_eq!(choose(&reader, &holders, now + IDLE), Ok(3));
    }

    #[test]
    fn readers_of_many_users_leave_places_to_those_who_may_change() {
        let now = Instant::now();
        let mut holders = empty();
        let mut readers = 0;
        while let Ok(place) = choose(&Peer::new(1000 + readers, 1, 1, false), &holders, now) {
            holders[place] = holder(1000 + readers, false, false, now);
            readers += 1;
        }
        assert_eq!(readers as usize, MAX_CLIENTS - KEPT_PLACES);
        assert_eq!(choose(&Peer::new(ADMIN, 1, 1, true), &holders, now), Ok(readers as usize));
    }

    #[test]
    fn those_who_may_change_come_before_readers_and_root_before_all() {
        let now = Instant::now();
        let (root, admin) = (Peer::new(ROOT, 0, 1, true), Peer::new(ADMIN, 1, 1, true));
        let mut holders: Vec<_> = (0..MAX_CLIENTS).map(|_| holder(ADMIN, true, false, now)).collect();
        holders[7] = holder(1000, false, false, now);
        assert_eq!(choose(&admin, &holders, now), Ok(7), "a reader gives way");
        holders[7] = holder(ADMIN, true, false, now);
        assert!(choose(&admin, &holders, now).is_err());
        holders[9] = holder(ADMIN, true, false, now - IDLE);
        assert!(choose(&admin, &holders, now).is_err(), "busy, though silent");
        assert_eq!(choose(&root, &holders, now), Ok(9));
        let all_root: Vec<_> = (0..MAX_CLIENTS).map(|_| holder(ROOT, true, false, now)).collect();
        assert!(choose(&root, &all_root, now).is_ok());
    }
}
