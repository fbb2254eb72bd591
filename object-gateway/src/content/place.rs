//! Which nodes hold a content: rendezvous hashing, so that a node more or less moves only its own share.

/// Orders nodes by how much they should hold this content: highest BLAKE3 of content id and node id first.
pub(crate) fn rank(content_id: &[u8; 16], nodes: &mut [u64]) {
    nodes.sort_by_cached_key(|node| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(content_id);
        hasher.update(&node.to_le_bytes());
        std::cmp::Reverse(*hasher.finalize().as_bytes())
    });
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn a_node_less_moves_only_its_share_and_load_is_even() {
        let mut firsts = [0_u32; 6];
        for i in 0..3000_u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&i.to_le_bytes());
            let (mut all, mut fewer) = ([1, 2, 3, 4, 5], [1, 2, 3, 4]);
            rank(&id, &mut all);
            rank(&id, &mut fewer);
            let without_5: Vec<u64> = all.iter().copied().filter(|n| *n != 5).collect();
            assert_eq!(without_5, fewer);
            firsts[usize::try_from(all[0]).expect("small")] += 1;
        }
        assert!(firsts[1..].iter().all(|n| (480..720).contains(n)), "{firsts:?}");
    }
}
