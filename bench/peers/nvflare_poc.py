"""A run of NVFLARE's FedAvg in its proof-of-concept deployment: provisioned certificates, mutual TLS, a process each.

    nvflare_poc.py MEGABYTES CLIENTS ROUNDS FOLDER

Says what bench/src/round/peer.rs reads: which processes are the server, how long it took until a client was asked, when a
round has ended, and that the model is what the clients must have made of it.
"""

import glob
import json
import os
import pathlib
import re
import shutil
import sys
import time

megabytes, clients, rounds = (int(argument) for argument in sys.argv[1:4])
folder = pathlib.Path(sys.argv[4]).resolve()
os.environ["NVFLARE_POC_WORKSPACE"] = str(folder / "poc")
os.environ["HOME"] = str(folder)
asked = folder / "asked"
os.environ["BENCH_ASKED"] = str(asked)
os.chdir(folder)
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever it prints is chatter

import numpy as np
import psutil
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.recipe.poc_env import PocEnv


def say(what):
    print(json.dumps(what), file=out, flush=True)


def server():
    """The processes that serve, wherever they were started from."""
    place = str(folder / "poc")
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if place in line and "server_train" in line:
            found.append(process.info["pid"])
    return found


def ended(job):
    """How many rounds have ended, as the server's log says."""
    logs = glob.glob(str(folder / "poc" / "**" / "server" / job / "log.txt"), recursive=True)
    text = pathlib.Path(logs[0]).read_text(errors="replace") if logs else ""
    return rounds if "Finished FedAvg" in text else max(0, len(set(re.findall(r"Round (\d+) started", text))) - 1)


def start():
    """The model before the first round."""
    return np.random.default_rng(1).random(megabytes * 250_000, dtype=np.float32)


def check(job):
    """The model must have grown by one to two in every round, everywhere alike."""
    [model] = glob.glob(str(folder / "poc" / "**" / "server" / job / "**" / "server.npy"), recursive=True)
    grown = (np.load(model) - start())[[0, -1]]
    if not (rounds <= grown.min() and grown.max() <= 2 * rounds + 1e-3 and np.ptp(grown) < 1e-3):
        sys.exit(f"after {rounds} rounds the model has grown by {grown}")


def main():
    script = folder / "plus_one.py"
    shutil.copy(pathlib.Path(__file__).with_name("nvflare_client.py"), script)
    checkpoint = folder / "start.npy"
    np.save(checkpoint, start())
    recipe = NumpyFedAvgRecipe(
        name="round",
        initial_ckpt=str(checkpoint),
        min_clients=clients,
        num_rounds=rounds,
        train_script=str(script),
    )
    began = time.time()
    env = PocEnv(num_clients=clients)
    try:
        run = recipe.execute(env)
        job = run.get_job_id()
        say({"server": server()})
        said, said_asked = 0, False
        while said < rounds:
            if asked.exists() and not said_asked:
                # Clients come up and the job is submitted in one step, so there is no time since the latter.
                say({"asked": {"nothing": asked.stat().st_mtime - began}})
                said_asked = True
            for number in range(said + 1, (now := ended(job)) + 1):
                say({"round": number})
            said = max(said, now)
            time.sleep(0.05)
        check(job)
        say("done")
    finally:
        env.stop(clean_up=False)


main()
