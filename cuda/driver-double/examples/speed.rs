//! How many instructions of threads the interpreter runs in a second: `cargo run --release -p driver-double --example speed`.

use driver_double::{Config, Device, Launch};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut device = Device::new(Config { threads: 1, ..Config::default() });
    let zeros = |device: &mut Device, n: usize| device.with_f32(&vec![0.5; n]);
    let (m, n, k) = (256u32, 256u32, 128u32);
    let [a, b, c] = [zeros(&mut device, 1 << 16)?, zeros(&mut device, 1 << 16)?, zeros(&mut device, 1 << 16)?]
        .map(u64::to_le_bytes);
    let [m, n, k, x, y] = [m, n, k, 300, 1 << 16].map(u32::to_le_bytes);
    let tiles = device.load(include_str!("../tests/kernels/tiles.ptx"))?;
    let reduce = device.load(include_str!("../tests/kernels/reduce.ptx"))?;
    let maths = device.load(include_str!("../tests/kernels/maths.ptx"))?;
    let tensor = device.load(include_str!("../tests/kernels/tensor.ptx"))?;
    let runs: [(_, _, Launch, Vec<&[u8]>); 5] = [
        (&tiles, "matmul", Launch { grid: [4, 4, 1], block: [256, 1, 1], shared: 0 }, vec![&a, &b, &c, &m, &n, &k]),
        (&tiles, "transpose_padded", Launch { grid: [8, 8, 1], block: [32, 8, 1], shared: 0 }, vec![&a, &b, &m, &n]),
        (&reduce, "softmax", Launch { grid: [200, 1, 1], block: [128, 1, 1], shared: 1200 }, vec![&a, &b, &x]),
        (&maths, "f_gelu", Launch { grid: [256, 1, 1], block: [256, 1, 1], shared: 0 }, vec![&a, &b, &y]),
        (
            &tensor,
            "mma_tf32_pipeline",
            Launch { grid: [32, 16, 1], block: [32, 1, 1], shared: 0 },
            vec![&a, &b, &c, &n, &k],
        ),
    ];
    for (module, kernel, launch, args) in runs {
        let (mut seconds, mut millions) = (f64::INFINITY, 0.0);
        for _ in 0..5 {
            let start = std::time::Instant::now();
            let counters = device.launch(module, kernel, launch, &args)?;
            seconds = start.elapsed().as_secs_f64().min(seconds);
            millions = counters.threads() as f64 / 1e6;
        }
        println!("{kernel:20} {millions:7.2} million thread instructions, {:6.0} million a second", millions / seconds);
    }
    Ok(())
}
