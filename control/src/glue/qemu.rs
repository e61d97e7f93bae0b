//! Command lines of QEMU and of cloud-hypervisor.

use super::{Options, Plug, RING_SIZE, Socket, quote};

/// The first version of QEMU whose chardev takes `reconnect-ms`; 9.2 removes `reconnect`, in seconds.
pub(super) const RECONNECT_MS: (u32, u32) = (9, 2);

/// The options of QEMU, one device or object a line, to paste into a command line.
pub(super) fn text(socket: &Socket<'_>, options: &Options) -> String {
    let mut text = String::new();
    match &socket.plug {
        Plug::Socket { switch_listens, queue_pairs, .. } => {
            text += &format!("# Port {} (vhost_user, {} listens).\n", socket.port, listener(*switch_listens));
            text += "# -m and size are the guest's memory, which has to be shared (once a guest); for huge pages add hugetlb=on behind share=on.\n";
            if *queue_pairs > 1 {
                text += &format!("# {queue_pairs} queue pairs: give the guest as many processors (-smp).\n");
            }
            if *switch_listens && options.qemu_version >= RECONNECT_MS {
                text += "# Before QEMU 9.2: reconnect=1 in place of reconnect-ms=500 (labsw-ctl guest … --qemu-version 7.2).\n";
            }
        }
        _ => text += &format!("# Port {} (tap).\n", socket.port),
    }
    text + &joined(&words(socket, options))
}

fn listener(switch_listens: bool) -> &'static str {
    if switch_listens { "the switch" } else { "QEMU" }
}

/// Pairs of an option and its value.
pub(super) fn words(socket: &Socket<'_>, options: &Options) -> Vec<[String; 2]> {
    let mut words = memory(socket, options);
    words.extend(device(socket, options));
    words
}

/// The guest's memory, if it has to be shared.
fn memory(socket: &Socket<'_>, options: &Options) -> Vec<[String; 2]> {
    let Plug::Socket { .. } = socket.plug else { return Vec::new() };
    let size = quote::qemu(&options.memory);
    let words = [
        ["-m", size.as_str()],
        ["-object", &format!("memory-backend-memfd,id=mem,size={size},share=on")],
        ["-numa", "node,memdev=mem"],
    ];
    words.map(|pair| pair.map(str::to_owned)).to_vec()
}

/// The network device.
pub(super) fn device(socket: &Socket<'_>, options: &Options) -> Vec<[String; 2]> {
    let Socket { port, mac, .. } = socket;
    match &socket.plug {
        Plug::Socket { path, switch_listens, queue_pairs } => {
            let mut chardev = format!("socket,id=chr-{port},path={}", quote::qemu(path));
            chardev += match (switch_listens, options.qemu_version >= RECONNECT_MS) {
                (true, true) => ",reconnect-ms=500",
                (true, false) => ",reconnect=1",
                (false, _) => ",server=on,wait=off",
            };
            let mut netdev = format!("vhost-user,id=net-{port},chardev=chr-{port}");
            let mut device = format!("virtio-net-pci,netdev=net-{port},mac={mac}");
            device += &format!(",rx_queue_size={RING_SIZE},tx_queue_size={RING_SIZE}");
            if *queue_pairs > 1 {
                netdev += &format!(",queues={queue_pairs}");
                // One vector for each ring, one for changes of the configuration, one for the control queue.
                device += &format!(",mq=on,vectors={}", 2 * queue_pairs + 2);
            }
            if let Some(mtu) = socket.unusual_mtu() {
                device += &format!(",host_mtu={mtu}");
            }
            vec![
                ["-chardev", &chardev].map(str::to_owned),
                ["-netdev", &netdev].map(str::to_owned),
                ["-device".to_owned(), device],
            ]
        }
        Plug::Tap { interface } | Plug::Veth { peer: interface } => {
            let interface = quote::qemu(interface);
            let netdev = format!("tap,id=net-{port},ifname={interface},script=no,downscript=no");
            let device = format!("e1000e,netdev=net-{port},mac={mac}");
            vec![["-netdev", &netdev].map(str::to_owned), ["-device", &device].map(str::to_owned)]
        }
    }
}

/// The options of cloud-hypervisor.
pub(super) fn cloud_hypervisor(socket: &Socket<'_>, options: &Options) -> String {
    let Socket { port, mac, .. } = socket;
    let mtu = socket.unusual_mtu().map(|mtu| format!(",mtu={mtu}")).unwrap_or_default();
    match &socket.plug {
        Plug::Socket { path, switch_listens, queue_pairs } => {
            let mode = if *switch_listens { "client" } else { "server" };
            let path = quote::cloud_hypervisor(path);
            let queues = 2 * queue_pairs;
            let mut text = format!(
                "# Port {port} (vhost_user, {} listens). The guest's memory has to be shared.\n",
                if *switch_listens { "the switch" } else { "cloud-hypervisor" }
            );
            if *queue_pairs > 1 {
                text += &format!(
                    "# {queue_pairs} queue pairs: give the guest as many processors (--cpus boot={queue_pairs}).\n"
                );
            }
            text += "# cloud-hypervisor gives a switch that is restarted 60 seconds to come back.\n";
            let net = format!(
                "vhost_user=on,socket={path},vhost_mode={mode},mac={mac},num_queues={queues},queue_size={RING_SIZE}{mtu}"
            );
            let memory = format!("size={},shared=on", options.memory);
            text + &joined(&[["--memory".to_owned(), memory], ["--net".to_owned(), net]])
        }
        Plug::Tap { interface } | Plug::Veth { peer: interface } => {
            let interface = quote::cloud_hypervisor(interface);
            let net = format!("tap={interface},mac={mac},offload_tso=off,offload_ufo=off,offload_csum=off{mtu}");
            format!("# Port {port} (tap). Offloads are off: frames from there have to be finished.\n")
                + &joined(&[["--net".to_owned(), net]])
        }
    }
}

/// A command line with one option a line.
fn joined(words: &[[String; 2]]) -> String {
    let lines: Vec<String> = words.iter().map(|pair| format!("  {} {}", pair[0], quote::shell(&pair[1]))).collect();
    lines.join(" \\\n") + "\n"
}
