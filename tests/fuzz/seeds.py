#!/usr/bin/env python3
"""Writes the seeds of the corpora: inputs made by hand that get each target deep into what it tests.

Run in tests/fuzz. The seeds of `config` are the example files and pieces of them, those of `control` real calls, those
of the others are in the byte formats that the targets in tests/src/fuzz read (see there).
"""
import json
import struct
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).resolve().parent / "corpus"


def seed(target, name, data):
    place = CORPUS / target / f"seed-{name}"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)


def config():
    for path in ["control/examples/lab.toml", "tests/demo/lab.toml"]:
        seed("config", path.replace("/", "-"), (ROOT / path).read_bytes())
    seed("config", "switch", b"[switch]\nworkers = [0x2]\npower = 'performance'\nmac_ageing = '5min'\n"
         b"mac_table_size = 4_096\nsocket_mode = '0600'\nprotected_interfaces = ['eth0']\nhugepages = 'off'\n")
    seed("config", "ports", b"[ports.a]\ntype='af_xdp'\ndevice='name:x'\nmode='skb'\nqueues=1\nmtu=9000\n"
         b"vlan={mode='native-tagged',tag=5,trunks=['1-4',10]}\nlink_local='drop'\n[ports.b]\ntype='veth'\npeer='p'\n"
         b"netns='n'\npeer_name='q'\n[mirrors.m]\nsources=['a:rx']\nto='b'\nsnaplen=64\nvlans=['1-4']\n")
    seed("config", "settings", b"vlan.mode = trunk\nvlan.trunks=[10, \"20-30\"]\nmtu=1500\nlink_local=drop")
    seed("config", "settings-veth", b"peer=p0\nnetns=lab\npeer_name=eth0\nmirror_only=true\nvlan.tag=20")
    seed("config", "settings-xdp", b"device=mac:52:54:00:00:00:01\nmode=zero-copy\nqueues=all")


def control():
    def call(method, parameters=None, interface="org.labsw.Switch1", **flags):
        message = {"method": f"{interface}.{method}", **flags}
        if parameters is not None:
            message["parameters"] = parameters
        return json.dumps(message).encode() + b"\0"

    calls = {
        "status": call("GetStatus"),
        "ports": call("ListPorts", {}) + call("ShowPort", {"name": "dc01"}),
        "vlans": call("ListVlans") + call("ListMirrors") + call("ShowMirror", {"name": "m"}),
        "add": call("AddPort", {"name": "a", "type": "vhost_user", "settings": {"vlan.tag": "20"}}),
        "set": call("SetPort", {"name": "a", "settings": {"mtu": "9000"}}) + call("DeletePort", {"name": "a"}),
        "state": call("SetPortState", {"name": "a", "up": False}),
        "fdb": call("AddFdb", {"vlan": 20, "mac": "52:54:00:00:00:01", "port": "a"})
        + call("DeleteFdb", {"vlan": 20, "mac": "52:54:00:00:00:01"}) + call("FlushFdb", {"port": "a"}),
        "mirror": call("SetMirror", {"name": "m", "sources": ["a", "b:rx"], "vlans": [20], "snaplen": 64, "to": "s"})
        + call("DeleteMirror", {"name": "m"}, oneway=True),
        "service": call("GetInfo", interface="org.varlink.service")
        + call("GetInterfaceDescription", {"interface": "org.labsw.Switch1"}, interface="org.varlink.service"),
        "upgrade": call("GetStatus", upgrade=True),
        "stream": call("GetStats", {"interval_milliseconds": 100}, more=True) + b"\xfft\xffr\xfft" + call("ListPorts")
        + b"\xffq\xfft",
        "stream-ends": call("GetStats", {"port": "gone"}, more=True) + call("ListPorts") + b"\xffr",
        "much": (call("ListFdb", {"vlan": 4094}) * 3 + b"\xffx") * 3 + b"\xffr\xffT\xffT",
        "half": b'{"method":' + b"\xffx\xffT\xffT" + b"\xff1" + call("ListPorts") + b"\xffQ",
        "nonsense": b"GET / HTTP/1.0\r\n\r\n\0" + call("ListPorts"),
        "reply": json.dumps({"uptime_milliseconds": 1, "ports": [{"name": "a", "rx_frames": 1, "rx_bytes": 64,
                             "tx_frames": 0, "tx_bytes": 0, "drops": {"runt": 1}}]}).encode(),
        "reply-fdb": json.dumps({"entries": [{"vlan": 1, "mac": "52:54:00:00:00:01", "port": "a", "static": True,
                                 "age_seconds": 0}], "mirrors": [], "vlans": [], "removed": 3}).encode(),
    }
    for name, data in calls.items():
        seed("control", name, data)


def forward():
    def port(mode=3, tag=0, trunks=0, flags=0, mtu=0):
        return bytes([mode, tag, trunks, flags, mtu])

    def frame(dst, src, shape=0, tags=b"", payload=50, first=b""):
        return bytes([dst, src, shape]) + tags + bytes([payload]) + first

    hello = frame(1, 2) + frame(2, 1) + frame(255 - 40, 1)
    for mode in range(4):
        ports = port(mode) + port(mode, 1, 2) + port(3, 1, 15)
        tagged = frame(1, 2, 2, bytes([7])) + frame(2, 1, 6, bytes([6, 9])) + frame(245, 1)[:1] + frame(245, 1)
        seed("forward", f"mode{mode}", bytes([1]) + ports + b"\0" + (b"\x63\x02" + hello + b"\x10"
             + b"\x64\x02" + tagged + b"\x20") * 3 + b"\x20\x01\x02\x01" + b"\x01\x0b" + b"\x65\x02" + hello + b"\x30")
        mirror = bytes([2, 3, 0, 3, 2, 0]) + bytes([3, 0x3f, 2, 1, 1])
        seed("forward", f"mirror{mode}", bytes([2]) + ports + port() + b"\x02" + mirror
             + (b"\x63\x02" + hello + b"\x10" + b"\x66\x02" + tagged + b"\x11") * 2)


def ring():
    def chain(head, *parts, indirect=False):
        return bytes([6, head, len(parts) - 1 | indirect << 2]) + b"".join(bytes([place, len_]) for place, len_ in parts)

    receive = b"\x0c" + struct.pack("<HB", 0x2050, 4) + b"abcd"
    send = b"\x0c\x03" + b"".join(struct.pack("<BH", fill, length << 4) for fill, length in
                                  [(1, 60), (2, 200), (3, 1500), (4, 90)])
    for features in range(16):
        setup = bytes([features, 0])
        frames = b"".join(chain(4 * i, (4 * i, 12), (4 * i + 1, 200), (4 * i + 2, 60), indirect=bool(features & 2))
                          for i in range(4))
        seed("ring", f"receive-{features}", setup + frames + receive + b"\x0a" + frames + receive + b"\x0b" + receive)
        buffers = b"".join(chain(i, (2 * i, 255), indirect=False) for i in range(20))
        seed("ring", f"send-{features}", bytes([features, 1]) + buffers + send + b"\x0a" + buffers + send)
        wrap = bytes([features | 0x20, 2 | 1 << 2])
        seed("ring", f"wrap-{features}", wrap + (chain(0, (0, 100)) + chain(1, (2, 80)) + receive) * 4)
        anywhere = bytes([features | 0xa0, 0]) + b"".join(struct.pack("<BH", r, at) for r, at in
                                                          [(0, 0), (0, 0x20), (0, 0x30)])
        seed("ring", f"anywhere-{features}", anywhere + chain(0, (0, 100)) + receive)
    # A ring of 512, and chains on either side of what is allowed: descriptors, their lengths, where the chain ends.
    for count, kind, last, times in [(12, 1, 9, 64), (200, 0, 199, 3), (255, 0, 255, 64), (300, 1, 255, 9),
                                     (512, 0, 253, 64), (40, 1, 39, 63)]:
        long = b"\x03" + bytes([last // 2 << 1, times - 1]) + struct.pack("<HBB", count, kind, 3)
        table = b"\x03" + bytes([last // 2 << 1 | 1, times - 1]) + struct.pack("<HBB", count, kind, 3)
        for features in [0x7a, 0x7b]:
            seed("ring", f"long-receive-{features:x}-{count}", bytes([features, 0]) + (long + receive + table + receive) * 2)
            seed("ring", f"long-send-{features:x}-{count}", bytes([features, 1]) + (long + send + table + send) * 2)
    hostile = {
        "loop": bytes([0, 0, 1, 0, 0, 4, 0x40, 0]) + b"\x03\0\0\0\x04\x01",
        "noise": b"\x05" + struct.pack("<HB", 0x1040, 31) + bytes(range(31)) + b"\x04\x05",
        "ran-away": b"\x04\x47",
        "wrong-way": bytes([0, 0, 0, 0, 0, 60, 0x82, 0]) + b"\x03\0\0\0\x04\x01",
    }
    for name, steps in hostile.items():
        for direction in range(2):
            seed("ring", f"{name}-{direction}", bytes([0x0a, direction]) + steps + (receive, send)[direction])


def packed():
    def chain(*parts, number=0, shape=0):
        return bytes([5, len(parts) - 1 | shape, number]) + b"".join(bytes([place, len_]) for place, len_ in parts)

    receive = b"\x0c\x01"
    send = b"\x0c\x03" + b"".join(struct.pack("<BH", fill, length << 4) for fill, length in
                                  [(1, 60), (2, 200), (3, 1500), (4, 90)])
    frames = b"".join(chain((4 * i, 12), (4 * i + 1, 200), (4 * i + 2, 60), number=i, shape=i % 2 << 2)
                      for i in range(4))
    buffers = b"".join(chain((2 * i, 255), number=i) for i in range(12))
    event = [b"\x43" + bytes([place]) for place in (0, 1, 2, 250)]
    for features in range(16):
        for size in (0, 2, 4, 7):
            # Sizes 64, 2, 5 and 33, from a place in the middle of either lap.
            for start in (0, 2 | 4 | 1 << 3):
                setup = features | size << 4
                seed("packed", f"receive-{setup:02x}-{start}", bytes([setup, start])
                     + (frames + receive + b"\x0a" + event[features % 4] + b"\x0b") * 3)
                seed("packed", f"send-{setup:02x}-{start}", bytes([setup, start | 1])
                     + (buffers + send + event[features % 4] + b"\x0b") * 3)
    anywhere = b"".join(struct.pack("<BH", region, at) for region, at in [(0, 0x1000), (0, 0), (1, 0x20)])
    seed("packed", "anywhere", bytes([0xaf, 0]) + anywhere + frames + receive)
    # A ring of 512, and chains on either side of what is allowed.
    for count, kind, last in [(12, 1, 9), (200, 0, 199), (256, 0, 255), (300, 1, 299), (512, 0, 250), (257, 0, 63)]:
        long = b"\x04\0" + struct.pack("<HHBB", last, count, kind, 3)
        table = b"\x04\x01" + struct.pack("<HHBB", last, count, kind, 3)
        for features in [0x6a, 0x6b]:
            for step, name in [(receive, "receive"), (send, "send")]:
                setup = bytes([features, name == "send"])
                seed("packed", f"long-{name}-{features:x}-{count}", setup + long + step * 2 + b"\x0b" + step)
                seed("packed", f"table-{name}-{features:x}-{count}", setup + table + step * 2 + b"\x0b" + step)
    hostile = {
        "flags": b"\x02\0\x81\0\x02\x01\x81\0\x02\x02\x81\x80",
        "descriptor": b"\0\0\0\x05\x80\0\x80\0",
        "noise": b"\x04" + struct.pack("<HB", 0x1040, 31) + bytes(range(31)),
        "meddling": frames + b"\x0c\0" + struct.pack("<HB", 0x1042, 16) + bytes(16),
    }
    for name, steps in hostile.items():
        for direction in range(2):
            seed("packed", f"{name}-{direction}", bytes([0x0f, direction]) + steps + (receive, send)[direction] * 2)


def session():
    def request(code, *words, fds=b"\0", ack=False):
        return bytes([0, code, ack | len(words) << 3]) + b"".join(words) + b"\0" + fds

    def anything(value):
        return b"\xf0" + struct.pack("<Q", value)

    def offer(choice, length, head):
        return bytes([6, choice]) + struct.pack("<HB", length, head)

    def log(choice):
        return bytes([0x8c, choice])

    turn = b"\x0f" + struct.pack("<H", 1500 << 2)
    traffic = b"".join(offer(ring, 200, head) for ring in range(4) for head in range(3))
    for features in [0, 0x08, 0x0a, 0x0c, 0x1f, 0x3f, 0xff, 0x51]:
        choice = features & 0xc0
        some = b"".join(offer(choice | ring, 200, head) for ring in range(4) for head in range(3))
        seed("session", f"start-{features:02x}", bytes([5, features]) + turn + some + turn + turn + b"\x0c")
        # The same with packed rings.
        some = b"".join(bytes([0x86]) + offer(choice | ring, 200, head)[1:] for head in range(3) for ring in range(4))
        seed("session", f"packed-{features:02x}", bytes([0x85, features]) + turn + (some + turn) * 2 + b"\x0c")
    begin = b"\x05\x1f" + turn + traffic + turn
    ring_word = lambda ring, value: bytes([64 + ring]) + struct.pack("<H", value)
    more = {
        "stop": begin + b"".join(request(11, bytes([ring])) for ring in range(4)) + turn + b"\x0c",
        "restart": begin + request(11, b"\x01") + request(12, b"\x01", fds=b"\x81\x06") + traffic + turn,
        "disable": begin + request(18, ring_word(1, 0)) + traffic + turn + request(18, ring_word(1, 1)) + turn,
        "truncate": begin + b"\x09\0\0" + turn + traffic + turn,
        # The log of pages: shared, switched on, the rings' own entries too; truncated; another one; off.
        "log": begin + log(0) + log(4) + b"".join(log(6 | ring << 4) for ring in range(4)) + traffic + turn
        + log(0) + turn + log(5) + traffic + turn + b"\x0c",
        "log-first": b"\x8c\x04" + begin + log(0) + traffic + turn + log(7) + log(0x87) + struct.pack("<Q", 0x525400) + turn,
        "log-truncated": begin + log(0) + log(4) + b"".join(log(6 | ring << 4) for ring in range(4)) + b"\x89\0" + traffic + turn,
        "truncate-used": begin + traffic + b"\x09\x01\0" + turn,
        "reconnect": begin + b"\x0b" + begin + b"\x0b" + turn,
        "regions": begin + request(37, anything(0), anything(1 << 32), b"\xd0", anything(1 << 45), b"\0",
                                   fds=b"\x81\0", ack=True) + turn
        + request(38, anything(0), anything(1 << 32), b"\xd0", anything(1 << 45), b"\0") + traffic + turn,
        # Older QEMU sends the descriptor once more when memory goes.
        "unplug": begin + request(37, anything(0), anything(1 << 32), b"\xd0", anything(1 << 45), b"\0", fds=b"\x81\0")
        + request(38, anything(0), anything(1 << 32), b"\xd0", anything(1 << 45), b"\0", fds=b"\x81\0") + traffic + turn,
        "polled": begin + request(12, anything(0x101)) + request(13, anything(0x100)) + traffic + turn,
        "ask": b"".join(request(code) for code in [1, 15, 17, 36, 3, 4]) + turn + b"\x0c",
        "half": b"\x04\x08\0" + struct.pack("<II", 1, 1) + turn + b"\x0a\x06" + turn,
        "own-socket": b"\x04\x08\x81\x04" + struct.pack("<II", 1, 1) + turn,
        "wrong-kind": begin + request(12, b"\x01", fds=b"\x81\x03") + turn,
        "many": b"\x04\x0c\xff" + bytes(43) + struct.pack("<III", 1, 1, 0) + turn,
        "long": bytes([0, 5, 1, 0xff, 0xff, 0]) + turn,
        "unknown": request(47) + turn + request(20, anything(0)) + turn,
        "noise": begin + b"\x08" + struct.pack("<HB", 0x1000, 63) + bytes(range(1, 64)) + turn + turn,
    }
    for name, data in more.items():
        seed("session", name, data)


def capture():
    """A byte for the size of pieces, then a capture file."""
    frame = bytes(range(60))

    def pcap(order, magic, link, *frames):
        head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
        return head + b"".join(struct.pack(order + "IIII", 7, at, len(f), more + len(f)) + f for at, more, f in frames)

    def block(kind, body, order="<"):
        body += bytes(-len(body) % 4)
        return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)

    def section(order="<"):
        return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)

    def interface(link=1, options=b"", order="<"):
        return block(1, struct.pack(order + "HHI", link, 0, 0) + options, order)

    def enhanced(at, data, number=0, order="<"):
        return block(6, struct.pack(order + "IIIII", number, at >> 32, at & 0xFFFFFFFF, len(data), len(data)) + data, order)

    files = {
        "pcap": pcap("<", 0xA1B2C3D4, 1, (5, 0, frame), (900_000, 0, frame * 20)),
        "pcap-ns-big-endian": pcap(">", 0xA1B23C4D, 1, (5, 0, frame)),
        "pcap-check-sequence": pcap("<", 0xA1B2C3D4, 1 | 1 << 26 | 2 << 28, (5, 0, frame)),
        "pcap-cut": pcap("<", 0xA1B2C3D4, 1, (5, 10, frame)),
        "pcap-runt": pcap("<", 0xA1B2C3D4, 1, (5, 0, frame[:13])),
        "pcap-other-link": pcap("<", 0xA1B2C3D4, 113, (5, 0, frame)),
        "pcap-half": pcap("<", 0xA1B2C3D4, 1, (5, 0, frame))[:-30],
        "pcapng": section() + interface() + enhanced(1 << 40, frame) + block(3, struct.pack("<I", 60) + frame),
        "pcapng-big-endian": section(">") + interface(order=">") + enhanced(1 << 33, frame, order=">"),
        "pcapng-sections": (section() + interface() + enhanced(9, frame)) * 2 + block(0xBAD, b"custom"),
        "pcapng-resolution": section() + interface(options=struct.pack("<HHB3xHHqHH", 9, 1, 0x94, 14, 8, -5, 0, 0))
        + enhanced(1 << 50, frame),
        "pcapng-too-fine": section() + interface(options=struct.pack("<HHB3xHH", 9, 1, 0xFF, 0, 0)) + enhanced(1, frame),
        "pcapng-no-interface": section() + enhanced(1, frame, number=3),
        "pcapng-length-0": section() + interface() + struct.pack("<III", 6, 0, 0) * 4,
        "pcapng-length-huge": section() + interface() + struct.pack("<II", 6, 0xFFFFFFF0) + bytes(64),
        "nothing": b"",
    }
    for number, (name, data) in enumerate(files.items()):
        seed("capture", name, bytes([(0, 1, 7, 255)[number % 4]]) + data)


def frames_of_filters():
    """Lengths in pairs of bytes, and bytes: TCP, a tag before it, ARP, IPv6."""
    macs = bytes.fromhex("020000000002020000000001")
    ip = bytes.fromhex("4500003400004000400600000a0000010a000002") + struct.pack(">HH", 445, 1024) + bytes(60)
    frames = [macs + b"\x08\x00" + ip, macs + b"\x81\x00\x00\x0a\x08\x00" + ip + bytes(100),
              macs + b"\x08\x06" + bytes(46), macs + b"\x86\xdd" + bytes.fromhex("6000000000280640") + bytes(80)]
    return b"".join(bytes([len(f) // 2]) + f[: len(f) // 2 * 2] for f in frames)


def filter_():
    """1, an expression, 0; or 0, a form, a count and instructions of five bytes; then frames."""
    expressions = ["tcp port 445", "not arp and host 10.0.0.1", "vlan 10 and tcp", "ip[2:2] - ((ip[0] & 0xf) << 2) > 20",
                   "len % 7 = 1 or greater 200", "ip6 and tcp port 445", "ether broadcast", "tcp[13] & 2 != 0",
                   "vlan and vlan 20", "portrange 440-450", "(", "host example", "arp and ip", "icmp6", "inbound"]
    for number, text in enumerate(expressions):
        seed("filter", f"expression-{number:02}", b"\1" + text.encode() + b"\0" + frames_of_filters())
    code = {"ldh": 3, "ldb": 4, "ld": 2, "ldx_msh": 12, "ind": 6, "st": 13, "mem": 8, "add": 15, "add_x": 16, "sub": 17,
            "mul": 18, "div": 19, "div_x": 20, "and": 21, "shift": 22, "neg": 23, "mod": 24, "xor": 25, "ja": 26,
            "jeq": 27, "tax": 28, "txa": 29, "len": 10}
    op = lambda name, k=0, jt=0, jf=0: bytes([code[name], jt, jf, k])
    programs = {
        "ethertype": op("ldh", 12) + op("jeq", 8, 0, 1) + op("ldb", 23),
        "arithmetic": op("ldb", 14) + op("tax") + b"".join(op(n, 3) for n in
                                                         ["add", "add_x", "mul", "sub", "div", "xor", "shift", "neg", "mod"])
        + op("st", 5) + op("txa") + op("mem", 5) + op("and", 7) + op("jeq", 4, 0, 0),
        "indexed": op("ldx_msh", 14) + op("ind", 14) + op("jeq", 1, 1, 0) + op("len") + op("div_x"),
        "jumps": op("ja", 2) + op("ld", 0) + op("ld", 4) + op("jeq", 2, 3, 1) + op("neg") * 4,
        "behind": op("ldb", 200) + op("jeq", 0, 1, 0) + op("ld", 126) + op("tax"),
    }
    for name, body in programs.items():
        for form in (0, 1):
            data = bytes([0, form, len(body) // 4]) + body
            seed("filter", f"program-{name}-{form}", data + frames_of_filters())


def offload():
    """A packet (shape, options, flags, sequence, identification, payload), damage, a header, offers."""
    number = 0
    for v6 in (0, 4):
        for large in (0x40, 0x60, 0x20):
            for size in (1460 - 200, 0, 700):
                for damage in (b"\0", b"\1"):
                    shape = v6 | large | number % 3
                    packet = bytes([shape]) + b"\0\x10\x14" * (shape % 3) + bytes([2]) * (2 if v6 == 0 else 1)
                    packet += bytes([0x18]) + struct.pack("<IHH", 1 << 31, 0xFFFE, 8000 + number)
                    hurt = struct.pack("<HB", 12 + number, 0x45) if damage == b"\1" else b""
                    seed("offload", f"packet-{number:02}", packet + damage + b"\0" + struct.pack("<H", size) + hurt + b"\1")
                    number += 1
    for v6, shape in ((0, 0x30), (4, 0x54), (0, 0x78), (4, 0x3c)):
        options = {0x30: b"\2\2", 0x54: b"\2", 0x78: b"\2", 0x3c: b""}[shape]
        packet = bytes([shape]) + options + bytes([0]) + struct.pack("<IHH", 0, 0xFFFE, 8000 + shape)
        for size in (1260, 0):
            seed("offload", f"datagrams-{shape:02x}-{size}", packet + b"\0\0" + struct.pack("<H", size) + b"\1")
    checksum = bytes.fromhex("01002800000022001000")
    frame = bytes.fromhex("0200000000020200000000010800") + bytes.fromhex("45000050000040004006000001020304 05060708")
    seed("offload", "bytes", b"\xf0" + struct.pack("<H", 94) + frame + bytes(60) + b"\0\xff\0\0" + checksum + b"\1")
    seed("offload", "at-the-addresses", b"\xf0" + struct.pack("<H", 94) + frame + bytes(60) + b"\0\xff\0\0"
         + bytes.fromhex("0100000000000c000000") + b"\1")


def work():
    """Shape, descriptors, where to look, and descriptors of a kind."""
    kinds = {"plain": b"\x40", "chain": b"\x21\x04", "empty": b"\x01", "endless": b"\x11" * 60 + b"\x41",
             "indirect": b"\x34\xff\x21\x08", "tiny": b"\x23\x0c" * 30, "large": b"\x50\x53",
             "back": b"\x49\xfe\xff\x41"}
    for shape in (0b11111_0_11, 0b11111_1_11, 0b01111_0_11, 0b01111_1_11, 0b01001_1_01, 0b01000_0_10):
        for name, body in kinds.items():
            write = body.translate(bytes(b | 2 if b & 0x80 == 0 else b for b in range(256))) if shape & 4 else body
            data = bytes([shape, max(len(body) - 1, 0), 1, 0, 0]) + write + b"\0\1\2\3\0\1"
            seed("work", f"{name}-{shape:02x}", data)


config()
control()
forward()
ring()
packed()
session()
capture()
filter_()
offload()
work()
