#!/usr/bin/env python3
"""An impairment's rate beside the kernel's: iperf3 TCP between two namespaces through labsw with `rate`, and through a
Linux bridge with a tbf qdisc of the same rate; Mbit/s as the receiver counts, and how evenly they come (the spread of
100-ms intervals).

The peers take turns. Needs root, iperf3, tc, and labswd and labsw-ctl in LABSW_BIN_DIR. (Other impairments have no peer
where the kernel lacks netem.)
usage: impair_rate.py [--rate MBIT] [--seconds N] [--reps N]
"""
import argparse, json, os, statistics, subprocess, tempfile, time

BIN = os.environ.get('LABSW_BIN_DIR') or os.path.join(os.path.dirname(os.path.abspath(__file__)), '../target/release')
S, A, B = (f'lir{os.getpid()}{x}' for x in 'sab')


def sh(*command, ns=None, check=True):
    inside = ['ip', 'netns', 'exec', ns] if ns else []
    return subprocess.run([*inside, *command], check=check, capture_output=True, text=True, timeout=120).stdout


def addresses():
    for ns, last in ((A, 1), (B, 2)):
        sh('ip', '-n', ns, 'addr', 'add', f'10.8.0.{last}/24', 'dev', 'eth0')
        sh('ip', '-n', ns, 'link', 'set', 'eth0', 'up')


def labsw(rate, run):
    with tempfile.TemporaryDirectory() as d:
        ports = ''.join(f'[ports.{n}]\ntype = "veth"\npeer = "ls-{n}"\nnetns = "{ns}"\npeer_name = "eth0"\n' for n, ns in (('a', A), ('b', B)))
        impair = f'[impair.b]\nrate = "{rate}mbit"\ndirection = "tx"\n'
        with open(f'{d}/lab.toml', 'w') as file:
            file.write(f'[switch]\ncontrol_socket = "{d}/control.sock"\nvhost_user_dir = "{d}"\n{ports}{impair}')
        switch = subprocess.Popen(['ip', 'netns', 'exec', S, f'{BIN}/labswd', '--config', f'{d}/lab.toml'], stderr=subprocess.DEVNULL)
        try:
            for _ in range(100):
                if 'eth0' in sh('ip', '-n', B, '-br', 'link') and os.path.exists(f'{d}/control.sock'):
                    break
                time.sleep(0.1)
            time.sleep(0.5)
            addresses()
            return run()
        finally:
            switch.terminate()
            switch.wait(20)


def tbf(rate, run):
    sh('ip', '-n', S, 'link', 'add', 'name', 'br0', 'type', 'bridge')
    sh('ip', '-n', S, 'link', 'set', 'br0', 'up')
    for n, ns in (('a', A), ('b', B)):
        sh('ip', '-n', S, 'link', 'add', f'v{n}', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', ns)
        sh('ip', '-n', S, 'link', 'set', f'v{n}', 'master', 'br0', 'up')
        sh('ethtool', '-K', 'eth0', 'tso', 'off', 'gso', 'off', ns=ns)
    sh('tc', 'qdisc', 'add', 'dev', 'vb', 'root', 'tbf', 'rate', f'{rate}mbit', 'burst', '15k', 'latency', '50ms', ns=S)
    addresses()
    try:
        return run()
    finally:
        for link in ('va', 'vb', 'br0'):
            sh('ip', '-n', S, 'link', 'del', link)


def measure(seconds):
    server = subprocess.Popen(['ip', 'netns', 'exec', B, 'iperf3', '-s', '-1', '-J', '-i', '0.1'], stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    sh('iperf3', '-c', '10.8.0.2', '-t', str(seconds), '-O', '1', ns=A)
    report = json.loads(server.communicate(timeout=60)[0])
    intervals = [part['sum']['bits_per_second'] / 1e6 for part in report['intervals'] if part['sum']['start'] > 1.5][:-1]
    mean = report['end']['sum_received']['bits_per_second'] / 1e6
    return mean, statistics.pstdev(intervals)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument('--rate', type=int, default=10)
    options.add_argument('--seconds', type=int, default=8)
    options.add_argument('--reps', type=int, default=2)
    options = options.parse_args()
    results = {'labsw': [], 'bridge+tbf': []}
    try:
        for round_ in range(options.reps):
            peers = [('labsw', labsw), ('bridge+tbf', tbf)]
            for name, peer in peers if round_ % 2 == 0 else reversed(peers):
                for ns in (S, A, B):
                    sh('ip', 'netns', 'add', ns)
                    sh('ip', '-n', ns, 'link', 'set', 'lo', 'up')
                try:
                    results[name].append(peer(options.rate, lambda: measure(options.seconds)))
                finally:
                    for ns in (S, A, B):
                        sh('ip', 'netns', 'del', ns, check=False)
                print(f'  {name:12} {results[name][-1][0]:.3f} Mbit/s, spread {results[name][-1][1]:.2f}', flush=True)
    finally:
        for ns in (S, A, B):
            sh('ip', 'netns', 'del', ns, check=False)
    for name, runs in results.items():
        print(f'{name:12} {statistics.median(run[0] for run in runs):.3f} of {options.rate} Mbit/s, spread of 100 ms {statistics.median(run[1] for run in runs):.2f}')


if __name__ == '__main__':
    main()
