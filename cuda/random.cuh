// Keyed randomness, bit for bit that of src/rng.rs: the mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood
// 2014).
#pragma once

typedef unsigned long long u64;

constexpr u64 GOLDEN = 0x9E3779B97F4A7C15ull;

__device__ __forceinline__ u64 mix(u64 z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// Key::with
__device__ __forceinline__ u64 key_with(u64 key, u64 coordinate) { return mix(key + GOLDEN + mix(coordinate + GOLDEN)); }

// Key::at
__device__ __forceinline__ u64 key_at(u64 key, u64 i) { return mix(key + i * GOLDEN); }
