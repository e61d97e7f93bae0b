//! Frames, which all benches share. The cases stand at the top of each bench, the figures in `README.md`.

/// A unicast UDP frame of `wire_bytes` (with FCS, so four bytes fewer in a ring) from station `src` to station `dst`.
pub fn frame(wire_bytes: usize, dst: u16, src: u16) -> Vec<u8> {
    let station = |n: u16| [[2, 0, 0, 0].as_slice(), &n.to_be_bytes()].concat();
    let mut bytes = [station(dst), station(src), vec![0x08, 0x00, 0x45, 0, 0, 0]].concat();
    bytes.resize(wire_bytes - 4, 0xa5);
    bytes
}
