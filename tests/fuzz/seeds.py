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


config()
control()
forward()
ring()
packed()
session()
