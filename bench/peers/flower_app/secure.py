"""The same with SecAgg+: the server learns the sum of what the clients return."""

import numpy as np
from flwr.app import Context
from flwr.client import ClientApp, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerApp, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow

# Beyond every value that the model has in ten rounds.
CLIPPING = 32.0


class PlusOne(NumPyClient):
    def __init__(self, constant):
        self.constant = np.float32(constant)

    def fit(self, parameters, config):
        return [array + self.constant for array in parameters], 1, {}


client = ClientApp(
    client_fn=lambda context: PlusOne(1 + context.node_id % 4096 / 4096).to_client(), mods=[secaggplus_mod]
)
server = ServerApp()


@server.main()
def main(grid, context: Context):
    config = context.run_config
    clients, rounds = int(config["clients"]), int(config["rounds"])

    def note(number, arrays, _):
        """Is called before the first round and after each. Clipping and quantizing leave a step of 64 / 2^22."""
        grown = arrays[0][[0, -1]] - ends
        if not (number * 0.999 <= grown.min() and grown.max() <= 2 * number + 1e-3 and np.ptp(grown) < 1e-3):
            raise ValueError(f"after {number} rounds the model has grown by {grown}")
        with open(str(config["ended"]), "a") as file:
            file.write(f"{number}\n")

    start = np.random.default_rng(1).random(int(config["megabytes"]) * 250_000, dtype=np.float32)
    ends = start[[0, -1]]
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=ndarrays_to_parameters([start]),
        evaluate_fn=note,
    )
    fit = SecAggPlusWorkflow(num_shares=clients, reconstruction_threshold=clients // 2 + 1, clipping_range=CLIPPING, max_weight=1)
    workflow = DefaultWorkflow(fit_workflow=fit)
    workflow(grid, LegacyContext(context=context, config=ServerConfig(num_rounds=rounds), strategy=strategy))
