//! Names of the maps that have entries in a partition: each name is kept once.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{entry::same, hash::Order};

/// Number of a map, within its partition only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapId(pub(super) u32);

/// A map with entries.
struct Map {
    name: Bytes,
    order: Order,
    entries: usize,
}

/// Accounted for a map beside its name.
pub const MAP_OVERHEAD: u64 = 128;

/// The maps of a partition. One without entries is forgotten.
pub(super) struct Maps {
    seed: u64,
    ids: BTreeMap<Bytes, MapId>,
    #[allow(clippy::struct_field_names)] // they are the maps
    maps: Vec<Option<Map>>,
    free: Vec<MapId>,
    bytes: u64,
}

impl Maps {
    /// `seed` is the one of [`Order`].
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ids: BTreeMap::new(), maps: Vec::new(), free: Vec::new(), bytes: 0 }
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<MapId> {
        // Most often there is only one.
        match self.maps.first() {
            Some(Some(first)) if first.name.len() == name.len() && same(&first.name, name) => Some(MapId(0)),
            _ => self.ids.get(name).copied(),
        }
    }

    /// The map's number, which [`Maps::count_entry`] must follow.
    pub(super) fn find_or_add(&mut self, name: &[u8]) -> MapId {
        if let Some(id) = self.find(name) {
            return id;
        }
        let name = Bytes::copy_from_slice(name);
        let id = self.free.pop().unwrap_or(MapId(self.maps.len() as u32));
        if id.0 as usize == self.maps.len() {
            self.maps.push(None);
        }
        self.bytes += name.len() as u64 + MAP_OVERHEAD;
        self.maps[id.0 as usize] = Some(Map { order: Order::new(self.seed, &name), name: name.clone(), entries: 0 });
        self.ids.insert(name, id);
        id
    }

    pub(super) fn count_entry(&mut self, id: MapId) {
        if let Some(map) = &mut self.maps[id.0 as usize] {
            map.entries += 1;
        }
    }

    pub(super) fn forget_entry(&mut self, id: MapId) {
        let Some(map) = &mut self.maps[id.0 as usize] else { return };
        map.entries -= 1;
        if map.entries == 0 {
            self.forget(id);
        }
    }

    /// All entries of the map are gone.
    pub(super) fn forget(&mut self, id: MapId) {
        let Some(map) = self.maps[id.0 as usize].take() else { return };
        self.bytes -= map.name.len() as u64 + MAP_OVERHEAD;
        self.ids.remove(&map.name);
        self.free.push(id);
    }

    pub(super) fn name(&self, id: MapId) -> &Bytes {
        static NONE: Bytes = Bytes::new();
        self.maps[id.0 as usize].as_ref().map_or(&NONE, |map| &map.name)
    }

    /// Where the entry of a key of a map stands, or would.
    pub(super) fn position(&self, id: MapId, key: &[u8]) -> u64 {
        self.maps[id.0 as usize].as_ref().map_or(0, |map| map.order.position(key))
    }

    pub(super) fn entries(&self, name: &[u8]) -> usize {
        let map = self.find(name).and_then(|id| self.maps[id.0 as usize].as_ref());
        map.map_or(0, |map| map.entries)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}
