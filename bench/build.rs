//! The benchmark drives the end-to-end tests' federation, and so links libtorch as the client does.

#[path = "../client/build.rs"]
mod rpath;

fn main() {
    rpath::main();
}
