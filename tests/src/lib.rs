//! Harness of the end-to-end tests: real guests, containers and namespaces around a real `labswd`.
//!
//! A test is built from these parts, each cleaning up after itself when dropped, also on a panic:
//!
//! * [`require`]: says what a test needs and skips it loudly (or fails, in CI) where it is missing;
//!   [`installed`]: where programs and files lie that the project does not build.
//! * [`netns`]: network namespaces and veth pairs between them.
//! * [`process`]: child processes with collected logs, and [`process::wait_for`].
//! * [`switch`]: one `labswd` with its own namespace, directory and control socket, driven through `labsw-ctl`.
//! * [`guest`]: a QEMU guest on a vhost-user socket, with a shell; [`qmp`]: QEMU's machine monitor.
//! * [`lab_host`]: a whole Linux host in QEMU, with a switch on emulated NICs whose cables the test holds.
//! * [`libvirt`]: a libvirtd of the test's own.
//! * [`lxc`]: a busybox container that owns one end of a veth pair.
//! * [`testpmd`]: DPDK's virtio-user front end, a vhost-user client nobody here wrote.
//! * [`hostile`]: a vhost-user front end that says and does anything.
//! * [`target`]: a switch under attack by one, and what must hold afterwards.
//! * [`browser`]: a Chromium that opens pages and says what they show.
//! * [`arena`]: a switch under attack while others work, and what the attack may cost them.
//! * [`attacks`]: what hostile peers do to it.
//! * [`gateway`]: the outside world behind port B, VLANs and DHCP included.
//! * [`take_over`]: what tests of take-overs share.
//! * [`veth_lab`]: a switch of veth ports, and numbered frames between two of them.
//! * [`fuzz`]: what the fuzz targets run (`tests/fuzz`), shared with the replay of their corpora.
//! * [`packet`]: exact frames in and out of an interface, VLAN tags included.
//! * [`checksum`]: the judge of a frame's lengths and checksums; [`capture`]: that judge at an interface.
//! * [`pages`]: the commands that the documentation prints, and the comparison of their output with the page.
//! * [`iperf`]: iperf3's servers and reports.
//! * [`station`]: one end of traffic, whatever it is; [`sweep`]: datagrams of every size between two of them.
//!
//! Order of declaration matters: values are dropped in reverse, so declare namespaces first, then the switch, then
//! what is attached to it.
//!
//! A minimal test:
//!
//! ```no_run
//! use labsw_tests::{guest::{Guest, Nic}, require::{self, Need}, switch::{Labswd, Site}};
//!
//! if !require::all(&[Need::Root, Need::Labswd, Need::Guest]) {
//!     return;
//! }
//! let site = Site::new("hello");
//! let switch = Labswd::start(&site, r#"
//!     [ports.a]
//!     type = "vhost_user"
//!     [ports.b]
//!     type = "vhost_user"
//! "#);
//! let mut a = Guest::boot("a", "10.1.0.1/24", &Nic::new(switch.vhost_socket("a"), 1));
//! let mut b = Guest::boot("b", "10.1.0.2/24", &Nic::new(switch.vhost_socket("b"), 2));
//! a.ready();
//! b.ready();
//! a.ok("ping -c 3 10.1.0.2");
//! switch.stop();
//! ```
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a test helper reports by panicking")]

pub mod arena;
pub mod attacks;
pub mod browser;
pub mod capture;
pub mod checksum;
pub mod fuzz;
pub mod gateway;
pub mod guest;
pub mod hostile;
pub mod installed;
pub mod iperf;
pub mod lab_host;
pub mod libvirt;
pub mod lxc;
pub mod netns;
pub mod nspawn;
pub mod numbered;
pub mod packet;
pub mod pages;
pub mod process;
pub mod qmp;
pub mod require;
pub mod station;
pub mod sweep;
pub mod switch;
pub mod systemd;
pub mod take_over;
pub mod target;
pub mod testpmd;
pub mod veth_lab;
