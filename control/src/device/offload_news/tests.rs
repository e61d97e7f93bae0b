use super::*;

const FAMILY_NUMBER: u16 = 21;
const BITS: [usize; 2] = [8, 39];

fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [u16::try_from(4 + value.len()).unwrap().to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A message of the kernel's about the features of device 7, of which those at `active` are active.
fn news(family: u16, command: u8, active: &[usize]) -> Vec<u8> {
    let mut words = [0_u32; 2];
    active.iter().for_each(|bit| words[bit / 32] |= 1 << (bit % 32));
    let words: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let body = [
        vec![command, 1, 0, 0],
        nla(0x8000 | HEADER, &[nla(HEADER_DEVICE_INDEX, &7_u32.to_ne_bytes()), nla(2, b"eth0\0")].concat()),
        nla(0x8000 | 2, &nla(BITSET_VALUE, &[0xff; 8])),
        nla(0x8000 | ACTIVE, &[nla(1, &[]), nla(2, &64_u32.to_ne_bytes()), nla(BITSET_VALUE, &words)].concat()),
    ]
    .concat();
    let length = u32::try_from(NETLINK_HEADER + body.len()).unwrap();
    [length.to_ne_bytes().to_vec(), family.to_ne_bytes().to_vec(), vec![0; 10], body].concat()
}

/// Which of the gates of devices 7 and 8 a datagram shuts.
fn shuts(datagram: &[u8]) -> [bool; 2] {
    let gates: [Arc<Gate>; 2] = Default::default();
    let watched = Gates::new(Mutex::new([7, 8].into_iter().zip(gates.iter().cloned()).collect()));
    judge(datagram, FAMILY_NUMBER, &BITS, &watched);
    gates.map(|gate| !gate.is_open())
}

#[test]
fn only_a_device_that_takes_tags_out_has_its_gate_shut() {
    assert_eq!(shuts(&news(FAMILY_NUMBER, FEATURES_CHANGED, &[8])), [true, false]);
    assert_eq!(shuts(&news(FAMILY_NUMBER, FEATURES_CHANGED, &[1, 39])), [true, false], "802.1ad, in the second word");
    assert_eq!(shuts(&news(FAMILY_NUMBER, FEATURES_CHANGED, &[1, 7, 9, 40])), [false; 2], "other features");
    assert_eq!(shuts(&news(FAMILY_NUMBER + 1, FEATURES_CHANGED, &[8])), [false; 2], "another family");
    assert_eq!(shuts(&news(FAMILY_NUMBER, 8, &[8])), [false; 2], "another message");
    let others = [news(3, 1, &[]), news(FAMILY_NUMBER, 8, &[]), news(FAMILY_NUMBER, FEATURES_CHANGED, &[8])].concat();
    assert_eq!(shuts(&others), [true, false], "behind others");
}

#[test]
fn news_that_cant_be_read_shut_what_they_may_be_about() {
    let whole = news(FAMILY_NUMBER, FEATURES_CHANGED, &[]);
    assert_eq!(shuts(&whole), [false; 2]);
    // From the attribute with the device on: what is cut off may be what says that tags are taken out.
    for length in NETLINK_HEADER + GENERIC_HEADER + 12..whole.len() {
        assert!(shuts(&whole[..length])[0], "cut at {length}");
    }
    let mut endless = whole.clone();
    endless[..4].fill(0);
    assert_eq!(shuts(&endless), [true, true], "a length of 0");
    assert_eq!(shuts(&[]), [false; 2]);
    assert_eq!(shuts(&[0xff; 64]), [false; 2], "another family");
}
