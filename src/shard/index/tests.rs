#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use super::*;

#[test]
fn an_index_finds_what_a_map_finds_after_any_inserts_and_removes() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut ids: Vec<u64> = Vec::new();
    let mut index = Index::new();
    let mut model: BTreeMap<u64, u32> = BTreeMap::new();
    for _ in 0..200_000 {
        let id = random.u64(0..20_000);
        let id_of = |slot: u32| ids[slot as usize];
        match model.get(&id) {
            Some(slot) => {
                assert_eq!(index.find(id, id_of), Some(*slot));
                if random.bool() {
                    index.remove(id, id_of);
                    model.remove(&id);
                    assert_eq!(index.find(id, id_of), None);
                }
            }
            None => {
                assert_eq!(index.find(id, id_of), None);
                ids.push(id);
                let slot = ids.len() as u32 - 1;
                index.insert(id, slot, |slot| ids[slot as usize]);
                model.insert(id, slot);
            }
        }
    }
    for (id, slot) in &model {
        assert_eq!(index.find(*id, |slot| ids[slot as usize]), Some(*slot));
    }
}
