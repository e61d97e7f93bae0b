#!/usr/bin/env python3
"""TCP and small UDP frames of emulated guests and a container, side by side: labsw, the Linux bridge and Open vSwitch.

Two QEMU guests and a network namespace on one switch, iperf3 between them; Gbit/s of TCP, or thousands of UDP datagrams
a second that make frames of 64 bytes with their FCS, as the receiver counts. The peers take turns. Every switch is
started anew in every round, forwards in one round and backwards in the next, so that only ratios of one run count.
Nothing is pinned but the switches' polling threads: what a switch takes of the machine, its guests miss.

Peers: labsw, bridge (TAP interfaces without vhost), ovs (DPDK datapath as it comes, so without TSO: vhost-user, AF_XDP
on the veth). With `-refused` behind the name the guests' NICs offer no checksum and segmentation offload, and the
container's end has none.
Cells: FROM-TO of g0, g1 (guests) and c (the container); FROM-TO/64 for small frames, sent as fast as the sender can.

Start-up of the peers and their clean-up are the peer benchmark's own (`vhost_l2.py`, in LABSW_PEER_BENCH); guest kernel
and initramfs are the tests' (`tests/setup-debian.sh`, in LABSW_CACHE). Needs root.
"""
import argparse, json, os, select, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.environ.get('LABSW_PEER_BENCH') or os.path.join(HERE, '../../shared/bench'))
from vhost_l2 import OVSD, WORK, hugepages, is_sock, spawn, stop, wait_for  # noqa: E402

CACHE = os.environ.get('LABSW_CACHE', '/var/cache/labsw')
ACCEL = os.environ.get('LABSW_QEMU_ACCEL', 'tcg')
# Emulation does string instructions byte by byte: without these two features guests copy with others.
CPU = 'max,-erms,-fsrm'
S, C = f'lgt{os.getpid()}s', f'lgt{os.getpid()}c'  # the namespaces of the switch and the container
REFUSED = ','.join(f'{f}=off' for f in (
    'csum', 'gso', 'guest_csum', 'guest_tso4', 'guest_tso6', 'guest_ecn', 'guest_ufo', 'host_tso4', 'host_tso6', 'host_ecn', 'host_ufo'))
ADDRESS = {'g0': '10.9.0.1', 'g1': '10.9.0.2', 'c': '10.9.0.3'}


def sh(*command, netns=None, check=True):
    inside = ['ip', 'netns', 'exec', netns] if netns else []
    return subprocess.run([*inside, *command], check=check, capture_output=True, text=True, timeout=60).stdout


class Guest:
    """A guest with a shell on its serial line."""

    def __init__(self, n, netdev, refused, log):
        device = f'virtio-net-pci,netdev=n,mac=52:54:00:00:09:{n:02x},rx_queue_size=1024' + (f',{REFUSED}' if refused else '')
        append = f'console=ttyS0 quiet tsc=reliable mitigations=off random.trust_cpu=on lab.ip={ADDRESS[f"g{n}"]}/24'
        command = ['ip', 'netns', 'exec', S, 'qemu-system-x86_64', '-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio',
                   '-accel', ACCEL, '-cpu', 'host' if ACCEL == 'kvm' else CPU, '-machine', 'pc', '-m', '192M', '-smp', '1',
                   '-object', 'memory-backend-memfd,id=mem,size=192M,share=on', '-numa', 'node,memdev=mem',
                   '-kernel', f'{CACHE}/vmlinuz', '-initrd', f'{CACHE}/initramfs.cpio', '-append', append,
                   *netdev, '-device', device]
        self.text, self.commands, self.log = '', 0, log
        self.process = spawn(command, log, stdin=subprocess.PIPE, nice=0, out=subprocess.PIPE)

    def until(self, mark, seconds):
        """What was printed up to `mark`."""
        end = time.time() + seconds
        while mark not in self.text:
            if not select.select([self.process.stdout], [], [], max(0, end - time.time()))[0]:
                raise RuntimeError(f'a guest does not answer; its last words: {self.text[-400:]!r}')
            read = os.read(self.process.stdout.fileno(), 65536).decode(errors='replace')
            if not read:
                raise RuntimeError(f'QEMU has ended: {open(self.log).read()[-400:]}')
            self.text += read
        before, self.text = self.text.split(mark, 1)
        return before

    def ready(self):
        self.until('GUEST-READY', 240)
        self.run('stty -echo; PS1= PS2=')

    def run(self, command, seconds=90):
        self.commands += 1
        # The quotes keep the mark out of an echo of the command itself.
        os.write(self.process.stdin.fileno(), f"{{ {command}\n}} 2>&1; echo @@{self.commands}''@@\n".encode())
        return self.until(f'@@{self.commands}@@', seconds)


class Labsw:
    """Guests at sockets that the switch listens on."""

    def __init__(self, directory):
        self.d, self.processes = directory, []

    def begin(self):
        script = os.path.join(HERE, 'peer-labswd.sh')
        command = ['ip', 'netns', 'exec', S, script, self.d, '0', f'{self.d}/g0.sock', f'{self.d}/g1.sock', 's0']
        self.processes.append(spawn(command, f'{self.d}/switch.log', env={'POWER': 'adaptive'}, nice=0))
        wait_for(lambda: is_sock(f'{self.d}/g1.sock'), what='labswd; see ' + self.d)

    def netdev(self, n):
        return ['-chardev', f'socket,id=c,path={self.d}/g{n}.sock', '-netdev', 'vhost-user,id=n,chardev=c,vhostforce=on']

    def end(self):
        for process in reversed(self.processes):
            stop(process)


class Bridge(Labsw):
    """Guests at TAP interfaces; QEMU itself reads and writes them."""

    def begin(self):
        sh('ip', 'link', 'add', 'br0', 'type', 'bridge', netns=S)
        for n in range(2):
            sh('ip', 'tuntap', 'add', f't{n}', 'mode', 'tap', 'vnet_hdr', netns=S)
        for port in ('t0', 't1', 's0'):
            sh('ip', 'link', 'set', port, 'master', 'br0', 'up', netns=S)
        sh('ip', 'link', 'set', 'br0', 'up', netns=S)

    def netdev(self, n):
        return ['-netdev', f'tap,id=n,ifname=t{n},script=no,downscript=no,vhost=off']


class Ovs(Labsw):
    """Guests at sockets that QEMU listens on."""

    def begin(self):
        d, env = self.d, dict(OVS_RUNDIR=self.d, OVS_LOGDIR=self.d, OVS_DBDIR=self.d)
        vsctl = lambda *a: subprocess.run(['ovs-vsctl', f'--db=unix:{d}/db.sock', *a], env={**os.environ, **env}, check=True, capture_output=True, timeout=60)
        subprocess.run(['ovsdb-tool', 'create', f'{d}/conf.db', '/usr/share/openvswitch/vswitch.ovsschema'], check=True)
        database = ['ovsdb-server', f'{d}/conf.db', f'--remote=punix:{d}/db.sock', f'--unixctl={d}/db.ctl']
        self.processes.append(spawn(database, f'{d}/ovsdb.log', env=env))
        wait_for(lambda: is_sock(f'{d}/db.sock'), what='ovsdb')
        vsctl('--no-wait', 'init')
        vsctl('--no-wait', 'set', 'Open_vSwitch', '.', 'other_config:dpdk-init=true', 'other_config:dpdk-socket-mem=512',
              'other_config:dpdk-extra=--in-memory --no-pci --no-telemetry --file-prefix=ovs', 'other_config:pmd-cpu-mask=0x1',
              'other_config:dpdk-lcore-mask=0x2')
        daemon = [OVSD, f'unix:{d}/db.sock', f'--unixctl={d}/vs.ctl', '-vconsole:info', '-vsyslog:off']
        self.processes.append(spawn(['ip', 'netns', 'exec', S, *daemon], f'{d}/switch.log', env=env, nice=0))
        vsctl('add-br', 'br0', '--', 'set', 'bridge', 'br0', 'datapath_type=netdev')
        for n in range(2):
            vsctl('add-port', 'br0', f'g{n}', '--', 'set', 'interface', f'g{n}', 'type=dpdkvhostuserclient', f'options:vhost-server-path={d}/g{n}.sock')
        vsctl('add-port', 'br0', 's0', '--', 'set', 'interface', 's0', 'type=afxdp')

    def netdev(self, n):
        return ['-chardev', f'socket,id=c,path={self.d}/g{n}.sock,server=on,wait=off', '-netdev', 'vhost-user,id=n,chardev=c,vhostforce=on']


PEERS = {'labsw': Labsw, 'bridge': Bridge, 'ovs': Ovs}


def measure(name, cells, seconds):
    """Gbit/s of each cell."""
    kind, _, refused = name.partition('-')
    directory = tempfile.mkdtemp(prefix='gt-', dir=WORK)
    switch, guests, found = PEERS[kind](directory), [], {}
    try:
        for netns in (S, C):
            sh('ip', 'netns', 'add', netns)
            sh('sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1', netns=netns, check=False)
        sh('ip', 'link', 'add', 's0', 'netns', S, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', C)
        sh('ip', 'addr', 'add', ADDRESS['c'] + '/24', 'dev', 'eth0', netns=C)
        if kind != 'bridge' or refused:
            # A switch at an AF_XDP socket would see unfinished checksums.
            sh('ethtool', '-K', 'eth0', 'tx', 'off', 'tso', 'off', 'gso', 'off', netns=C)
        for netns, end in ((S, 's0'), (C, 'eth0')):
            sh('ip', 'link', 'set', end, 'up', netns=netns)
        switch.begin()
        guests = [Guest(n, switch.netdev(n), bool(refused), f'{directory}/g{n}.log') for n in range(2)]
        for guest in guests:
            guest.ready()
        run = {'g0': guests[0].run, 'g1': guests[1].run, 'c': lambda command: sh('sh', '-c', command, netns=C, check=False)}
        for cell in cells:
            path, _, small = cell.partition('/')
            source, sink = path.split('-')
            how = '-u -l 18 -b 0' if small else '-O 1'
            run[sink]('iperf3 -s -1 -D >/dev/null 2>&1')
            time.sleep(1)
            said = run[source](f'iperf3 -c {ADDRESS[sink]} -t {seconds} {how} --connect-timeout 10000 -J')
            try:
                report = json.loads(said[said.index('{'):said.rindex('}') + 1])
                end = report['end']
                if small:
                    total = end['sum']
                    found[cell] = (total['packets'] - total['lost_packets']) / total['seconds'] / 1e3
                else:
                    found[cell] = end['sum_received']['bits_per_second'] / 1e9
            except (ValueError, KeyError):
                raise RuntimeError(f'{cell}: iperf3 said {said[-300:]!r}') from None
            print(f'  {name:16s} {cell:8s} {found[cell]:.3f} {"kpps" if small else "Gbit/s"}', flush=True)
    except Exception as error:  # one switch that fails is no reason to lose the others' figures
        print(f'! {name}: {error}; logs in {directory}', file=sys.stderr)
    finally:
        for guest in guests:
            stop(guest.process)
        switch.end()
        for netns in (S, C):
            subprocess.run(['ip', 'netns', 'del', netns], capture_output=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peer', action='append', default=[], help='more peers than those of the set')
    parser.add_argument('--peers', default='labsw,labsw-refused,bridge,bridge-refused,ovs')
    parser.add_argument('--cells', default='g0-g1,c-g0,g0-c,c-g0/64,g0-c/64')
    parser.add_argument('--seconds', type=int, default=3)
    parser.add_argument('--reps', type=int, default=2)
    parser.add_argument('--json')
    options = parser.parse_args()
    os.makedirs(WORK, exist_ok=True)
    peers, cells = [*options.peers.split(','), *options.peer], options.cells.split(',')
    if any(peer.startswith('ovs') for peer in peers):
        hugepages(1024)
    results = {peer: {cell: [] for cell in cells} for peer in peers}
    for rep in range(options.reps):
        print(f'# round {rep + 1} of {options.reps}', flush=True)
        for peer in peers[::-1] if rep % 2 else peers:
            for cell, value in measure(peer, cells, options.seconds).items():
                results[peer][cell].append(value)
        if options.json:
            json.dump(results, open(options.json, 'w'), indent=1)
    print('\nGbit/s (cells/64: kpps), median [worst-best], and the first peer divided by each')
    for cell in cells:
        base = results[peers[0]][cell]
        for peer in peers:
            values = results[peer][cell]
            if values:
                middle = statistics.median(values)
                ratio = f'{statistics.median(base) / middle:.2f}' if base and middle else '-'
                print(f'{cell:8s} {peer:16s} {middle:7.3f} [{min(values):.3f}-{max(values):.3f}] {ratio:>6s}')


if __name__ == '__main__':
    main()
