//! The session in another process: all that the front end has said is there, the same rings start, and a state that
//! does not fit is refused whole.

use super::*;
use crate::handover::{Given, HandoverError, Slot, Taken};
use crate::reaper::Account;
use crate::virtio::features::F_LOG_ALL;

/// A copy of each descriptor, as the other process gets them.
fn copies(given: &Given<'_>) -> Taken {
    Taken::new(given.descriptors().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect())
}

fn handed_over(front: &Front) -> (SessionHandover, Taken) {
    let mut given = Given::default();
    let state = front.session.hand_over(&mut given);
    let taken = copies(&given);
    (state, taken)
}

/// What a fresh session of a port with so many queue pairs makes of a state.
fn adopted(pairs: u16, state: &SessionHandover, mut taken: Taken) -> Result<(Front, Vec<u16>), HandoverError> {
    let mut front = Front::new(pairs);
    let started = front.session.adopt(state, &mut taken, &Account::new())?;
    assert_eq!(front.took(), Vec::<String>::new(), "no ring is touched");
    Ok((front, started))
}

fn with_log() -> Front {
    let mut front = Front::running(F_VERSION_1 | F_PROTOCOL);
    front.send(Req::SET_PROTOCOL_FEATURES, &[REPLY_ACK]);
    front.send(Req::NET_SET_MTU, &[1400]);
    front.event(Req::SET_VRING_CALL, 0);
    front.send(Req::SET_VRING_ENABLE, &[1 << 32]);
    let bytes = MEMORY_BYTES / 4096 / 8;
    let log = memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&log, bytes).unwrap();
    front.try_send(Req::SET_LOG_BASE, &[bytes, 0], vec![log]).unwrap();
    front.send(Req::SET_FEATURES, &[F_VERSION_1 | F_PROTOCOL | F_LOG_ALL]);
    front.send(Req::SET_VRING_ADDR, &[1 << 32, USER, USER + 0x2000, USER + 0x1000, 0x2000]);
    front.took();
    front
}

#[test]
fn all_that_was_said_goes_over_and_the_same_rings_start() {
    let front = with_log();
    let (state, taken) = handed_over(&front);
    let (mut other, started) = adopted(1, &state, taken).unwrap();
    assert_eq!(started, [0]);
    assert_eq!(other.session.ring_status()[0].size, 256);
    assert!(!other.session.is_up() && other.session.memory_regions() == 1);
    other.session.start_all(&started, &mut other.log).unwrap();
    let features = F_VERSION_1 | F_PROTOCOL | F_LOG_ALL;
    assert_eq!(other.took(), [format!("start 0 enabled kick call {features:#x} logged")]);
    // The guest may have missed an interrupt.
    other.session.interrupt_all(&mut other.log).unwrap();
    assert_eq!(other.took(), ["interrupt 0"]);
    // It would hand over the same again.
    assert_eq!(handed_over(&other).0, state);
    // And it goes on with the conversation: requests are acknowledged as they were.
    let answer = other.try_send_flags(Req::SET_VRING_ENABLE, &[0], vec![], true).unwrap();
    assert_eq!((answer, other.took()), (Some(0), vec!["enable 0 false".to_owned()]));
    other.describe(1);
    other.event(Req::SET_VRING_KICK, 1);
    assert_eq!(other.took().len(), 1, "the other ring starts when all is known of it");
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let front = with_log();
    let refusal = |pairs, change: &dyn Fn(&mut SessionHandover)| {
        let (mut state, taken) = handed_over(&front);
        change(&mut state);
        adopted(pairs, &state, taken).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(refusal(1, &|_| ()), "", "nothing is wrong with it");
    assert!(refusal(2, &|_| ()).contains("with 2 rings, and has 4"));
    assert!(refusal(1, &|state| state.features |= 1 << 63).contains("does not offer"));
    assert!(refusal(1, &|state| state.protocol_features |= 1 << 63).contains("lacks"));
    assert!(refusal(1, &|state| state.regions[0].bytes *= 2).contains("has only"));
    assert!(refusal(1, &|state| state.regions[0].bytes = 0).contains("empty"));
    assert!(refusal(1, &|state| state.regions.push(state.regions[0].clone())).contains("missing"));
    assert!(refusal(1, &|state| state.log.as_mut().unwrap().bytes = 0).contains("dirty log"));
    let many = |state: &mut SessionHandover| state.regions = vec![state.regions[0].clone(); MAX_REGIONS + 1];
    assert!(refusal(1, &many).contains("at most"));
    // An eventfd in place of memory, and memory that is none.
    let call: fn(&SessionHandover) -> Slot = |state| state.rings[0].call.unwrap();
    assert!(refusal(1, &|state| state.regions[0].file = call(state)).contains("neither shared memory"));
    // Too few descriptors.
    let (state, _) = handed_over(&front);
    assert!(adopted(1, &state, Taken::default()).is_err());
}

#[test]
fn a_ring_that_does_not_fit_its_memory_is_found_when_it_starts() {
    let front = with_log();
    let (mut state, taken) = handed_over(&front);
    state.rings[0].addresses = Some([USER + MEMORY_BYTES, USER, USER]);
    let (mut other, started) = adopted(1, &state, taken).unwrap();
    let error = other.session.start_all(&started, &mut other.log).unwrap_err();
    assert!(matches!(error, SessionError::Ring { index: 0, .. }), "{error}");
    assert!(other.took().is_empty());
}
