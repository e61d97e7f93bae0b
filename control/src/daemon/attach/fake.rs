//! A type of port that touches nothing, for tests: on a thread that asked for it, it stands for every type, and so it
//! does on the device thread that is started there.
//!
//! Each port takes the resource that its settings name, as a real port takes a device. Opening fails if another port
//! has the resource, or if the test says so. A wrong order of steps therefore shows.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::Receiver;
use labsw_dataplane::port::Fault;
use labsw_dataplane::vhost_user::VhostPort;
use labsw_switch::PortId;
use parking_lot::Mutex;

use super::attachment::{Attachable, Attachment, Halves, Opened, Site};
use super::error::OpenError;
use super::news::OnFault;
use crate::api::{self, PortState};
use crate::config::{DeviceSpec, PortConfig, PortKind, SwitchConfig};
use crate::daemon::host::{Host, HostWork};
use crate::device::Links;
use crate::model::port::Claim;

/// The resources of the fake host.
#[derive(Debug, Default)]
pub(in crate::daemon) struct World {
    /// The resources that are taken, and the port that has each.
    pub(in crate::daemon) taken: BTreeMap<String, String>,
    /// Ports that can't be opened.
    pub(in crate::daemon) refuses: BTreeSet<String>,
    /// Number of times that a port was opened.
    pub(in crate::daemon) opened: usize,
    /// The largest MTU.
    pub(in crate::daemon) max_mtu: u32,
    /// Ports that are opened only when a message comes, or can't come any more.
    pub(in crate::daemon) slow: BTreeMap<String, Receiver<()>>,
}

thread_local! {
    static WORLD: RefCell<Option<Arc<Mutex<World>>>> = const { RefCell::new(None) };
}

/// Makes every port of this thread a fake one, in a new world.
pub(in crate::daemon) fn begin() {
    join(Some(Arc::new(Mutex::new(World { max_mtu: 9216, ..World::default() }))));
}

/// The world of this thread, for another thread to [`join`].
pub(in crate::daemon) fn shared() -> Option<Arc<Mutex<World>>> {
    WORLD.with_borrow(Clone::clone)
}

/// Makes the world of another thread that of this one, too.
pub(in crate::daemon) fn join(world: Option<Arc<Mutex<World>>>) {
    WORLD.set(world);
}

/// Gives the closure the world of this thread.
pub(in crate::daemon) fn world<T>(with: impl FnOnce(&mut World) -> T) -> T {
    with(&mut shared().unwrap_or_default().lock())
}

/// The fake type, on a thread that has a world.
pub(super) fn stands_for(_kind: &PortKind) -> Option<&'static dyn Attachable> {
    WORLD.with_borrow(|world| world.is_some().then_some(&FakeType as &dyn Attachable))
}

struct FakeType;

/// The resource that a port's settings name.
fn named(port: &PortConfig) -> String {
    match port.claims(&SwitchConfig::default()).pop() {
        Some((_, Claim::Device(DeviceSpec::Name(name)) | Claim::Interface { name, .. })) => name,
        claim => claim.map(|(_, claim)| claim.to_string()).unwrap_or_default(),
    }
}

impl Attachable for FakeType {
    fn preflight(&self, _: &PortConfig, _: &SwitchConfig, _: &mut Links) -> Result<(), (&'static str, OpenError)> {
        Ok(())
    }

    fn open(&self, _id: PortId, port: &PortConfig, _site: &mut Site<'_>) -> Result<Opened, OpenError> {
        let name = named(port);
        if let Some(go_on) = world(|world| world.slow.get(&port.name).cloned()) {
            let _ = go_on.recv();
        }
        world(|world| {
            if let Some(other) = world.taken.get(&name) {
                return Err(OpenError::Protected(format!("{name} is taken by {other}")));
            }
            if world.refuses.contains(&port.name) {
                return Err(OpenError::Protected(format!("{name} can't be opened")));
            }
            world.opened += 1;
            world.taken.insert(name.clone(), port.name.clone());
            Ok(())
        })?;
        let VhostPort { tx, rx } = VhostPort::new(1);
        Ok(Opened::new(Fake { name }, tx, rx))
    }

    fn show(&self, _: &PortConfig, _: &SwitchConfig, _: &mut api::Port) {}
}

struct Fake {
    name: String,
}

impl Attachment for Fake {
    fn close(self: Box<Self>, halves: Halves, _host: &mut Host) -> Result<(), OpenError> {
        halves.close();
        world(|world| world.taken.remove(&self.name));
        Ok(())
    }

    fn lose(self: Box<Self>, halves: Halves, host: &mut Host) -> (Option<Box<dyn Attachment>>, Result<(), OpenError>) {
        (None, self.close(halves, host))
    }

    fn state(&self) -> (PortState, Option<String>) {
        (PortState::Up, None)
    }

    fn show(&self, shown: &mut api::Port) {
        shown.interface = Some(self.name.clone());
    }

    fn set_mtu(&self, mtu: u32) -> HostWork<Result<(), OpenError>> {
        Box::new(move |_| match world(|world| mtu > world.max_mtu) {
            true => Err(OpenError::Protected(format!("mtu {mtu} is too large"))),
            false => Ok(()),
        })
    }

    fn has_mtu(&mut self, _mtu: u32) {}

    fn fault(&mut self, _fault: &Fault, _now: Instant) -> OnFault {
        OnFault::Lost
    }
}
