//! Networks by their prefix: a Patricia trie (D. R. Morrison) whose nodes are 20 octets for IPv4 and 32 for IPv6.
//!
//! Owns prefixes and one number for each; what the number means is the caller's. A node is a prefix that somebody put in, or the
//! place where two of them part: at most twice as many nodes as prefixes, whatever their lengths.
//!
//! Each step down a trie of a million prefixes waits for memory. So a large one has shortcuts: for every value of the first bits, where
//! the prefixes of at least so many bits begin. There are about four for each node: behind most of them is one prefix or none, and
//! that stands in the shortcut itself.

use std::fmt::Debug;
use std::num::NonZeroU8;

use super::slab::{NONE, Slab, Slot};

/// The bits of an address, the first one highest.
pub(in crate::hierarchy) trait Bits: Copy + Eq + Debug {
    const LEN: u8;
    /// Most bits that a shortcut leads past; 0: there are none.
    const SHORTCUT_LEN_MAX: u8;
    /// The first `len` bits as a number; at most so many.
    fn first(self, len: u8) -> usize;
    /// The 16 bits behind them.
    fn after(self, len: u8) -> u16;
    /// How many bits from the first on are the same, up to all.
    fn common(self, other: Self) -> u8;
    fn bit(self, at: u8) -> bool;
    /// The first `len` bits, and zeros.
    fn cut(self, len: u8) -> Self;
}

macro_rules! bits {
    ($type:ty, $len:literal, $shortcut_len_max:literal) => {
        impl Bits for $type {
            const LEN: u8 = $len;
            const SHORTCUT_LEN_MAX: u8 = $shortcut_len_max;

            fn first(self, len: u8) -> usize {
                usize::try_from(self.checked_shr($len - u32::from(len)).unwrap_or(0)).expect("few bits")
            }

            fn after(self, len: u8) -> u16 {
                let rest = self.checked_shl(len.into()).unwrap_or(0);
                u16::try_from(rest >> ($len - 16)).expect("16 bits")
            }

            fn common(self, other: Self) -> u8 {
                u8::try_from((self ^ other).leading_zeros()).expect("at most 128")
            }

            fn bit(self, at: u8) -> bool {
                self >> (Self::LEN - 1 - at) & 1 == 1
            }

            fn cut(self, len: u8) -> Self {
                let after = u32::from(Self::LEN - len);
                self.checked_shr(after).unwrap_or(0).checked_shl(after).unwrap_or(0)
            }
        }
    };
}
// Of IPv6 the first bits are nearly always the same: it has none.
bits!(u32, 32, 24);
bits!(u128, 128, 0);

/// Nodes from which on a trie has shortcuts.
const SHORTCUTS_FROM: usize = if cfg!(test) { 4 } else { 1 << 18 };
/// Shortcuts for each node when their table is made, as a power of two: 32 octets. With as many nodes as shortcuts a larger one is
/// made.
const SHORTCUTS_PER_NODE_BITS: u32 = 2;

/// A number for each prefix that is in it.
#[derive(Debug)]
pub(in crate::hierarchy) struct Trie<B> {
    nodes: Slab<Node<B>>,
    root: Slot,
    /// By the first bits; empty while there are few nodes.
    shortcuts: Vec<Shortcut>,
    /// How many bits these are.
    shortcut_len: u8,
}

/// What has the same first bits, and at least so many.
#[derive(Debug, Clone, Copy)]
enum Shortcut {
    Nothing,
    One {
        len: u8,
        /// The bits behind the first ones.
        after: u16,
        value: u32,
    },
    /// They begin at this node.
    Many(Slot),
}

#[derive(Debug)]
struct Node<B> {
    bits: B,
    children: [Slot; 2],
    /// What was put in, or [`NONE`] where two prefixes part.
    value: u32,
    /// The length of the prefix plus one: a free place of the slab then needs no room of its own.
    len_plus_one: NonZeroU8,
}

impl<B: Bits> Node<B> {
    fn new(bits: B, len: u8, value: u32) -> Self {
        Self { bits: bits.cut(len), children: [NONE; 2], value, len_plus_one: NonZeroU8::MIN.saturating_add(len) }
    }

    fn len(&self) -> u8 {
        self.len_plus_one.get() - 1
    }
}

/// Where a node hangs.
#[derive(Debug, Clone, Copy)]
enum Link {
    Root,
    Child(Slot, bool),
}

impl<B> Default for Trie<B> {
    fn default() -> Self {
        Self { nodes: Slab::default(), root: NONE, shortcuts: Vec::new(), shortcut_len: 0 }
    }
}

impl<B: Bits> Trie<B> {
    /// Whether nothing is in it: for tests.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.root == NONE && self.nodes.len() == 0
    }

    /// Changes the number of a prefix. `change` is given the one of now and returns the one from now on; [`NONE`] stands for a prefix
    /// that is not in it.
    pub(in crate::hierarchy) fn update(&mut self, bits: B, len: u8, change: impl FnOnce(u32) -> u32) {
        let (at, start) = self.put(bits, len);
        let value = change(self.nodes[at].value);
        self.nodes[at].value = value;
        if value == NONE {
            self.take_out(bits, len);
        } else if let Some(start) = start {
            self.lead_to(bits, start);
        }
        if self.shortcut_len < B::SHORTCUT_LEN_MAX && self.nodes.len() >= self.shortcuts.len().max(SHORTCUTS_FROM) {
            self.make_shortcuts();
        }
    }

    /// The node of a prefix, which is there from now on, and the one on the way to it that its shortcut leads to.
    fn put(&mut self, bits: B, len: u8) -> (Slot, Option<Slot>) {
        let mut link = Link::Root;
        let mut start = None;
        let mut pass = |at: Slot, len: u8, shortcut_len: u8| {
            if len >= shortcut_len {
                start.get_or_insert(at);
            }
        };
        let slot = loop {
            let at = self.follow(link);
            if at == NONE {
                break self.hang(link, Node::new(bits, len, NONE));
            }
            let node = &self.nodes[at];
            let common = node.bits.common(bits).min(node.len()).min(len);
            if common == node.len() {
                if common == len {
                    break at;
                }
                pass(at, common, self.shortcut_len);
                link = Link::Child(at, bits.bit(common));
                continue;
            }
            // The prefix ends above this node, or parts from it here.
            let side = node.bits.bit(common);
            let above = self.hang(link, Node::new(bits, common, NONE));
            self.nodes[above].children[usize::from(side)] = at;
            if common == len {
                break above;
            }
            pass(above, common, self.shortcut_len);
            break self.hang(Link::Child(above, bits.bit(common)), Node::new(bits, len, NONE));
        };
        pass(slot, len, self.shortcut_len);
        (slot, start)
    }

    /// Takes a prefix out, and the node where it parted from another one.
    fn take_out(&mut self, bits: B, len: u8) {
        let (mut above, mut link) = (None, Link::Root);
        let at = loop {
            let at = self.follow(link);
            let Some(node) = (at != NONE).then(|| &self.nodes[at]) else { return };
            if node.len() > len || node.bits.common(bits) < node.len() {
                return;
            }
            if node.len() == len {
                break at;
            }
            (above, link) = (Some((link, at)), Link::Child(at, bits.bit(node.len())));
        };
        self.shorten(link, at);
        if let Some((link, parent)) = above {
            self.shorten(link, parent);
        }
        if len >= self.shortcut_len {
            self.lead_to(bits, self.start_of(bits));
        }
    }

    /// The prefixes that contain all of this one, the longest last: length and number.
    pub(in crate::hierarchy) fn around(&self, bits: B, len: u8, each: impl FnMut(u8, u32)) {
        self.walk(self.root, B::LEN + 1, bits, len, each);
    }

    /// Those of them that a shortcut leads to: the longest ones, quickly.
    pub(super) fn near(&self, bits: B, len: u8, mut each: impl FnMut(u8, u32)) {
        match self.shortcut(bits, len) {
            None | Some(Shortcut::Nothing) => {}
            Some(Shortcut::One { len: its, after, value }) => {
                let common = (bits.after(self.shortcut_len) ^ after).leading_zeros();
                if its <= len && u32::from(its - self.shortcut_len) <= common {
                    each(its, value);
                }
            }
            Some(Shortcut::Many(start)) => self.walk(start, B::LEN + 1, bits, len, each),
        }
    }

    /// All others.
    pub(super) fn far(&self, bits: B, len: u8, each: impl FnMut(u8, u32)) {
        let end = if self.shortcut(bits, len).is_some() { self.shortcut_len } else { B::LEN + 1 };
        self.walk(self.root, end, bits, len, each);
    }

    /// From a node on, down to those that are shorter than `end`.
    fn walk(&self, start: Slot, end: u8, bits: B, len: u8, mut each: impl FnMut(u8, u32)) {
        let mut at = start;
        while at != NONE {
            let node = &self.nodes[at];
            if node.len() > len || node.len() >= end || node.bits.common(bits) < node.len() {
                return;
            }
            if node.value != NONE {
                each(node.len(), node.value);
            }
            if node.len() == B::LEN {
                return;
            }
            at = node.children[usize::from(bits.bit(node.len()))];
        }
    }

    /// Every prefix with its number, in no order: bits, length, number.
    pub(in crate::hierarchy) fn iter(&self) -> impl Iterator<Item = (B, u8, u32)> {
        let all = self.nodes.iter().map(|(_, node)| (node.bits, node.len(), node.value));
        all.filter(|(_, _, value)| *value != NONE)
    }

    fn shortcut(&self, bits: B, len: u8) -> Option<Shortcut> {
        self.shortcuts.get(bits.first(self.shortcut_len)).copied().filter(|_| len >= self.shortcut_len)
    }

    fn make_shortcuts(&mut self) {
        let bits = (self.nodes.len().ilog2() + SHORTCUTS_PER_NODE_BITS).min(B::SHORTCUT_LEN_MAX.into());
        self.shortcuts = vec![Shortcut::Nothing; 1 << bits];
        self.shortcut_len = u8::try_from(bits).expect("24 at most");
        let mut open = vec![self.root];
        while let Some(at) = open.pop() {
            let Some(node) = (at != NONE).then(|| &self.nodes[at]) else { continue };
            if node.len() >= self.shortcut_len {
                self.lead_to(node.bits, at);
            } else {
                open.extend(node.children);
            }
        }
    }

    /// The node that the shortcut of an address leads to, or [`NONE`].
    fn start_of(&self, bits: B) -> Slot {
        let mut at = self.root;
        while at != NONE {
            let node = &self.nodes[at];
            if node.bits.common(bits) < node.len().min(self.shortcut_len) {
                return NONE;
            }
            if node.len() >= self.shortcut_len {
                break;
            }
            at = node.children[usize::from(bits.bit(node.len()))];
        }
        at
    }

    /// From now on the shortcut of an address leads to this node.
    fn lead_to(&mut self, bits: B, at: Slot) {
        let Some(shortcut) = self.shortcuts.get_mut(bits.first(self.shortcut_len)) else { return };
        if at == NONE {
            *shortcut = Shortcut::Nothing;
            return;
        }
        let node = &self.nodes[at];
        let is_known_by_its_bits = node.len() - self.shortcut_len <= 16;
        *shortcut = if node.children == [NONE; 2] && is_known_by_its_bits {
            Shortcut::One { len: node.len(), after: node.bits.after(self.shortcut_len), value: node.value }
        } else {
            Shortcut::Many(at)
        };
    }

    fn follow(&self, link: Link) -> Slot {
        match link {
            Link::Root => self.root,
            Link::Child(parent, side) => self.nodes[parent].children[usize::from(side)],
        }
    }

    fn hang(&mut self, link: Link, node: Node<B>) -> Slot {
        let slot = self.nodes.insert(node);
        self.point(link, slot);
        slot
    }

    fn point(&mut self, link: Link, slot: Slot) {
        match link {
            Link::Root => self.root = slot,
            Link::Child(parent, side) => self.nodes[parent].children[usize::from(side)] = slot,
        }
    }

    /// A node without a value stands only where two prefixes part.
    fn shorten(&mut self, link: Link, at: Slot) {
        let Node { value, children, .. } = self.nodes[at];
        if value != NONE {
            return;
        }
        let ([NONE, below] | [below, NONE]) = children else { return };
        self.point(link, below);
        self.nodes.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// As a plain map from prefixes to numbers, for all lengths; few nodes while it lives, none at its end.
        #[test]
        fn prefixes_are_found_as_in_a_plain_map(
            ops in prop::collection::vec((any::<bool>(), prop::sample::select(vec![0_u32, 1, 0x8000_0000, 0x8100_0000, 0xffff_ffff,
                0x8181_0000, 0x8181_8000]), 0..=32_u8, 0..100_u32), 1..60),
            asked in prop::collection::vec((any::<u32>(), 0..=32_u8), 10),
        ) {
            let (mut trie, mut model) = (Trie::<u32>::default(), BTreeMap::new());
            for (put, bits, len, value) in ops {
                let key = (bits.cut(len), len);
                if put {
                    trie.update(bits, len, |_| value);
                    model.insert(key, value);
                } else {
                    trie.update(bits, len, |_| NONE);
                    model.remove(&key);
                }
                prop_assert!(trie.nodes.len() <= model.len() * 2);
                let has_shortcuts = !trie.shortcuts.is_empty();
                prop_assert!(has_shortcuts || trie.nodes.len() < SHORTCUTS_FROM);
                let known = model.keys().copied().collect::<Vec<_>>();
                for (bits, len) in known.into_iter().chain(asked.iter().copied()) {
                    let mut found = Vec::new();
                    trie.around(bits, len, |len, value| found.push((len, value)));
                    let contains = |key: &(u32, u8)| key.1 <= len && bits.cut(key.1) == key.0;
                    let mut expected: Vec<_> =
                        model.iter().filter(|(key, _)| contains(key)).map(|(key, value)| (key.1, *value)).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(&found, &expected);
                    let (mut near, mut far) = (Vec::new(), Vec::new());
                    trie.near(bits, len, |len, value| near.push((len, value)));
                    trie.far(bits, len, |len, value| far.push((len, value)));
                    far.append(&mut near);
                    prop_assert_eq!(far, expected);
                }
            }
            let all: BTreeMap<_, _> = trie.iter().map(|(bits, len, value)| ((bits, len), value)).collect();
            prop_assert_eq!(&all, &model);
            for ((bits, len), _) in model {
                trie.update(bits, len, |_| NONE);
            }
            prop_assert!(trie.is_empty());
        }
    }

    #[test]
    fn a_node_is_as_small_as_promised() {
        assert_eq!(size_of::<Option<Node<u32>>>(), 20);
        assert_eq!(size_of::<Option<Node<u128>>>(), 32);
        assert_eq!(size_of::<Shortcut>(), 8);
    }
}
