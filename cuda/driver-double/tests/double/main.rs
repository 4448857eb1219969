//! Programs with known results, faults that must be found, and what the compiler makes of real kernels.

mod compiled;
mod faults;
mod flow;
mod instructions;
mod tensor;

use driver_double::{Config, Counters, Device, Launch, LaunchError, Module};

/// A device that runs blocks in order.
pub fn device() -> Device {
    Device::new(Config { threads: 1, memory: 1 << 30, budget: 3_000_000, distinct: true, ..Config::default() })
}

/// A module around one kernel `k` of given parameters; registers %p, %h, %r, %rd, %f, %fd are declared.
pub fn module(params: &str, body: &str) -> String {
    format!(
        ".version 7.8\n.target sm_80\n.address_size 64\n.visible .entry k({params})\n{{\n\
         .reg .pred %p<20>;\n.reg .b16 %h<20>;\n.reg .b32 %r<40>;\n.reg .b64 %rd<40>;\n.reg .f32 %f<40>;\n.reg .f64 %fd<20>;\n\
         {body}\nret;\n}}\n"
    )
}

/// Runs kernel `k` of a text.
pub fn launch(
    device: &mut Device,
    text: &str,
    grid: [u32; 3],
    block: [u32; 3],
    shared: usize,
    args: &[&[u8]],
) -> Result<Counters, LaunchError> {
    let module = device.load(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    device.launch(&module, "k", Launch { grid, block, shared }, args)
}

/// Runs `body`, which leaves a number in %r0 for each of `threads` threads of one block; these numbers.
pub fn per_thread(body: &str, threads: u32) -> Result<Vec<u32>, LaunchError> {
    let mut device = device();
    let out = device.alloc(4 * threads as usize).expect("room");
    let text = module(
        ".param .u64 out",
        &format!(
            "{body}\nSTORE: ld.param.u64 %rd30, [out]; mov.u32 %r30, %tid.x; mul.wide.u32 %rd31, %r30, 4; add.s64 %rd30, %rd30, %rd31; st.global.u32 [%rd30], %r0;"
        ),
    );
    launch(&mut device, &text, [1, 1, 1], [threads, 1, 1], 0, &[&out.to_le_bytes()])?;
    Ok(words(&device, out, threads as usize))
}

/// Words of device memory.
pub fn words(device: &Device, at: u64, n: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * n];
    device.download(at, &mut bytes).expect("written");
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("four"))).collect()
}

/// An allocation filled with the bytes of some numbers.
pub fn put<T: Copy, const N: usize>(device: &mut Device, values: &[T], bytes: impl Fn(T) -> [u8; N]) -> u64 {
    let all: Vec<u8> = values.iter().flat_map(|v| bytes(*v)).collect();
    let at = device.alloc(all.len()).expect("room");
    device.upload(at, &all).expect("in range");
    at
}

/// Launches a kernel of a compiled module; pointers and numbers as little-endian bytes.
pub fn go(
    device: &Device,
    module: &Module,
    kernel: &str,
    grid: [u32; 3],
    block: [u32; 3],
    shared: usize,
    args: &[&[u8]],
) -> Counters {
    device.launch(module, kernel, Launch { grid, block, shared }, args).unwrap_or_else(|e| panic!("{e}"))
}

/// Numbers in [-1, 1) that look random and are the same every time.
pub fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}
