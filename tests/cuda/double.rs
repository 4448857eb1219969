//! The driver double in the place of NVIDIA's driver.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

/// Says so to the process that a test starts.
const INSIDE: &str = "HANDGRAD_TEST_ON_DOUBLE";
/// Where it is set, tests run on this machine's GPU: with its own driver, or the one that `HANDGRAD_CUDA_DRIVER` names.
const ON_GPU: &str = "HANDGRAD_TEST_ON_GPU";

/// Runs `test`, the body of the test called `name`, in a process whose driver is the double.
pub fn on_double(name: &str, test: impl FnOnce()) {
    on_double_with(name, &[], test);
}

/// The same with variables in the process's environment.
pub fn on_double_with(name: &str, variables: &[(&str, &OsStr)], test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let program = std::env::current_exe().expect("a test has a program");
    let mut command = Command::new(program);
    command.args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
    with_driver(&mut command);
    command.envs(variables.iter().copied());
    let output = command.output().expect("the test starts again");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "no test is called {name}: {text}");
    print!("{text}");
}

/// Whether tests run on a GPU.
pub fn on_a_gpu() -> bool {
    std::env::var_os(ON_GPU).is_some()
}

/// Gives a program its driver: the double, unless tests run on a GPU.
pub fn with_driver(command: &mut Command) {
    if !on_a_gpu() {
        command.env("HANDGRAD_CUDA_DRIVER", library());
    }
}

/// The shared library, which cargo built because the package has it as a dependency.
fn library() -> PathBuf {
    let program = std::env::current_exe().expect("a test has a program");
    let folder = program.parent().expect("it lies in a folder");
    let name = format!("{}cuda_double{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let library = folder.join(&name);
    assert!(library.is_file(), "{} was not built", library.display());
    library
}
