"""A run of NVFLARE's simulator: `nvflare_simulation.py VALUES CLIENTS ROUNDS`. Every client returns what it got plus a constant."""

import os
import pathlib
import shutil
import sys

values, clients, rounds = (int(argument) for argument in sys.argv[1:4])
folder = pathlib.Path.cwd()
os.environ["BENCH_ASKED"] = str(folder / "asked")

import numpy as np
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.recipe.sim_env import SimEnv

script = folder / "plus_one.py"
shutil.copy(pathlib.Path(__file__).with_name("nvflare_client.py"), script)
np.save(folder / "start.npy", np.zeros(values, np.float32))
recipe = NumpyFedAvgRecipe(
    name="round",
    initial_ckpt=str(folder / "start.npy"),
    min_clients=clients,
    num_rounds=rounds,
    train_script=str(script),
)
recipe.execute(SimEnv(num_clients=clients, num_threads=os.cpu_count(), workspace_root=str(folder / "work")))
models = list(folder.glob("work/**/server.npy"))
if not models:
    sys.exit("there is no model at the end")
grown = np.load(models[0])[-1]
if not rounds <= grown <= 2 * rounds:
    sys.exit(f"after {rounds} rounds the model has grown by {grown}")
