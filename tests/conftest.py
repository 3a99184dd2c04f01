"""What holds for every test: one thread, so that tests beside each other do not wait and sums come in one order."""

import torch

torch.set_num_threads(1)
