//! The `holdfast` program. Everything is in the library, so that tests reach it.

fn main() {
    std::process::exit(holdfast::cli::main())
}
