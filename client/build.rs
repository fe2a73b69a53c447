//! Tells the programs that link libtorch where it lies (an rpath), so that they run with no LD_LIBRARY_PATH.
//! Other packages with such programs include this file in their own build script.

use std::{env, path::PathBuf};

pub(crate) fn main() {
    let libtorch = PathBuf::from(env::var_os("LIBTORCH").unwrap_or_default());
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-changed={}", libtorch.join("build-version").display());
    match libtorch.join("lib").canonicalize() {
        Ok(lib) => println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display()),
        Err(_) => {
            println!("cargo::error=libtorch is not set up: run `make setup` (LIBTORCH is {libtorch:?})")
        }
    }
}
