"""An app of Flower: clients return what they got plus a constant of their own, and the server averages.

Flower sends equal pieces once, so neither the model nor what comes of it at two clients may be equal.
"""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context):
    open(f"{context.run_config['ended']}.asked", "a").close()  # its time is that of the first
    constant = np.float32(1 + context.node_id % 4096 / 4096)
    arrays = [array + constant for array in message.content["arrays"].to_numpy_ndarrays()]
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=content, reply_to=message)


@server.main()
def main(grid: Grid, context: Context):
    config = context.run_config
    clients, rounds = int(config["clients"]), int(config["rounds"])

    def note(number, arrays):
        """Is called by the strategy before the first round and after each. It looks at the model once, when all is measured."""
        if number == rounds:
            [model] = arrays.to_numpy_ndarrays()
            grown = model[[0, -1]] - ends
            if not (number <= grown.min() and grown.max() <= 2 * number + 1e-3 and np.ptp(grown) < 1e-3):
                raise ValueError(f"after {number} rounds the model has grown by {grown}")
        with open(str(config["ended"]), "a") as file:
            file.write(f"{number}\n")

    start = np.random.default_rng(1).random(int(config["megabytes"]) * 250_000, dtype=np.float32)
    ends = start[[0, -1]]
    initial = ArrayRecord([start])
    del start
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    strategy.start(grid=grid, initial_arrays=initial, num_rounds=rounds, evaluate_fn=note)
