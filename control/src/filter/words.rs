//! Splits a filter expression into words, as libpcap's scanner does.
//!
//! While it compiles, libpcap asks a resolver about every word that it takes for the name of a host, a network or a
//! station. Every word therefore has to be one of the language, a number or an address, or stand after `port`,
//! `portrange`, `proto` or `protochain`, where names are looked up in files only (services(5), protocols(5)).

use std::net::Ipv6Addr;

/// The words of pcap-filter(7) for Ethernet, each followed by a space. The words for ATM, SS7, wireless and packet
/// filters are left out.
const LANGUAGE: &str = "dst src link ether fddi tr wlan arp rarp ip sctp tcp udp icmp igmp igrp pim vrrp carp ip6 icmp6 ah esp \
    atalk aarp decnet lat sca moprc mopdl iso esis es-is isis is-is l1 l2 iih lsp snp csnp psnp clnp stp ipx netbeui \
    host net mask port portrange proto protochain less greater byte broadcast multicast and or not len length \
    inbound outbound ifindex vlan mpls pppoed pppoes geneve llc \
    icmptype icmpcode icmp-echoreply icmp-unreach icmp-sourcequench icmp-redirect icmp-echo icmp-routeradvert \
    icmp-routersolicit icmp-timxceed icmp-paramprob icmp-tstamp icmp-tstampreply icmp-ireq icmp-ireqreply icmp-maskreq \
    icmp-maskreply icmp6type icmp6code icmp6-destinationunreach icmp6-packettoobig icmp6-timeexceeded \
    icmp6-parameterproblem icmp6-echo icmp6-echoreply icmp6-multicastlistenerquery icmp6-multicastlistenerreportv1 \
    icmp6-multicastlistenerdone icmp6-routersolicit icmp6-routeradvert icmp6-neighborsolicit icmp6-neighboradvert \
    icmp6-redirect icmp6-routerrenum icmp6-nodeinformationquery icmp6-nodeinformationresponse \
    icmp6-ineighbordiscoverysolicit icmp6-ineighbordiscoveryadvert icmp6-multicastlistenerreportv2 \
    icmp6-homeagentdiscoveryrequest icmp6-homeagentdiscoveryreply icmp6-mobileprefixsolicit \
    icmp6-mobileprefixadvert icmp6-certpathsolicit icmp6-certpathadvert icmp6-multicastrouteradvert \
    icmp6-multicastroutersolicit icmp6-multicastrouterterm \
    tcpflags tcp-fin tcp-syn tcp-rst tcp-push tcp-ack tcp-urg tcp-ece tcp-cwr";

/// The facts about an expression that its words tell before it is compiled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// True if the expression has the word `vlan`.
    pub says_vlan: bool,
    /// The first name that libpcap would look up at a resolver.
    pub name: Option<String>,
}

impl Words {
    /// Splits an expression in ASCII.
    pub fn of(expression: &str) -> Words {
        let mut words = Words { says_vlan: false, name: None };
        // True after a word whose argument is looked up in files.
        let mut in_files = false;
        let mut rest = expression;
        while let Some(first) = rest.chars().next() {
            if first == '\\' {
                // A backslash makes a word of the language a name.
                let name = cut(&mut rest, |c| !" !()\n\t".contains(c));
                words.check_name(name, in_files);
            } else if first.is_ascii_alphanumeric() || first == ':' {
                let run = cut(&mut rest, |c| c.is_ascii_alphanumeric() || ":._-".contains(c));
                if run.parse::<Ipv6Addr>().is_err() && !is_mac(run) {
                    run.split(':').for_each(|word| words.add(word.trim_end_matches(['-', '_']), &mut in_files));
                }
            } else {
                rest = rest.get(first.len_utf8()..).unwrap_or("");
            }
        }
        words
    }

    fn add(&mut self, word: &str, in_files: &mut bool) {
        match word {
            "and" | "or" | "not" => {}
            "port" | "portrange" | "proto" | "protochain" => *in_files = true,
            _ if LANGUAGE.split_whitespace().any(|known| known == word) => {
                *in_files = false;
                self.says_vlan |= word == "vlan";
            }
            _ if is_number(word) || is_mac(word) => {}
            _ => self.check_name(word, *in_files),
        }
    }

    fn check_name(&mut self, name: &str, in_files: bool) {
        if !in_files && self.name.is_none() {
            self.name = Some(name.to_owned());
        }
    }
}

/// ` (did you mean port or proto?)`: the words of the language that differ from `name` in one letter, if there are any.
pub(super) fn alike(name: &str) -> String {
    let is_alike = |known: &&str| known.len() > 2 && strsim::osa_distance(name, known) == 1;
    match LANGUAGE.split_whitespace().filter(is_alike).collect::<Vec<_>>().as_slice() {
        [] => String::new(),
        known => format!(" (did you mean {}?)", known.join(" or ")),
    }
}

/// Takes the word at the front: its first character, and all that follow and belong to it.
fn cut<'a>(rest: &mut &'a str, belongs: impl Fn(char) -> bool) -> &'a str {
    let end = rest.char_indices().skip(1).find(|(_, c)| !belongs(*c)).map_or(rest.len(), |(at, _)| at);
    let (word, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
    *rest = behind;
    word
}

/// A number, or up to four numbers separated by dots; beside a colon also an empty word.
fn is_number(word: &str) -> bool {
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => {
            let mut parts = word.split('.');
            let is_decimal = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            word.is_empty() || (parts.clone().count() <= 4 && parts.all(is_decimal))
        }
    }
}

/// A MAC address: six groups of up to two hexadecimal digits separated by `:`, `-` or `.`, three groups of four
/// separated by dots, or twelve digits.
fn is_mac(word: &str) -> bool {
    let groups = |separator, count, most: usize| {
        let is_group = |group: &str| (1..=most).contains(&group.len()) && group.bytes().all(|b| b.is_ascii_hexdigit());
        word.split(separator).count() == count && word.split(separator).all(is_group)
    };
    [':', '-', '.'].into_iter().any(|separator| groups(separator, 6, 2))
        || (groups('.', 3, 4) && word.len() == 14)
        || (groups(':', 1, 12) && word.len() == 12)
}
