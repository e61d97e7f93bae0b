//! Expressions, run by the switch and by libpcap's own interpreter; and what is no expression.

use labsw_switch::filter::{Form, Frame};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use rustix::time::{ClockId, clock_gettime};

use super::words::Words;
use super::*;

/// Expressions that people write, and one of each construct of the language.
const EXPRESSIONS: [&str; 50] = [
    "tcp port 445",
    "tcp port 445 or arp",
    "arp",
    "ip",
    "ip6",
    "not ip",
    "icmp",
    "icmp6",
    "udp port 53",
    "port ssh or telnet",
    "tcp dst port 80",
    "tcp src port 80 and dst net 10.0.0.0/8",
    "portrange 440-450",
    "host 10.0.0.1",
    "src host 10.0.0.1 and not dst host 10.0.0.2",
    "net 10.0.0.0/24",
    "src net 10.0.0.0 mask 255.0.0.0",
    "host fd00::1",
    "net fd00::/16",
    "ip6 and tcp port 445",
    "ether host 02:00:00:00:00:01",
    "ether src 02-00-00-00-00-02",
    "ether dst 020000000001",
    "ether broadcast",
    "ether multicast",
    "ip multicast",
    "ip6 multicast",
    "ether proto 0x88cc",
    "ether proto \\arp",
    "ip proto 89",
    "ip proto \\tcp",
    "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
    "tcp[13] = 2",
    "icmp[icmptype] == icmp-echo",
    "icmp6[icmp6type] == icmp6-neighborsolicit",
    "ip[0] & 0xf != 5",
    "ip[6:2] & 0x1fff != 0",
    "ip[2:2] - ((ip[0] & 0xf) << 2) > 20",
    "(len - 14) % 7 = 1",
    "ip[16] * 2 / 3 ^ 5 | 1 > 40",
    "ether[0] & 1 = 0 and ip[16] >= 224",
    "ip[0] / ip[1] > 3",
    "greater 200",
    "less 70",
    "len >= 128",
    "vlan",
    "vlan 10",
    "vlan and tcp port 445",
    "(vlan and arp) or ip6",
    "vlan 10 and vlan 20",
];

/// Frames of the kinds that the expressions speak of, with up to two tags, cut anywhere.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let mac = prop::sample::select(&[[2u8, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [255; 6], [1, 0, 94, 0, 0, 251]][..]);
    let tag = (prop::sample::select(&[0x8100u16, 0x88a8][..]), prop::sample::select(&[10u16, 20, 0xe00a][..]));
    let ethertype =
        prop_oneof![4 => Just(0x0800u16), 4 => Just(0x86dd), 2 => Just(0x0806), 1 => Just(0x88cc), 1 => any::<u16>()];
    let protocol = prop::sample::select(&[6u8, 6, 17, 1, 58, 89, 0][..]);
    let port = prop::sample::select(&[22u16, 53, 80, 445, 445, 0x0800, 0x8700][..]);
    let host =
        prop::sample::select(&[[10u8, 0, 0, 1], [10, 0, 0, 2], [192, 168, 0, 1], [224, 0, 0, 251], [255; 4]][..]);
    let header = (mac.clone(), mac, prop::collection::vec(tag, 0..3), ethertype);
    let ip = (
        prop::sample::select(&[5u8, 5, 6, 15][..]),
        protocol,
        host.clone(),
        host,
        prop_oneof![3 => Just(0u16), 1 => any::<u16>()],
    );
    let rest = (port.clone(), port, prop::collection::vec(prop_oneof![any::<u8>(), Just(2)], 64..400), any::<u8>());
    (header, ip, rest).prop_map(
        |((dst, src, tags, ethertype), (ihl, protocol, from, to, fragment), (sport, dport, data, cut))| {
            let mut bytes = [dst, src].concat();
            for (tpid, tci) in tags {
                bytes.extend_from_slice(&[tpid.to_be_bytes(), tci.to_be_bytes()].concat());
            }
            bytes.extend_from_slice(&ethertype.to_be_bytes());
            if ethertype == 0x86dd {
                let first = |host: [u8; 4]| if host[0] >= 224 { 0xff } else { 0xfd };
                let address = |host: [u8; 4]| [&[first(host), 0, 0, 0][..], &[0; 8], &[0, 0, 0, host[3]]].concat();
                bytes.extend_from_slice(&[0x60, 0, 0, 0, 0, 40, protocol, 64]);
                bytes.extend_from_slice(&[address(from), address(to)].concat());
            } else {
                let [high, low] = fragment.to_be_bytes();
                bytes.extend_from_slice(&[0x40 | ihl, 3, 0, 100, 0, 0, high, low, 64, protocol, 0, 0]);
                bytes.extend_from_slice(&[from, to].concat());
            }
            bytes.extend_from_slice(&[sport.to_be_bytes(), dport.to_be_bytes()].concat());
            bytes.extend_from_slice(&data);
            // Most frames are whole.
            bytes.truncate(if cut < 64 { 18 + usize::from(cut) } else { bytes.len() });
            bytes
        },
    )
}

/// The frame without its outer tag.
fn untagged(frame: &[u8]) -> Vec<u8> {
    let is_tagged = matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]);
    if is_tagged { [&frame[..12], &frame[16..]].concat() } else { frame.to_vec() }
}

/// Every expression selects what libpcap's interpreter selects with it, out of 1000 frames, and some but not all of
/// them.
#[test]
fn an_expression_selects_what_it_selects_in_libpcap() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let frames: Vec<Vec<u8>> = (0..1000).map(|_| frame().new_tree(&mut runner).unwrap().current()).collect();
    let mut idle = Vec::new();
    for expression in EXPRESSIONS {
        let filter = compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(filter.form() == Form::Tagged, expression.contains("vlan"), "{expression}");
        let program = libpcap::compile(expression).unwrap();
        let mut selected = 0;
        for frame in &frames {
            let seen = if filter.form() == Form::Tagged { frame.clone() } else { untagged(frame) };
            let expected = libpcap::reference(&program, &seen, u32::try_from(seen.len()).unwrap());
            assert_eq!(filter.run(&Frame::whole(frame)), expected, "{expression}: {frame:02x?}");
            selected += u32::from(expected != 0);
        }
        if selected == 0 || selected == 1000 {
            idle.push(expression);
        }
    }
    assert_eq!(idle, [""; 0], "select all or nothing, so they show nothing");
}

#[test]
fn what_is_no_filter_is_refused_in_one_line() {
    let message = |expression: &str| {
        let message = compile(expression).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message:?}");
        message
    };
    assert_eq!(message(" \t"), "the expression is empty; leave the filter out for all frames");
    assert_eq!(message(&format!("tcp port {:3000}", 1)), "the expression has 3009 bytes; at most 2048 are allowed");
    assert_eq!(message("tcp port 44\0"), "character '\\0' can't stand in an expression");
    assert_eq!(message("tcp pört 44"), "character 'ö' can't stand in an expression");
    assert!(message("tcp port").contains("syntax error"), "{}", message("tcp port"));
    assert!(message("(tcp").contains("syntax error"));
    assert!(message("port nosuchport").contains("unknown port 'nosuchport'"));
    assert!(message("tcp port 70000").contains("70000"), "{}", message("tcp port 70000"));
    assert!(message("arp and ip").contains("rejects all packets"));
    assert!(message("ip6 protochain 6").contains("protochain"), "{}", message("ip6 protochain 6"));
    assert!(message("inbound").contains("only captures on an interface have"), "{}", message("inbound"));
    assert!(message("tcp prot 445").starts_with(
        "\"prot\" is no word of the filter language (did you mean port or proto?), and names of hosts and networks"
    ));
    assert_eq!(
        message("host dc01"),
        "\"dc01\" is no word of the filter language, and names of hosts and networks are not looked up; write the address"
    );
}

/// No word gets to a resolver, whatever stands around it.
#[test]
fn names_that_a_resolver_would_be_asked_for_are_found() {
    let name = |expression: &str| Words::of(expression).name;
    for expression in EXPRESSIONS {
        assert_eq!(name(expression), None, "{expression}");
    }
    for (expression, found) in [
        ("host a.example", "a.example"),
        ("port ssh or src a.example", "a.example"),
        ("port ssh and host ftp", "ftp"),
        ("net lab", "lab"),
        ("ether host gw", "gw"),
        ("host fade:zz", "fade"),
        ("host 1.2.3.4.5", "1.2.3.4.5"),
        ("host 10.", "10."),
        ("host \\tcp", "\\tcp"),
        ("host TCP", "TCP"),
        ("(dst(foo))", "foo"),
        ("tcp[foo:1] = 2", "foo"),
        ("len-14 = 2", "len-14"),
        ("host fe80::1%eth0", "eth0"),
        ("gateway gw", "gateway"),
        ("on eth0", "on"),
        ("0x", "0x"),
    ] {
        assert_eq!(name(expression).as_deref(), Some(found), "{expression}");
    }
    for expression in ["port ssh or (telnet and not ftp)", "portrange ftp-ssh", "ip proto ospf", "ether proto \\ip"] {
        assert_eq!(name(expression), None, "{expression}");
    }
    assert!(Words::of("(vlan)").says_vlan && !Words::of("port vlan-gw").says_vlan);
}

#[test]
fn the_longest_list_of_hosts_compiles_soon() {
    let mut list = "host 10.0.0.1".to_owned();
    for host in 2.. {
        let more = format!(" or 10.0.{}.{}", host / 200, host % 200);
        if list.len() + more.len() > MAX_BYTES {
            break;
        }
        list.push_str(&more);
    }
    // The thread's own time: others on the machine do not count.
    let spent = || std::time::Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let before = spent();
    assert!(compile(&list).is_ok());
    let took = spent() - before;
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
}

proptest! {
    /// Any text is compiled or refused; nothing else happens.
    #[test]
    fn any_text_is_taken(words in prop::collection::vec(prop_oneof![
        prop::sample::select(&["tcp", "port", "445", "(", ")", "not", "and", "or", "vlan", "host", "10.0.0.1", "[", "]", ":", "0x1f", "\\", "&", "<<", "33", "/", "0"][..]).prop_map(str::to_owned),
        "[ -~]{0,4}",
    ], 0..12)) {
        if let Err(error) = compile(&words.join(" ")) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
