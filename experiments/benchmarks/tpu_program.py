"""A training step, compiled for TPUs in a process of its own, and what the compiled program costs."""

import multiprocessing
import os
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from experiments.benchmarks.hlo_text import Product, collectives, host_calls, products
from experiments.benchmarks.tpu_steps import STEPS, Step
from metarep_jax.backend import compiling_for
from metarep_jax.report.provenance import commit_of_code, versions_of_run
from metarep_jax.train import OptimiserConfig, check_batch, make_optimiser
from metarep_jax.train.batches import make_batch_source
from metarep_jax.train.parallel import map_step
from metarep_jax.train.step import initial_state, make_roots, make_update, repeat_update

# TFLOP/s of bfloat16 products and GB/s of memory a chip: https://cloud.google.com/tpu/docs, the versions' pages.
CHIPS = {"v4": (275, 1228), "v5e": (197, 819), "v5p": (459, 2765), "v6e": (918, 1640)}
MOST = 50  # steps a dispatch, as FitConfig has it: more make the metrics' array longer, nothing else

# Products that are meant to be of float32, and why, by the function that makes them; those that ask for full precision
# themselves are too.
FLOAT32 = {
    "data/images/warp.py: warp": "random numbers times fixed weights, of float32: three small products an image",
    "data/images/augment.py: random_resized_crop": "pixels times weights, both of float32: a view is made once",
    "data/images/augment.py: blur": "as for random_resized_crop",
    "data/images/augment.py: colour_jitter": "three channels by three",
    "pretrain/contrast.py: similarities": "logits, whose differences are the loss: rounded factors move them by 0.04",
    "pretrain/contrast.py: info_nce": "as for similarities",
    "pretrain/health.py: embedding_health": "the metric effective_rank: eigenvalues of a covariance",
    "metalearn/network.py: network": "a task's own head, moved by steps that bfloat16 would round away",
}


def in_process(name: str, topology: str, limit: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """A step's cells and what else the result file says of it, compiled in a process of its own within ``limit`` s."""
    begun, context = time.perf_counter(), multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    # One core's worth of threads would do; the compiler takes all. It must neither look for chips nor lock them.
    os.environ |= {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu"}
    os.environ |= {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}
    process = context.Process(target=_compile, args=(name, topology, theirs), daemon=True)
    process.start()
    theirs.close()
    cells: dict[str, Any] = {}
    told: dict[str, Any] = {"error": f"not compiled within {limit:.0f} s"}
    try:
        while ours.poll(max(begun + limit - time.perf_counter(), 0)):
            found, more = ours.recv()
            cells, told = cells | found, told | more
    except EOFError:
        process.join()
        if process.exitcode:
            told["error"] = f"the compiler's process ended with status {process.exitcode}"
    finally:
        process.kill()
        process.join()
    told |= {"commit": commit_of_code(), "versions": versions_of_run()}
    cells = {"compiles": cell(not told["error"]), **cells, "compile_s": cell(time.perf_counter() - begun)}
    return cells, told


def _compile(name: str, topology: str, pipe: Connection) -> None:
    """The other process: tells what there is to tell after lowering, and again after compiling."""
    from jax.experimental import topologies

    jax.default_backend = lambda: "tpu"  # for code that asks JAX itself, such as encoders of your own
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
        with compiling_for("tpu"):
            step = STEPS[name]()
            lowered = dispatch_of(step, devices)
        text = lowered.as_text(dialect="hlo", debug_info=True)
        found = products(text)
        what = {"what": step.what, "float32": unlisted(found), "chips": len(devices)}
        pipe.send(({**cells_of_products(found), "host_calls": cell(len(host_calls(text)))}, what))
        compiled = lowered.compile()
        pipe.send((cells_of_program(compiled, *CHIPS[topology.partition(":")[0]]), {"error": None}))
    except Exception as error:  # whatever the compiler refuses by: it is what the row is to say
        pipe.send(({}, {"error": f"{type(error).__name__}: {str(error).strip()[:500]}"}))


def dispatch_of(step: Step, devices: Sequence[Any]) -> Any:
    """The training loop's dispatch of a step, traced for the devices."""
    size, count = step.feed.size, len(devices)
    check_batch(size, devices)
    source = make_batch_source(step.feed, devices, most=MOST, accumulate=1)
    optimiser = make_optimiser(OptimiserConfig(name="adamw", schedule="cosine"), 10_000)
    update = make_update(step.trainable, optimiser, source.batch_at, size=size, shards=count)
    roots = jax.eval_shape(lambda: make_roots([0]))
    if step.feed.draw is None:
        batch = source.example(roots.data)
        arrays = with_axes(jax.tree.map(lambda leaf: leaf[: size // count], batch), source.most, 1)
    else:
        draw, arrays, first = step.feed.draw, step.feed.pool, jnp.int32(0)
        batch = jax.eval_shape(lambda pool, root: draw(pool, root, first, first, 1), arrays, roots.data)
    state = jax.eval_shape(partial(initial_state, step.trainable, optimiser, average=False), roots, batch)
    mapped = map_step(repeat_update(update, source.most), devices)
    return mapped.lower(with_axes(state, count), with_axes(arrays, count), roots, jax.ShapeDtypeStruct((), jnp.int32))


def with_axes(tree: PyTree, *axes: int) -> PyTree:
    """The shapes of a tree's leaves, with further axes before their own."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*axes, *leaf.shape), leaf.dtype), tree)


def unlisted(found: Sequence[Product]) -> dict[str, float]:
    """GFLOP of the float32 products that nobody asked for, by the function that makes them."""
    sums: dict[str, float] = {}
    for product in found:
        if is_unlisted(product):
            sums[product.place] = sums.get(product.place, 0.0) + 1e-9 * product.flop
    return sums


def is_unlisted(product: Product) -> bool:
    """Whether a product is of float32 and neither asks for full precision nor is meant to be."""
    return product.float32 and not product.full_precision and product.place not in FLOAT32


def cells_of_products(found: Sequence[Product]) -> dict[str, Any]:
    """Columns on float32 products: how many are meant to be, and how many are not, with these' share of the FLOP."""
    plain = [product for product in found if product.float32]
    stray = [product for product in plain if is_unlisted(product)]
    share = 100 * sum(product.flop for product in stray) / max(sum(product.flop for product in found), 1.0)
    meant = len(plain) - len(stray)
    return {"float32_listed": cell(meant), "float32_unlisted": cell(len(stray)), "unlisted_percent": cell(share)}


def cells_of_program(compiled: Any, tflops: float, gbytes: float) -> dict[str, Any]:
    """Columns on a compiled program: its counts, its memory, its collectives, and the roofline time."""
    text, cost, memory = compiled.as_text(), compiled.cost_analysis(), compiled.memory_analysis()
    meetings = collectives(text)
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    held += memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    roofline = max(cost["flops"] / (1e9 * tflops), cost["bytes accessed"] / (1e6 * gbytes))
    return {
        "gflop": cell(1e-9 * cost["flops"]),
        "gb": cell(1e-9 * cost["bytes accessed"]),
        "memory_gb": cell(1e-9 * held),
        "roofline_ms": cell(roofline),
        "collectives": cell(len(meetings)),
        "collective_mb": cell(1e-6 * sum(meetings)),
        "host_calls": cell(len(host_calls(text))),
    }


def cell(value: float) -> dict[str, Any]:
    """A number that is exact, or was measured once."""
    return {"mean": float(value), "ci95": None, "n": 1}
