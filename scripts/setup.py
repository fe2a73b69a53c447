#!/usr/bin/env -S python3 -B
"""Installs libtorch into the user's cache and links it into this checkout as `.libtorch`.

libtorch comes out of PyTorch's wheels, of which the CPU half is a small part; nothing of Python's torch is
installed. `--cuda` adds the CUDA half in a folder of its own, which the client loads when it starts: the
program is the same with and without a GPU.
"""

import argparse
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from cache import Item, Stop, Wheel, fill, run, say

VERSION = "2.11.0"
TORCH = f"torch=={VERSION}"
TORCH_SHA256 = "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a"
CUDA_RUNTIME = "nvidia-cuda-runtime==13.0.96"
CUDA_RUNTIME_SHA256 = "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548"
CUPTI = "nvidia-cuda-cupti==13.0.85"
CUPTI_SHA256 = "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8"

# The wheel's libtorch_cpu.so needs CUDA's runtime and profiler libraries even where there is no GPU. The
# linker script stands for the wheel's libtorch.so, which would pull in libtorch_cuda.so.
CPU = Item(
    f"libtorch-{VERSION}",
    3000,
    [
        Wheel(
            TORCH,
            TORCH_SHA256,
            {
                "torch/include/": "include/",
                "torch/lib/libtorch_cpu.so": "lib/libtorch_cpu.so",
                "torch/lib/libc10.so": "lib/libc10.so",
                "torch/lib/libgomp.so.1": "lib/libgomp.so.1",
            },
        ),
        Wheel(CUDA_RUNTIME, CUDA_RUNTIME_SHA256, {"nvidia/cu13/lib/libcudart.so.13": "lib/libcudart.so.13"}),
        Wheel(CUPTI, CUPTI_SHA256, {"nvidia/cu13/lib/libcupti.so.13": "lib/libcupti.so.13"}),
    ],
    {"lib/libtorch.so": "INPUT(libtorch_cpu.so)\n", "build-version": VERSION},
)

# The wheel with its NVIDIA packages as pip resolves them for it. The layout is the wheel's, whose rpaths lead
# from torch/lib to nvidia/*/lib.
CUDA_PACKAGES = {
    CUDA_RUNTIME: CUDA_RUNTIME_SHA256,
    CUPTI: CUPTI_SHA256,
    "nvidia-cublas==13.1.0.3": "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
    "nvidia-cuda-nvrtc==13.0.88": "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
    "nvidia-cudnn-cu13==9.19.0.56": "d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf",
    "nvidia-cufft==12.0.0.61": "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
    "nvidia-cufile==1.15.1.6": "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
    "nvidia-curand==10.4.0.35": "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
    "nvidia-cusolver==12.0.4.66": "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
    "nvidia-cusparse==12.6.3.3": "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
    "nvidia-cusparselt-cu13==0.8.0": "25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd",
    "nvidia-nccl-cu13==2.28.9": "e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42",
    "nvidia-nvjitlink==13.0.88": "13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b",
    "nvidia-nvshmem-cu13==3.4.5": "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
    "nvidia-nvtx==13.0.85": "4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4",
}
CUDA = Item(
    f"libtorch-{VERSION}-cuda",
    6000,
    [
        Wheel(TORCH, TORCH_SHA256, {"torch/lib/": "torch/lib/"}),
        *(Wheel(package, sha256, {"nvidia/": "nvidia/"}) for package, sha256 in CUDA_PACKAGES.items()),
    ],
    {"build-version": f"{VERSION}+cu130"},
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuda", action="store_true", help="also install the CUDA half (a 2 GB download)")
    arguments = parser.parse_args()
    check_machine()
    link(fill(CPU))
    if arguments.cuda:
        say(f"CUDA libtorch is in {fill(CUDA)}")


def check_machine():
    """Names the first thing that the set-up or the build would miss."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Stop(f"Sheaf runs on x86-64 Linux, and this is {platform.machine()} {platform.system()}: use such a machine.")
    if importlib.util.find_spec("pip") is None:
        raise Stop("python3 has no pip: install it (Debian: apt install python3-pip), then try again.")
    if not shutil.which(os.environ.get("CXX", "c++")):
        raise Stop("no C++ compiler (c++) was found: install one (Debian: apt install build-essential), then try again.")
    if not shutil.which("cargo"):
        raise Stop("cargo was not found: install Rust with rustup (https://rustup.rs), then try again.")


def link(libtorch):
    """Points this checkout's `.libtorch`, where .cargo/config.toml looks, at the cache."""
    here = Path(__file__).resolve().parent.parent / ".libtorch"
    if here.is_symlink() and os.readlink(here) == str(libtorch):
        return
    if here.exists() and not here.is_symlink():
        raise Stop(f"{here} is in the way of the link to {libtorch}: move it, then try again.")
    fresh = here.with_name(f".libtorch.{os.getpid()}")
    fresh.symlink_to(libtorch)
    fresh.replace(here)
    say(f"libtorch {VERSION} is in {libtorch}, linked as .libtorch")


run(main)
