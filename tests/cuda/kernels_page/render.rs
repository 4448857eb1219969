//! The page as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use handgrad::backend::cuda::{KernelInfo, ModuleInfo, modules};
use handgrad::ops::cuda_kernels;

use super::launches::{Launch, Traffic};
use super::source::{Parameter, Source};

const HEAD: &str = "# The kernels\n
Every kernel of the CUDA backend, as its PTX in `cuda/ptx/` has it: with this page and those files it can be launched by any
program. Generated from the declarations in `src/`, the sources in `cuda/`, and launches that were made on the
[driver double](cuda.md#the-driver-double); a test compares it, and

```sh
HANDGRAD_WRITE_DOCS=1 cargo test --test cuda kernels_page
```

writes it anew.

What holds for all of them: numbers are f32 unless the type says otherwise, and lie without gaps. Maps are NHWC, `[image][row]
[column][channel]`; weights of convolutions `[kh][kw][c / groups][q]`, those of linear layers `[inputs][outputs]`. Addresses
are multiples of 64 bytes. Arguments are given in the order of the tables; structs are passed by value, their fields following
each other as in C. Sizes are `int`, no tensor having 2³¹ numbers. `add` is 1 where the result is to be added to what the memory
holds, 0 where it is to be written over it. Kernels that the same op launches follow each other on one stream. No kernel takes
dynamic shared memory unless its example says so.

The column *example* has the arguments of one launch: of an address, how many bytes are there for it; `null` is the address 0.
";

const COUNTERS: &str = "## Counters and floors\n
What the examples above did, as the driver double counts it. Floor: the different 32-byte sectors that a launch touches, each
moved once. *Moved*: the sectors of all accesses over that floor; what is above 1 is left to the caches. *Coalesced*: the fewest
sectors that the same accesses could take over those that they take. *Conflicts*: passes over the banks of shared memory beyond
the fewest. *Work*: of products, the multiply-adds that the mathematics asks for over the floating-point instructions that ran, those of
tensor cores counted by their multiply-adds.

| kernel | read: floor, KiB | moved | coalesced | written: floor, KiB | moved | coalesced | conflicts | warp instructions | work |
|---|---|---|---|---|---|---|---|---|---|
";

/// Types that need no definition.
const PLAIN: [&str; 7] = ["float", "int", "double", "u64", "const", "unsigned", "char"];

/// The name of a type that the source defines.
fn defined(kind: &str) -> Option<&str> {
    kind.split([' ', '*']).find(|word| !word.is_empty() && !PLAIN.contains(word))
}

pub fn page(launches: &BTreeMap<String, Launch>) -> String {
    let (kernels, mut out) = (cuda_kernels(), HEAD.to_owned());
    let mut examples = Vec::new();
    for ModuleInfo { name, version, target } in modules() {
        let source = Source::of(name);
        let of_module: Vec<&KernelInfo> = kernels.iter().filter(|kernel| kernel.module == name).collect();
        // Writing to a String cannot fail.
        let _ = write!(out, "\n## {name}\n\n`cuda/ptx/{name}.ptx`, ISA {version}, {target}; from `cuda/{name}.cu`:\n");
        let _ = write!(out, "\n```text\n{}\n```\n", source.head);
        let signatures: Vec<Vec<Parameter>> = of_module.iter().map(|kernel| signature(&source, kernel)).collect();
        let structs: BTreeSet<&str> = signatures.iter().flatten().filter_map(|p| defined(&p.kind)).collect();
        let structs: Vec<String> = structs.into_iter().map(|name| structure(&source, name)).collect();
        if !structs.is_empty() {
            let _ = write!(out, "\nIts types:\n\n```c\n{}\n```\n", structs.join("\n"));
        }
        for (kernel, parameters) in of_module.iter().zip(&signatures) {
            let launch = launches.get(kernel.name);
            let launch = launch.unwrap_or_else(|| panic!("no launch of {} was made", kernel.name));
            section(&mut out, &source, kernel, parameters, launch);
            examples.push((launch, floor(&source, parameters, launch)));
        }
    }
    let _ = write!(out, "\n{COUNTERS}");
    for (launch, floor) in examples {
        let (loads, stores) = (traffic(&launch.global_loads), traffic(&launch.global_stores));
        let floats = launch.by_class.get("float").copied().unwrap_or(0) + launch.mma_flops / 2;
        let work = floor.map_or_else(String::new, |floor| format!("{:.0} %", 100.0 * floor / floats as f64));
        let Launch { kernel, bank_conflicts, warp_instructions, .. } = launch;
        let _ = writeln!(out, "| `{kernel}` | {loads} | {stores} | {bank_conflicts} | {warp_instructions} | {work} |");
    }
    out
}

fn traffic(traffic: &Traffic) -> String {
    let Traffic { transactions, ideal, distinct } = *traffic;
    if transactions == 0 {
        return "0 | | ".to_owned();
    }
    let (moved, coalesced) = (transactions as f64 / distinct as f64, 100.0 * ideal as f64 / transactions as f64);
    format!("{:.2} | {moved:.2} | {coalesced:.0} %", distinct as f64 / 32.0)
}

/// The parameters in C, which must be those of the declaration.
fn signature(source: &Source, kernel: &KernelInfo) -> Vec<Parameter> {
    let KernelInfo { module, name, arguments, .. } = kernel;
    let parameters = source.parameters(name).unwrap_or_else(|| panic!("cuda/{module}.cu: no parameters of {name}"));
    assert_eq!(parameters.len(), arguments.len(), "{name} in cuda/{module}.cu");
    parameters
}

fn structure(source: &Source, name: &str) -> String {
    source.structure(name).unwrap_or_else(|| panic!("no definition of {name} in the sources"))
}

fn section(out: &mut String, source: &Source, kernel: &KernelInfo, parameters: &[Parameter], launch: &Launch) {
    let doc = kernel.doc.trim();
    assert!(doc.contains("Grid"), "the declaration of {} does not say its grid", kernel.name);
    let _ = write!(out, "\n### `{}`\n\n{doc}\n", kernel.name);
    out.push_str("\n| parameter | type | bytes | example |\n|---|---|---|---|\n");
    for (i, parameter) in parameters.iter().enumerate() {
        let value = value(source, &parameter.kind, &launch.arguments[i], launch.room[i]);
        let Parameter { kind, name } = parameter;
        let _ = writeln!(out, "| `{name}` | `{kind}` | {} | {value} |", kernel.arguments[i].bytes);
    }
    let Launch { grid, block, shared, case, .. } = launch;
    let shared = if *shared == 0 { String::new() } else { format!(", {shared} bytes of dynamic shared memory") };
    let _ = write!(out, "\nExample: grid {grid:?}, block {block:?}{shared}; of {case}.\n");
}

/// An argument as text.
fn value(source: &Source, kind: &str, bytes: &[u8], room: u64) -> String {
    let eight = || <[u8; 8]>::try_from(bytes).expect("eight bytes");
    let four = || <[u8; 4]>::try_from(bytes).expect("four bytes");
    match kind {
        _ if kind.ends_with('*') && eight() == [0; 8] => "null".to_owned(),
        _ if kind.ends_with('*') => format!("{room} bytes"),
        "int" => i32::from_le_bytes(four()).to_string(),
        "float" => format!("{:?}", f32::from_le_bytes(four())),
        "double" => format!("{:?}", f64::from_le_bytes(eight())),
        "u64" => format!("{:#x}", u64::from_le_bytes(eight())),
        _ => {
            let fields = fields(source, kind, bytes);
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name} {value}")).collect();
            fields.join(", ")
        }
    }
}

/// A struct's fields and their values.
fn fields(source: &Source, kind: &str, bytes: &[u8]) -> Vec<(String, String)> {
    let (mut at, mut found) = (0, Vec::new());
    for Parameter { kind, name } in source.fields(kind) {
        let size = if kind.ends_with('*') || kind == "double" || kind == "u64" { 8 } else { 4 };
        let text = match &bytes[at..at + size] {
            pointer if kind.ends_with('*') && pointer == [0; 8] => "null".to_owned(),
            _ if kind.ends_with('*') => "an address".to_owned(),
            bytes => value(source, &kind, bytes, 0),
        };
        at += size;
        found.push((name, text));
    }
    assert_eq!(at, bytes.len(), "the fields of {kind}");
    found
}

/// The multiply-adds of a product, by the shape that its kernel takes.
fn floor(source: &Source, parameters: &[Parameter], launch: &Launch) -> Option<f64> {
    let which = parameters.iter().position(|parameter| ["ConvShape", "Gemm"].contains(&&*parameter.kind))?;
    let kind = &parameters[which].kind;
    let fields: BTreeMap<String, String> = fields(source, kind, &launch.arguments[which]).into_iter().collect();
    let product =
        |names: &[&str]| names.iter().map(|name| fields[*name].parse::<f64>().expect("a number")).product::<f64>();
    Some(match &**kind {
        "Gemm" => product(&["rows", "inner", "columns", "count"]),
        _ => product(&["n", "oh", "ow", "q", "kh", "kw", "c"]) / product(&["groups"]),
    })
}
