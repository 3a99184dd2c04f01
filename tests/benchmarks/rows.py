"""The rows of the benchmark: what is measured, against whom, and the bound that it must keep."""

from __future__ import annotations

from functools import partial

from sizer import networks
from tests.benchmarks import budgets, graphs, loops, memory, paths, served, sizing, surgery, sweeps
from tests.benchmarks.row import Row, minus, own, times

_IMAGES = {"fashion_mnist": "", "mnist": "-mnist"}
"""Data set -> how the names of its rows end."""

_LOOP = (
    "an epoch of 784-W-W-W-10, the first left out, with losses and accuracies of validation and test images; sizer.fit"
)
_TUTORIAL = f"{_LOOP} against PyTorch's tutorial: DataLoaders, the default Adam; W = {{}}, batch 64"
_TUNED = f"{_LOOP} against a loop with resident tensors and fused Adam; W = {{}}, batch {{}}"
_LOOPS = (
    Row("loop-100", "100 units / PyTorch tutorial's loop", _TUTORIAL.format(100),
        lambda: loops.against_tutorial(100, 3, 24_000), least=2, value=times),
    Row("loop-1000", "1,000 units / PyTorch tutorial's loop", _TUTORIAL.format("1,000"),
        lambda: loops.against_tutorial(1000, 2, 8_000), least=1.5, value=times),
    Row("loop", "100 units / hand-tuned loop", _TUNED.format(100, 256),
        lambda: loops.against_hand_tuned(100, 3, 48_000, 256), most=1.10),
    Row("loop-128", "100 units, batch 128 / hand-tuned loop", _TUNED.format(100, 128),
        lambda: loops.against_hand_tuned(100, 3, 48_000, 128), most=1.10),
    Row("loop-wide", "1,000 units / hand-tuned loop", _TUNED.format("1,000", 256),
        lambda: loops.against_hand_tuned(1000, 2, 8_000, 256), most=1.10),
)  # fmt: skip

_EPOCH = "CPU-seconds of all threads, an epoch of ShrinkNets 784-10000-10, lambda 1e-3, batch 256, on 10,000 images"
_SIZING = (
    Row("shrinking", "10,000 units, 20 epochs / never removing",
        "training seconds of ShrinkNets 784-10000-10 (proximal, lambda 1e-3, batch 256, 48,000 images) against the "
        "same without removal, of which one epoch is trained and counted 20 times",
        lambda: sizing.shrinking(20), least=8, value=times, pairs=5, warm=False),
    Row("shrinking-final", "its last epoch / plain, final width",
        "training seconds of the 20th epoch against the second one of a plain network of the width that is left",
        lambda: sizing.shrunk(20), most=1.15),
    Row("shrinking-memory", "its peak memory / never removing",
        "the most resident bytes, from the beginning of fit on, of a process that trains 784-10000-10 by ShrinkNets "
        "(proximal, lambda 1e-3) for 2 epochs, against the same without removal: both have all units at first",
        memory.with_removal, most=1.10, unit="bytes", pairs=5, warm=False),
    Row("memory-10000", "a worker's peak, 10,000 units of CIFAR-10",
        "the most resident bytes (VmHWM) of the worker of a sweep that trains 3072-10000-10 by ShrinkNets on CIFAR-10, "
        "one epoch: torch, Ray and the data in its object store counted, which the workers of a node share",
        memory.worker, most=2 * 2**30, plain=True, unit="bytes", pairs=5, warm=False),
    Row("das-epoch", "DAS, an epoch's CPU / TensorFlow original",
        "CPU-seconds of all threads, one dynamic epoch of das-conv from 100 units a layer, alpha 2e-5, batch 128, on "
        "10,000 images of 28 x 28; the original's on another occasion",
        sizing.das_epoch, unit="CPU-s", elsewhere="23-24s", pairs=5),
    Row("shrinknets-epoch", "ShrinkNets, same / its authors' code",
        f"{_EPOCH}, the paper's rule; its authors' code on another occasion",
        partial(sizing.shrinknets_epoch, "subgradient"), unit="CPU-s", elsewhere="4.5-4.9s"),
    Row("proximal-epoch", "the same by our proximal rule", f"{_EPOCH}, our rule; its authors' code on another occasion",
        partial(sizing.shrinknets_epoch, "proximal"), unit="CPU-s", elsewhere="4.5-4.9s"),
)  # fmt: skip

_TRIALS = (
    "seconds of 16 ShrinkNets trials (proximal, lambda 1e-5 to 1e-2) of 784-W-10, batch 128, 3 epochs, through Ray and "
    "the database on 2 warm workers of one CPU"
)
_ONE_BY_ONE = f"{_TRIALS}, against sizer.fit one after the other in a process of two threads"
_PACKS = f"{_TRIALS}, pack auto against the best of packs of 1, 4 and 16"
_SIDES = ("auto", *(f"packs of {pack}" for pack in sweeps.PACKS))
_SWEEPS = (
    Row("sweep-100", "16 trials, 100 units / one after the other", f"{_ONE_BY_ONE}; W = 100, 48,000 images",
        lambda: sweeps.trials(100, 3, 48_000), least=3, value=times, pairs=5),
    Row("sweep-1000", "16 trials, 1,000 units / one after the other", f"{_ONE_BY_ONE}; W = 1,000, 12,000 images",
        lambda: sweeps.trials(1000, 3, 12_000), least=1.3, value=times, pairs=5),
    Row("auto-100", "pack auto, 100 units / best of 1, 4, 16", f"{_PACKS}; W = 100, 48,000 images",
        lambda: sweeps.packs(100, 3, 48_000), most=1.10, names=_SIDES, pairs=5, warm=False),
    Row("auto-1000", "pack auto, 1,000 units / best of 1, 4, 16", f"{_PACKS}; W = 1,000, 12,000 images",
        lambda: sweeps.packs(1000, 3, 12_000), most=1.10, names=_SIDES, pairs=5, warm=False),
    Row("orchestration", "a tiny trial / plain Optuna: difference",
        "seconds a trial of one epoch of a tiny network through Ray and the database, one warm worker, less those of "
        "plain Optuna",
        lambda: sweeps.orchestration(8), most=0.3, value=minus, plain=True),
)  # fmt: skip

_CURVE = (
    "ShrinkNets on 784-500-10, lambda 1e-4 to 1e-2, batch 128, 12,000 images of {}: a path of 16 steps (2 epochs, then "
    "one a step, and one more without the penalty) against 8 independent trials of {} epochs; another seed each turn"
)
_LONG = paths.total_epochs()
_PATHS = tuple(
    row for data, tail in _IMAGES.items() for row in (
        Row(f"path-cost{tail}", "a path of 16 sizes / 8 trials: FLOPs",
            f"training FLOPs, {_CURVE.format(data, paths.EPOCHS)}",
            partial(paths.cost, data), most=0.5, unit="FLOP", pairs=5, warm=False),
        Row(f"path-gain{tail}", "its test accuracy at equal size: difference",
            "percent of 10,000 test images, the mean over 16 sizes at which validation chooses; "
            + _CURVE.format(data, paths.EPOCHS),
            partial(paths.accuracy, data), least=0, value=minus, plain=True, unit="%", pairs=5, warm=False),
        Row(f"path-long{tail}", "the same, trials as long: difference",
            f"as path-gain; {_CURVE.format(data, _LONG)}",
            partial(paths.accuracy, data, _LONG), value=minus, plain=True, unit="%", pairs=5, warm=False),
    )
)  # fmt: skip

_SETTING = "784-300-100-10 (ShrinkNets, batch 128, 12,000 images of {})"
_SEARCH = (
    "a search on {} of lambda in 1e-4 to 1e-1, 8 epochs a trial, until one ends with {:,} parameters or up to a tenth "
    "fewer"
)
_SIZED = "studies.size on {}, max_{}={:,}, epochs=8: a path, tuned at its end"
_RANDOM = "20 random fixed widths under the budget of 8 epochs each; another seed each turn"
_CHOSEN = "percent of 10,000 test images of what validation chooses"


def _sized(task: budgets.Task, setting: str, budget: int, size: str) -> tuple[Row, ...]:
    sized, ours = (
        _SIZED.format(setting, task.kind, budget),
        partial(Row, pairs=5, warm=False, names=("size", "20 fixed")),
    )
    return (
        ours(f"fixed-{size}", "sizer size - best of 20 fixed: accuracy", f"{_CHOSEN}: {sized}; and {_RANDOM}",
             partial(budgets.accuracy, task, budget, budgets.sized), value=minus, plain=True, unit="%"),
        ours(f"flops-{size}", "training FLOPs of sizer size / 20 fixed", f"of {sized}; and {_RANDOM}",
             partial(budgets.flops, task, budget, budgets.sized), unit="FLOP"),
        ours(f"longer-{size}", "the same, fixed ones as long: accuracy",
             f"as fixed-{size}, each fixed network trained for as many epochs as the path and its tuning together",
             partial(budgets.longer, task, budget), value=minus, plain=True, unit="%"),
    )  # fmt: skip


def _searched(task: budgets.Task, setting: str, budget: int, size: str) -> tuple[Row, ...]:
    search, ours = _SEARCH.format(setting, budget), partial(Row, pairs=5, warm=False)
    return (
        ours(f"target-{size}", f"trials until {budget:,} parameters",
             f"trials of {search}: by our sampler, random knobs and TPE on the distance; 21: not in 20; another seed "
             "each turn",
             partial(budgets.target, task, budget), most=5, value=own, plain=True, unit="trials",
             names=("ours", "random", "TPE")),
        ours(f"search-{size}", "search - best of 20 fixed: accuracy", f"{_CHOSEN}: {search}; and {_RANDOM}",
             partial(budgets.accuracy, task, budget, budgets.looked), value=minus, plain=True, unit="%",
             names=("search", "20 fixed")),
        ours(f"spent-{size}", "training FLOPs of search / 20 fixed", f"of {search}; and {_RANDOM}",
             partial(budgets.flops, task, budget, budgets.looked), unit="FLOP", names=("search", "20 fixed")),
    )  # fmt: skip


_BUDGETS = (
    *(
        row
        for data, tail in _IMAGES.items()
        for budget in budgets.BUDGETS
        for rows in (_searched, _sized)
        for row in rows(budgets.Task(data), _SETTING.format(data), budget, f"{budget // 1000}k{tail}")
    ),
    *(
        row
        for data, budget in (("fashion_mnist", 200_000), ("fashion_mnist", 500_000), ("cifar10", 400_000))
        for row in _sized(
            budgets.Task(data, "lenet", (10, 20, 60), "flops"),
            f"lenet 10-20-60 (ShrinkNets, batch 128, 12,000 images of {data})", budget,
            f"lenet-{budget // 1000}k{'' if data == 'fashion_mnist' else '-cifar'}",
        )
    ),
)  # fmt: skip

_SERVED = "seconds until {} of a database of 100 arms with 50 trials of 100 epochs each has answered, nothing kept"
_PAGES = (
    Row("page-overview", "overview, 5,000 trials", _SERVED.format("the overview"),
        partial(served.page, "/"), most=0.3, plain=True),
    Row("page-evaluation", "evaluation page, 5,000 trials", _SERVED.format("the page of the evaluation"),
        partial(served.page, "/evaluation/small"), most=1, plain=True),
)  # fmt: skip

_SURGERY = (
    *(Row(f"attach-{name}", "attach()", f"seconds of attach() on {name} at its default widths, the network being there",
          partial(surgery.attaching, name), most=5, plain=True) for name in networks.names() if networks.layered(name)),
    Row("removal", "16 units of a width / Torch-Pruning",
        "seconds to take 16 units from each width of resnet18, the graph being known, against Torch-Pruning",
        lambda: surgery.removing(16), most=0.5),
    Row("gated-resnet18", "a step with gates / without",
        "a training step of resnet18, 32 CIFAR-sized images, with gates against one without",
        lambda: surgery.gated("resnet18", surgery.CIFAR, 32, 2), most=1.1),
    Row("gated-lenet", "a step with gates / without",
        "a training step of lenet (50, 50, 5000), 256 images, with gates against one without",
        lambda: surgery.gated("lenet", (1, 28, 28), 256, 5), most=1.3),
)  # fmt: skip

_SIDE_BY_SIDE = "seconds to {} candidates of a graph on {:,} rows of {}, side by side against one after the other"
_GRAPHS = (
    Row("candidates-mnist", "losses of 8 candidates / one by one",
        _SIDE_BY_SIDE.format("measure 8", graphs.ROWS, "MNIST (784-7-7-10)"),
        lambda: graphs.measured("mnist", 8), least=3, value=times),
    Row("candidates-trained", "training of 8 candidates / one by one",
        _SIDE_BY_SIDE.format("train 8", graphs.ROWS, "MNIST (784-7-7-10), 50 steps of 1,024"),
        lambda: graphs.trained("mnist", 8), least=3, value=times),
    Row("candidates-places", "the same, a picture's places / one by one",
        _SIDE_BY_SIDE.format("train 8", graphs.ROWS, "a picture's places (2-12-12-1), 50 steps of 1,024"),
        lambda: graphs.trained("coordinates", 8), least=3, value=times),
    Row("removal-round", "a round of removal, 784-7-7-10",
        "seconds of one round of removal: 8 candidates measured on 32,768 rows of MNIST, 3 of them and the network "
        "trained by 50 steps of 1,024, and one removed",
        graphs.removal, most=1, plain=True),
)  # fmt: skip

ROWS = {row.name: row for row in (*_LOOPS, *_SIZING, *_SWEEPS, *_PATHS, *_BUDGETS, *_PAGES, *_SURGERY, *_GRAPHS)}
