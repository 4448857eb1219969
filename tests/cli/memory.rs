//! Memory: what is asked for is what is taken, and too much is an error before anything is allocated.

use std::process::Child;
use std::time::{Duration, Instant};

use crate::common::{Place, TINY, ran};

/// The bytes of a process that no file backs, at their most while it runs.
fn most_memory(child: &mut Child) -> usize {
    let path = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok());
        most = most.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_millis(2));
    }
    most
}

#[test]
fn the_printed_peak_is_what_a_training_takes() {
    let place = Place::new();
    // The one is mostly activations, the other mostly parameters, gradients and moments.
    place.write("wide.toml", &TINY.replace("convnet2", "resnet2").replace("batch = 32", "batch = 150"));
    place.write("flat.toml", &TINY.replace("convnet2", "resnet2").replace("batch = 32", "batch = 4"));
    // Loaders that keep an image more for each thread.
    let mixing = TINY.replace("\"cifar\"", "{ pad = 2, mixup = 1, affine = { degrees = 9 }, jitter = { hue = 0.1 } }");
    place.write("mixed.toml", &mixing);
    for (recipe, backend) in [("wide", "cpu"), ("mixed", "cpu"), ("flat", "cpu"), ("tiny", "reference")] {
        let args = format!("train {recipe}.toml --epochs 2 --backend {backend} --out {recipe}");
        let mut child = place.command(args.split(' ')).spawn().unwrap();
        let most = most_memory(&mut child) as f64;
        let ran = ran(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let mib = ran.out.split(" MiB at most").next().unwrap().rsplit(' ').next().unwrap();
        let printed = mib.parse::<f64>().unwrap() * f64::from(1 << 20);
        let slack = 10e6; // the program itself and its threads
        println!("{recipe}: printed {:.1} MB, taken {:.1} MB", printed / 1e6, most / 1e6);
        assert!(most <= 1.1 * printed + slack, "{recipe}: printed {printed}, taken {most}");
        assert!(printed <= 1.1 * most + slack, "{recipe}: printed {printed}, taken {most}");
    }
}

#[test]
fn more_than_the_machine_has_is_refused_before_it_is_taken() {
    let place = Place::new();
    for args in [
        "train tiny.toml --set data.size=4096 --batch 65536",
        "train tiny.toml --set data.size=4096 --batch 65536 --backend reference",
        "bench tiny.toml --size 4096 --batch 65536",
        "bench synth-linear --size 4096 --batch 1048576",
        "bench cifar10-resnet2 --size 4096 --batch 65536 --backend reference",
    ] {
        let started = Instant::now();
        let mut child = place.command(args.split(' ')).spawn().unwrap();
        let most = most_memory(&mut child);
        let ran = ran(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(1), "{args}: {ran:?}");
        ran.says(&["memory", "MiB are needed", "smaller batch"]);
        assert!(most < 100 << 20, "{args}: {most} bytes");
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    // A plan of it can be looked at all the same.
    let ran = place.done("plan tiny.toml --size 4096 --batch 65536");
    assert!(ran.out.contains("MiB") || ran.out.contains("GiB"), "{}", ran.out);
}
