//! `data-tools`: converts, fetches, inspects and verifies datasets.

fn main() -> std::process::ExitCode {
    data_tools::cli::main()
}
