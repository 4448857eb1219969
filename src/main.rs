//! The `handgrad` program: see [`handgrad::cli`].

fn main() -> std::process::ExitCode {
    handgrad::cli::main()
}
