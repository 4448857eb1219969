//! Loads, stores, atomics and asynchronous copies, each lane's address checked.

use std::collections::HashSet;

use super::Scene;
use super::shared::{Kind, passes};
use super::warp::{Copy, Warp};
use crate::counters::Traffic;
use crate::fault::{FaultKind, Trouble};
use crate::lanes::{Reg, each};
use crate::num::{flush, ones, signed};
use crate::program::{Access, Atom, AtomKind, LOCAL_WINDOW, PARAM_WINDOW, Place, SHARED_WINDOW};
use crate::ptx::Space;

/// Counts an access to global memory in sectors of 32 bytes, which `touched` gathers where they are to be counted once each.
fn count_global(
    traffic: &mut Traffic,
    touched: Option<&mut HashSet<u64>>,
    addresses: &[u64; 32],
    lanes: u32,
    size: usize,
) {
    let (mut sorted, mut n, mut rising) = ([0u64; 32], 0, true);
    for l in each(lanes) {
        rising &= n == 0 || addresses[l] >= sorted[n - 1];
        sorted[n] = addresses[l];
        n += 1;
    }
    if !rising {
        sorted[..n].sort_unstable();
    }
    // Each byte once: lanes at one address share it. An access lies within one sector.
    let (mut sectors, mut distinct) = (1, 1);
    for pair in sorted[..n].windows(2) {
        distinct += u64::from(pair[0] != pair[1]);
        sectors += u64::from(pair[0] / 32 != pair[1] / 32);
    }
    traffic.requests += 1;
    traffic.bytes += u64::from(lanes.count_ones()) * size as u64;
    traffic.transactions += sectors;
    traffic.ideal += (distinct * size as u64).div_ceil(32).min(sectors);
    if let Some(touched) = touched {
        touched.extend(sorted[..n].iter().map(|address| address / 32));
    }
}

fn count_shared(traffic: &mut Traffic, addresses: &[u64; 32], lanes: u32, size: usize) {
    traffic.requests += 1;
    traffic.bytes += u64::from(lanes.count_ones()) * size as u64;
    let took = passes(addresses, lanes, size);
    let per = if size <= 4 { 32 } else { 128 / size };
    let groups = (0..32).step_by(per).filter(|first| lanes >> first & ones(per as u32) as u32 != 0).count() as u64;
    traffic.transactions += took;
    traffic.ideal += groups.min(took);
}

impl Scene<'_> {
    fn count_load(&mut self, addresses: &[u64; 32], lanes: u32, size: usize) {
        let touched = self.grid.distinct.then_some(&mut self.touched.loads);
        count_global(&mut self.counters.global_loads, touched, addresses, lanes, size);
    }

    fn count_store(&mut self, addresses: &[u64; 32], lanes: u32, size: usize) {
        let touched = self.grid.distinct.then_some(&mut self.touched.stores);
        count_global(&mut self.counters.global_stores, touched, addresses, lanes, size);
    }
}

impl Warp {
    pub(super) fn addresses(&self, place: Place) -> [u64; 32] {
        let base = &self.registers[place.base as usize].0;
        let mask =
            if matches!(place.space, Space::Shared | Space::Local | Space::Param) { 0xffff_ffff } else { u64::MAX };
        std::array::from_fn(|l| base[l].wrapping_add(place.offset as u64) & mask)
    }

    /// The spaces that generic addresses lie in, each with its lanes and its own addresses.
    fn split(&self, place: Place, addresses: [u64; 32], lanes: u32) -> [(Space, u32, [u64; 32]); 4] {
        let none = (Space::Global, 0, [0; 32]);
        if place.space != Space::Generic {
            let space = if place.space == Space::Const { Space::Global } else { place.space };
            return [(space, lanes, addresses), none, none, none];
        }
        let mut parts = [
            (Space::Global, 0, addresses),
            (Space::Shared, 0, addresses.map(|a| a.wrapping_sub(SHARED_WINDOW))),
            (Space::Local, 0, addresses.map(|a| a.wrapping_sub(LOCAL_WINDOW))),
            (Space::Param, 0, addresses.map(|a| a.wrapping_sub(PARAM_WINDOW))),
        ];
        for l in each(lanes) {
            let part = match addresses[l] {
                PARAM_WINDOW.. => 3,
                LOCAL_WINDOW.. => 2,
                SHARED_WINDOW.. => 1,
                _ => 0,
            };
            parts[part].1 |= 1 << l;
        }
        parts
    }

    /// Offset of a lane's access within the warp's local memory.
    fn local_at(&self, lane: usize, address: u64, size: usize, write: bool) -> Result<usize, Trouble> {
        let each = self.local.len() / 32;
        if address.checked_add(size as u64).is_none_or(|end| end > each as u64) {
            let near = Some((0, each as u64));
            return Err(Trouble::at(lane, FaultKind::OutOfBounds { space: Space::Local, address, size, write, near }));
        }
        if address & (size as u64 - 1) != 0 {
            return Err(Trouble::at(lane, FaultKind::Misaligned { space: Space::Local, address, size }));
        }
        Ok(lane * each + address as usize)
    }

    pub(super) fn load(&mut self, access: &Access, scene: &mut Scene, lanes: u32) -> Result<(), Trouble> {
        let addresses = self.addresses(access.place);
        if access.place.space != Space::Generic {
            let space = if access.place.space == Space::Const { Space::Global } else { access.place.space };
            return self.load_from(access, scene, space, lanes, &addresses);
        }
        for (space, part, addresses) in self.split(access.place, addresses, lanes) {
            if part != 0 {
                self.load_from(access, scene, space, part, &addresses)?;
            }
        }
        Ok(())
    }

    fn load_from(
        &mut self,
        access: &Access,
        scene: &mut Scene,
        space: Space,
        lanes: u32,
        addresses: &[u64; 32],
    ) -> Result<(), Trouble> {
        let (width, count) = (access.width, access.count);
        let size = width * count;
        let mut out = [[0u64; 32]; 4];
        match space {
            Space::Global | Space::Const | Space::Generic => {
                scene.count_load(addresses, lanes, size);
                let memory = scene.grid.memory;
                let mut block = None;
                for l in each(lanes) {
                    let address = addresses[l];
                    let (b, offset) = match block {
                        Some(b) if in_block(b, address, size) => (b, (address - b.base) as usize),
                        _ => memory.locate(l, address, size, false)?,
                    };
                    block = Some(b);
                    if address & (size as u64 - 1) != 0 {
                        return Err(Trouble::at(l, FaultKind::Misaligned { space: Space::Global, address, size }));
                    }
                    for (i, out) in out.iter_mut().enumerate().take(count) {
                        let at = offset + i * width;
                        if !b.initialised(at, width) {
                            return Err(Trouble::at(
                                l,
                                FaultKind::Uninitialised {
                                    space: Space::Global,
                                    address: address + (i * width) as u64,
                                    size: width,
                                },
                            ));
                        }
                        out[l] = b.load(at, width);
                    }
                }
            }
            Space::Shared => {
                count_shared(&mut scene.counters.shared_loads, addresses, lanes, size);
                let kind = if access.volatile { Kind::Volatile } else { Kind::Read };
                let mut places = [0; 32];
                for l in each(lanes) {
                    // What an earlier lane has read needs no second look: its neighbour, or the same column of a tile of lanes.
                    let twin = [1, 8, 16]
                        .into_iter()
                        .find(|&d| l >= d && lanes >> (l - d) & 1 == 1 && addresses[l - d] == addresses[l]);
                    let at = match twin {
                        Some(d) => places[l - d],
                        None => scene.shared.check(l, self.number, addresses[l], size, kind)?,
                    };
                    places[l] = at;
                    if access.volatile && scene.shared.untouched(at, size) {
                        return Err(Trouble::at(
                            l,
                            FaultKind::Uninitialised { space: Space::Shared, address: addresses[l], size },
                        ));
                    }
                    for (i, out) in out.iter_mut().enumerate().take(count) {
                        out[l] = scene.shared.load(at + i * width, width);
                    }
                }
            }
            Space::Local => {
                for l in each(lanes) {
                    let at = self.local_at(l, addresses[l], size, false)?;
                    if self.local_written[at..at + size].contains(&false) {
                        return Err(Trouble::at(
                            l,
                            FaultKind::Uninitialised { space: Space::Local, address: addresses[l], size },
                        ));
                    }
                    for (i, out) in out.iter_mut().enumerate().take(count) {
                        out[l] = little(&self.local[at + i * width..], width);
                    }
                }
            }
            Space::Param => {
                let params = &scene.grid.params;
                for l in each(lanes) {
                    let (address, near) = (addresses[l], Some((0, params.len() as u64)));
                    if address.checked_add(size as u64).is_none_or(|end| end > params.len() as u64) {
                        return Err(Trouble::at(
                            l,
                            FaultKind::OutOfBounds { space, address, size, write: false, near },
                        ));
                    }
                    for (i, out) in out.iter_mut().enumerate().take(count) {
                        out[l] = little(&params[address as usize + i * width..], width);
                    }
                }
            }
        }
        for (out, reg) in out.iter_mut().zip(&access.regs) {
            let Some(reg) = reg else { continue };
            if let Some((from, to)) = access.extend {
                *out = out.map(|v| signed(v, from) as u64 & ones(to));
            }
            self.write(*reg, lanes, out);
        }
        Ok(())
    }

    pub(super) fn store(&mut self, access: &Access, scene: &mut Scene, lanes: u32) -> Result<(), Trouble> {
        let (width, count) = (access.width, access.count);
        let size = width * count;
        let value =
            |warp: &Self, i: usize, l: usize| warp.lane(access.regs[i].unwrap_or(0), l) & ones(8 * width as u32);
        for (space, part, addresses) in self.split(access.place, self.addresses(access.place), lanes) {
            if part == 0 {
                continue;
            }
            match space {
                Space::Global | Space::Const | Space::Generic => {
                    scene.count_store(&addresses, part, size);
                    let memory = scene.grid.memory;
                    let mut block = None;
                    for l in each(part) {
                        let address = addresses[l];
                        let (b, offset) = match block {
                            Some(b) if in_block(b, address, size) => (b, (address - b.base) as usize),
                            _ => memory.locate(l, address, size, true)?,
                        };
                        block = Some(b);
                        if address & (size as u64 - 1) != 0 {
                            return Err(Trouble::at(l, FaultKind::Misaligned { space: Space::Global, address, size }));
                        }
                        for i in 0..count {
                            b.store(offset + i * width, width, value(self, i, l));
                        }
                    }
                    if !access.volatile {
                        self.clash(access, space, part, &addresses)?;
                    }
                }
                Space::Shared => {
                    count_shared(&mut scene.counters.shared_stores, &addresses, part, size);
                    let kind = if access.volatile { Kind::Volatile } else { Kind::Write };
                    for l in each(part) {
                        let at = scene.shared.check(l, self.number, addresses[l], size, kind)?;
                        if access.volatile {
                            scene.shared.touch(at, size);
                        }
                        for i in 0..count {
                            scene.shared.store(at + i * width, width, value(self, i, l));
                        }
                    }
                    if !access.volatile {
                        self.clash(access, space, part, &addresses)?;
                    }
                }
                Space::Local => {
                    for l in each(part) {
                        let at = self.local_at(l, addresses[l], size, true)?;
                        self.local_written[at..at + size].fill(true);
                        for i in 0..count {
                            let bytes = value(self, i, l).to_le_bytes();
                            self.local[at + i * width..at + (i + 1) * width].copy_from_slice(&bytes[..width]);
                        }
                    }
                }
                Space::Param => {
                    let lane = part.trailing_zeros() as usize;
                    return Err(Trouble::at(lane, FaultKind::ReadOnly { address: addresses[lane] }));
                }
            }
        }
        Ok(())
    }

    /// Lanes that store to one address must store one value: which of them stays is not defined.
    fn clash(&self, access: &Access, space: Space, lanes: u32, addresses: &[u64; 32]) -> Result<(), Trouble> {
        // Most stores rise from lane to lane.
        let (mut last, mut rises) = (None, true);
        for l in each(lanes) {
            rises &= last.is_none_or(|last| addresses[l] > last);
            last = Some(addresses[l]);
        }
        if rises {
            return Ok(());
        }
        let (mut order, mut n) = ([0u8; 32], 0);
        for l in each(lanes) {
            order[n] = l as u8;
            n += 1;
        }
        order[..n].sort_unstable_by_key(|l| (addresses[*l as usize], *l));
        for pair in order[..n].windows(2) {
            let (a, b) = (pair[0] as usize, pair[1] as usize);
            let differ = (0..access.count).any(|i| {
                let reg = access.regs[i].unwrap_or(0);
                (self.lane(reg, a) ^ self.lane(reg, b)) & ones(8 * access.width as u32) != 0
            });
            if addresses[a] == addresses[b] && differ {
                return Err(Trouble::at(b, FaultKind::Clash { space, address: addresses[b] }));
            }
        }
        Ok(())
    }

    pub(super) fn atomic(&mut self, atom: &Atom, scene: &mut Scene, lanes: u32) -> Result<(), Trouble> {
        let width = atom.width;
        let mut old = [0u64; 32];
        for (space, part, addresses) in self.split(atom.place, self.addresses(atom.place), lanes) {
            for l in each(part) {
                let (address, b, c) = (addresses[l], self.lane(atom.b, l), self.lane(atom.c, l));
                scene.counters.atomics += 1;
                match space {
                    Space::Global | Space::Const | Space::Generic => {
                        let (block, offset) = scene.grid.memory.locate(l, address, width, true)?;
                        if address & (width as u64 - 1) != 0 {
                            return Err(Trouble::at(
                                l,
                                FaultKind::Misaligned { space: Space::Global, address, size: width },
                            ));
                        }
                        if !block.initialised(offset, width) {
                            return Err(Trouble::at(
                                l,
                                FaultKind::Uninitialised { space: Space::Global, address, size: width },
                            ));
                        }
                        old[l] = block.update(offset, width, |v| combine(atom, v, b, c, true));
                    }
                    Space::Shared => {
                        let at = scene.shared.check(l, self.number, address, width, Kind::Atomic)?;
                        old[l] = scene.shared.load(at, width);
                        scene.shared.store(at, width, combine(atom, old[l], b, c, false));
                    }
                    Space::Local => {
                        let at = self.local_at(l, address, width, true)?;
                        old[l] = little(&self.local[at..], width);
                        let bytes = combine(atom, old[l], b, c, false).to_le_bytes();
                        self.local[at..at + width].copy_from_slice(&bytes[..width]);
                    }
                    Space::Param => return Err(Trouble::at(l, FaultKind::ReadOnly { address })),
                }
            }
        }
        if let Some(d) = atom.d {
            self.write(d, lanes, &old);
        }
        Ok(())
    }

    /// Reads now, writes when it is waited for: as late as a GPU may.
    pub(super) fn copy_async(
        &mut self,
        to: Place,
        from: Place,
        size: usize,
        read: Option<Reg>,
        scene: &mut Scene,
        lanes: u32,
    ) -> Result<(), Trouble> {
        let (to, from) = (self.addresses(to), self.addresses(from));
        scene.count_load(&from, lanes, size);
        count_shared(&mut scene.counters.shared_stores, &to, lanes, size);
        for lane in each(lanes) {
            let wanted = read.map_or(size, |r| (self.lane(r, lane) as usize).min(size));
            let at = scene.shared.check(lane, self.number, to[lane], size, Kind::Write)?;
            let mut bytes = [0; 16];
            if from[lane] & (size as u64 - 1) != 0 {
                return Err(Trouble::at(
                    lane,
                    FaultKind::Misaligned { space: Space::Global, address: from[lane], size },
                ));
            }
            if wanted > 0 {
                let (block, offset) = scene.grid.memory.locate(lane, from[lane], wanted, false)?;
                for (i, byte) in bytes.iter_mut().enumerate().take(wanted) {
                    if !block.initialised(offset + i, 1) {
                        return Err(Trouble::at(
                            lane,
                            FaultKind::Uninitialised { space: Space::Global, address: from[lane] + i as u64, size: 1 },
                        ));
                    }
                    *byte = block.load(offset + i, 1) as u8;
                }
            }
            scene.shared.begin_copy(at, size);
            self.copies.push(Copy { lane, group: self.committed[lane], to: at, bytes, len: size });
        }
        Ok(())
    }

    pub(super) fn wait_group(&mut self, newest: u32, scene: &mut Scene, lanes: u32) {
        let (number, committed) = (self.number, self.committed);
        self.copies.retain(|copy| {
            let done = newest == u32::MAX || copy.group + newest < committed[copy.lane];
            let lands = lanes >> copy.lane & 1 == 1 && done;
            if lands {
                scene.shared.land(copy.to, &copy.bytes[..copy.len], number);
            }
            !lands
        });
    }
}

#[inline(always)]
fn in_block(block: &crate::memory::Block, address: u64, size: usize) -> bool {
    // A store to a read-only block takes the way that says so.
    !block.read_only && address >= block.base && address - block.base + size as u64 <= block.len as u64
}

fn little(bytes: &[u8], width: usize) -> u64 {
    bytes[..width].iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))
}

/// What an atomic operation leaves in memory.
fn combine(atom: &Atom, old: u64, b: u64, c: u64, global: bool) -> u64 {
    let bits = 8 * atom.width as u32;
    let less = |x: u64, y: u64| if atom.signed { signed(x, bits) < signed(y, bits) } else { x < y };
    let mask = ones(bits);
    match atom.kind {
        AtomKind::Add => old.wrapping_add(b) & mask,
        AtomKind::FloatAdd if bits == 64 => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        AtomKind::FloatAdd => {
            let (x, y) = (f32::from_bits(old as u32), f32::from_bits(b as u32));
            // In global memory the f32 addition flushes subnormal numbers.
            let sum = if global { flush(flush(x) + flush(y)) } else { x + y };
            sum.to_bits().into()
        }
        AtomKind::Min => {
            if less(b, old) {
                b
            } else {
                old
            }
        }
        AtomKind::Max => {
            if less(old, b) {
                b
            } else {
                old
            }
        }
        AtomKind::And => old & b,
        AtomKind::Or => old | b,
        AtomKind::Xor => old ^ b,
        AtomKind::Exch => b & mask,
        AtomKind::Cas => {
            if old == b {
                c & mask
            } else {
                old
            }
        }
        AtomKind::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        AtomKind::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    }
}
