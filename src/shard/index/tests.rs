#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::cell::Cell;
use std::collections::BTreeMap;

use super::*;
use crate::contract::ids::mixed;

#[path = "../../tests/colliding.rs"]
mod colliding;

#[test]
fn ids_chosen_to_meet_under_a_public_hash_do_not_meet_here() {
    let ids = colliding::colliding_ids(4_096);
    assert!(ids.iter().all(|id| mixed(*id) & ((1 << 47) - 1) == 0), "they would meet, were the hash public");
    let mut index = Index::new(TableKey::new(7));
    for (slot, id) in ids.iter().enumerate() {
        index.insert(*id, slot as u32, |slot| ids[slot as usize]);
    }
    let steps = Cell::new(0);
    for (slot, id) in ids.iter().enumerate() {
        let found = index.find(*id, |slot| {
            steps.set(steps.get() + 1);
            ids[slot as usize]
        });
        assert_eq!(found, Some(slot as u32));
    }
    assert!(steps.get() <= 8 * ids.len(), "{} steps to find {} ids", steps.get(), ids.len());
}

#[test]
fn an_index_finds_what_a_map_finds_after_any_inserts_and_removes() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut ids: Vec<u64> = Vec::new();
    let mut index = Index::new(TableKey::new(1));
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
