//! Its clients train with libtorch, which it finds as the client does.

#[path = "../client/build.rs"]
mod rpath;

fn main() {
    rpath::main();
}
