"""A run of Flower's simulation engine on Ray: `flower_simulation.py VALUES CLIENTS ROUNDS`.

Every client returns what it got plus one. Prints the seconds that all of it took, beginning and end included.
"""

import os
import time

began = time.time()
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

import json
import sys

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

values, clients, rounds = (int(argument) for argument in sys.argv[1:4])
client = ClientApp()
server = ServerApp()
result = {}


@client.train()
def train(message: Message, context: Context):
    arrays = [array + np.float32(1) for array in message.content["arrays"].to_numpy_ndarrays()]
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=content, reply_to=message)


@server.main()
def main(grid: Grid, context: Context):
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    start = ArrayRecord([np.zeros(values, np.float32)])
    done = strategy.start(grid=grid, initial_arrays=start, num_rounds=rounds)
    [model] = done.arrays.to_numpy_ndarrays()
    result["grown"] = float(model[-1])


# A client asks for two cores where nothing is said, so that half of them would do nothing.
resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
run_simulation(server_app=server, client_app=client, num_supernodes=clients, backend_config=resources)
if abs(result.get("grown", 0) - rounds) > 1e-3:
    sys.exit(f"after {rounds} rounds the model has grown by {result.get('grown')}")
print(json.dumps({"seconds": time.time() - began}))
