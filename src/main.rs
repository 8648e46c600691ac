//! The binary: arguments, logging, exit code, nothing else.
fn main() {}
