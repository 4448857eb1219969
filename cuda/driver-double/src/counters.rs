//! What a launch did, in numbers.

use std::fmt::Write as _;

use crate::program::Class;

/// Accesses of one kind to one memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Instructions of warps.
    pub requests: u64,
    /// Bytes that threads asked for.
    pub bytes: u64,
    /// Of global memory: sectors of 32 bytes that the requests touch. Of shared memory: passes over its 32 banks.
    pub transactions: u64,
    /// The fewest transactions that the same bytes could have taken.
    pub ideal: u64,
    /// Of global memory: the sectors that a launch touches, each counted once, which is the least that has to be moved. Counted
    /// where [`Config::distinct`](crate::Config::distinct) says so, else 0.
    pub distinct: u64,
}

impl Traffic {
    /// `ideal / transactions`: 1 is coalesced, or free of bank conflicts. No traffic at all is 1 too.
    pub fn efficiency(&self) -> f64 {
        if self.transactions == 0 { 1.0 } else { self.ideal as f64 / self.transactions as f64 }
    }

    fn add(&mut self, other: &Traffic) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.transactions += other.transactions;
        self.ideal += other.ideal;
        self.distinct += other.distinct;
    }
}

/// Counts of one launch, or of several added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions of warps by class, in the order of [`Class::ALL`].
    pub warp_instructions: [u64; Class::ALL.len()],
    /// Instructions of threads by class: lanes that a guard or a branch leaves out don't count.
    pub thread_instructions: [u64; Class::ALL.len()],
    /// Loads from global and constant memory.
    pub global_loads: Traffic,
    /// Stores to global memory.
    pub global_stores: Traffic,
    /// Loads from shared memory.
    pub shared_loads: Traffic,
    /// Stores to shared memory.
    pub shared_stores: Traffic,
    /// Atomic operations of threads.
    pub atomics: u64,
    /// Branches at which a warp's lanes parted.
    pub divergences: u64,
    /// Barriers that a block passed.
    pub barriers: u64,
    /// Floating-point operations of tensor-core instructions.
    pub mma_flops: u64,
    /// Blocks that ran.
    pub blocks: u64,
}

impl Counters {
    /// Thread instructions of all classes.
    pub fn threads(&self) -> u64 {
        self.thread_instructions.iter().sum()
    }

    /// Warp instructions of all classes.
    pub fn warps(&self) -> u64 {
        self.warp_instructions.iter().sum()
    }

    /// Thread instructions of one class.
    pub fn of(&self, class: Class) -> u64 {
        self.thread_instructions[class as usize]
    }

    /// Passes over shared memory's banks beyond the fewest.
    pub fn bank_conflicts(&self) -> u64 {
        let (loads, stores) = (&self.shared_loads, &self.shared_stores);
        loads.transactions + stores.transactions - loads.ideal - stores.ideal
    }

    /// Adds another launch's counts.
    pub fn add(&mut self, other: &Counters) {
        for (a, b) in self.warp_instructions.iter_mut().zip(other.warp_instructions) {
            *a += b;
        }
        for (a, b) in self.thread_instructions.iter_mut().zip(other.thread_instructions) {
            *a += b;
        }
        self.global_loads.add(&other.global_loads);
        self.global_stores.add(&other.global_stores);
        self.shared_loads.add(&other.shared_loads);
        self.shared_stores.add(&other.shared_stores);
        self.atomics += other.atomics;
        self.divergences += other.divergences;
        self.barriers += other.barriers;
        self.mma_flops += other.mma_flops;
        self.blocks += other.blocks;
    }

    /// One line of JSON without the braces: `"warp_instructions":…,…`.
    pub fn json(&self) -> String {
        let mut out = format!(
            "\"blocks\":{},\"warp_instructions\":{},\"thread_instructions\":{}",
            self.blocks,
            self.warps(),
            self.threads()
        );
        let traffic = [
            ("global_loads", &self.global_loads),
            ("global_stores", &self.global_stores),
            ("shared_loads", &self.shared_loads),
            ("shared_stores", &self.shared_stores),
        ];
        for (name, t) in traffic {
            let Traffic { requests, bytes, transactions, ideal, distinct } = t;
            // Writing to a String cannot fail.
            let _ = write!(
                out,
                ",\"{name}\":{{\"requests\":{requests},\"bytes\":{bytes},\"transactions\":{transactions},\
                 \"ideal\":{ideal},\"distinct\":{distinct}}}"
            );
        }
        let (conflicts, classes) = (self.bank_conflicts(), Class::ALL.iter().zip(self.thread_instructions));
        let _ = write!(
            out,
            ",\"bank_conflicts\":{conflicts},\"atomics\":{},\"divergences\":{}",
            self.atomics, self.divergences
        );
        let _ = write!(out, ",\"barriers\":{},\"mma_flops\":{},\"by_class\":{{", self.barriers, self.mma_flops);
        let classes: Vec<String> = classes.map(|(class, n)| format!("\"{}\":{n}", class.name())).collect();
        out.push_str(&classes.join(","));
        out.push('}');
        out
    }
}
