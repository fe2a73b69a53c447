//! The end-to-end tests link libtorch as the client does.

#[path = "../client/build.rs"]
mod rpath;

fn main() {
    rpath::main();
}
