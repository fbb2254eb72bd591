//! Which request ids can't have been here before, told from memory: nearly every request is new, and asking the store so costs more than
//! anything else of a small put.
//!
//! Bloom filters in blocks of a cache line (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters", 2007), one row of
//! filters per generation, each twice as large as the one before (Almeida et al.: "Scalable Bloom Filters", 2007). A filter only ever says
//! "surely not" or "look it up", so nothing of it is state: replicas may differ in it, and a replica that was opened over rows it has not
//! seen being written says "look it up" until their generations are gone.

use std::collections::BTreeMap;

/// Bits of a filter per id: with eight probes one in some hundred ids is looked up for nothing.
const BITS_PER_ID: usize = 16;
/// A block is one cache line.
const BLOCK_WORDS: usize = 8;
const BLOCK_BITS: usize = BLOCK_WORDS * 64;
/// Ids of the first filter of a generation: little, as most groups are idle.
const FIRST_IDS: usize = 1 << 10;
/// Most filters of a generation: together 64 MiB for 33 million ids. What comes beyond is looked up.
const FILTERS: usize = 15;
/// Bits that an id sets in its block.
const PROBES: u32 = 8;

/// What was seen, by generation.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The first generation of which every id is known here.
    known_from: Option<u64>,
    generations: BTreeMap<u64, Vec<Filter>>,
}

impl Seen {
    /// Knows every id from a generation on.
    pub(super) fn since(generation: u64) -> Self {
        Seen { known_from: Some(generation), generations: BTreeMap::new() }
    }

    /// Whether an id may have been noted in a generation.
    pub(super) fn may_have(&self, generation: u64, tenant_id: u64, request_id: &[u8]) -> bool {
        if self.known_from.is_none_or(|from| generation < from) {
            return true;
        }
        let hash = hash(tenant_id, request_id);
        self.generations.get(&generation).is_some_and(|filters| filters.iter().any(|filter| filter.has(hash)))
    }

    /// Notes an id.
    pub(super) fn note(&mut self, generation: u64, tenant_id: u64, request_id: &[u8]) {
        if self.known_from.is_none_or(|from| generation < from) {
            return;
        }
        let filters = self.generations.entry(generation).or_default();
        if filters.last().is_none_or(|last| last.room == 0) {
            if filters.len() == FILTERS {
                self.generations.remove(&generation);
                self.known_from = Some(generation + 1);
                return;
            }
            filters.push(Filter::new(FIRST_IDS << filters.len()));
        }
        if let Some(last) = filters.last_mut() {
            last.add(hash(tenant_id, request_id));
        }
    }

    /// Forgets the generations before one.
    pub(super) fn forget_before(&mut self, generation: u64) {
        self.generations = self.generations.split_off(&generation);
    }
}

#[derive(Debug)]
struct Filter {
    blocks: Vec<[u64; BLOCK_WORDS]>,
    /// For how many more ids it is made.
    room: usize,
}

impl Filter {
    fn new(ids: usize) -> Self {
        Filter { blocks: vec![[0; BLOCK_WORDS]; (ids * BITS_PER_ID).div_ceil(BLOCK_BITS)], room: ids }
    }

    fn block(&self, hash: u128) -> usize {
        // The high half decides the block, the low half the bits in it.
        usize::try_from((hash >> 64) % self.blocks.len() as u128).expect("below a length")
    }

    fn add(&mut self, hash: u128) {
        let at = self.block(hash);
        let block = &mut self.blocks[at];
        bits(hash).for_each(|bit| block[bit / 64] |= 1 << (bit % 64));
        self.room -= 1;
    }

    fn has(&self, hash: u128) -> bool {
        let block = &self.blocks[self.block(hash)];
        bits(hash).all(|bit| block[bit / 64] & (1 << (bit % 64)) != 0)
    }
}

/// The bits of a block that stand for an id: nine bits of the hash for each.
fn bits(hash: u128) -> impl Iterator<Item = usize> {
    (0..PROBES).map(move |probe| usize::try_from((hash >> (9 * probe)) & (BLOCK_BITS as u128 - 1)).expect("nine bits"))
}

/// 128 well mixed bits: FNV-1a, then a finisher. Who makes ids collide on purpose only makes them be looked up.
fn hash(tenant_id: u64, request_id: &[u8]) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let words = request_id.chunks(8).map(|chunk| chunk.iter().fold(0, |word: u64, byte| (word << 8) | u64::from(*byte)));
    let mixed = std::iter::once(tenant_id).chain(words).fold(OFFSET, |hash, word| (hash ^ u128::from(word)).wrapping_mul(PRIME));
    let folded = mixed ^ (mixed >> 67);
    let spread = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    spread ^ (spread >> 61)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&1_700_000_000_000_u64.to_be_bytes());
        id[8..].copy_from_slice(&n.to_be_bytes());
        id
    }

    #[test]
    fn what_was_noted_is_never_denied_and_the_rest_mostly() {
        let mut seen = Seen::since(5);
        let many = 20_000;
        (0..many).for_each(|n| seen.note(5 + n % 2, 7, &id(n)));
        assert!((0..many).all(|n| seen.may_have(5 + n % 2, 7, &id(n))));
        let wrong = (many..2 * many).filter(|n| seen.may_have(5, 7, &id(*n))).count();
        assert!(wrong < 20_000 / 50, "{wrong} of {many} would be looked up for nothing");
        assert!((0..many).step_by(2).filter(|n| seen.may_have(5, 8, &id(*n))).count() < 200, "another tenant's");
        seen.forget_before(6);
        assert!(!seen.may_have(5, 7, &id(0)) && seen.may_have(6, 7, &id(1)));
    }

    #[test]
    fn who_has_not_seen_all_says_so() {
        assert!(Seen::default().may_have(9, 7, &id(1)));
        let mut seen = Seen::since(5);
        seen.note(4, 7, &id(1));
        assert!(seen.may_have(4, 7, &id(2)) && !seen.may_have(5, 7, &id(2)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::since(0);
        seen.generations.insert(3, (0..FILTERS).map(|_| Filter { blocks: vec![[0; BLOCK_WORDS]], room: 0 }).collect());
        seen.note(3, 7, &id(1));
        assert!(seen.generations.is_empty());
        assert!(seen.may_have(3, 7, &id(2)) && !seen.may_have(4, 7, &id(2)), "looked up from now on, until the next generation");
        let blocks: usize = (0..FILTERS).map(|n| (FIRST_IDS << n) * BITS_PER_ID / 8).sum();
        assert!(blocks <= 64 << 20, "{blocks} bytes");
    }
}
