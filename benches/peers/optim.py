"""One step of each optimizer on 32 million parameters: posttrain-train against PyTorch and its neighbours on the CPU.

    python -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.23.0 bitsandbytes==0.50.2
    venv/bin/python benches/peers/optim.py [--threads 2] [--rounds 4] [--steps 5]

The weights are those of a Llama (vocabulary 8192, hidden 512, 8 layers, 8 heads of which 4 for keys, intermediate
1408), f32. Both sides run in turn, `--rounds` times, each in a process of its own: our bench program
`crates/train/benches/optim.rs`, then this script with `--peer`. The first step of each process is left out. The ratio
is that of the medians over all steps. `adamw_torch` is compared with the fused AdamW, which the Trainer takes;
`clip` with `clip_grad_norm_`; muon with its iteration in f32, as ours is, and one step of it a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["adamw_torch", "clip", "adamw_8bit", "adafactor", "lion_32bit", "sgd", "muon"]


def shapes():
    layer = [(512, 512), (256, 512), (256, 512), (512, 512), (1408, 512), (1408, 512), (512, 1408), (512,), (512,)]
    return [(8192, 512), *(layer * 8), (512,), (8192, 512)]


def peer(steps, threads):
    import bitsandbytes
    import torch
    import torch.optim._muon as torch_muon
    from transformers.optimization import Adafactor
    torch.set_num_threads(threads)
    own = torch_muon._zeropower_via_newtonschulz

    def in_f32(grad, coefficients, steps, eps):
        a, b, c = coefficients
        x = grad.T.clone() if grad.size(0) > grad.size(1) else grad.clone()
        x.div_(x.norm().clamp(min=eps))
        for _ in range(steps):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x.T if grad.size(0) > grad.size(1) else x

    def timed(name, work, first):
        start = time.perf_counter()
        work()
        if not first:
            print(json.dumps(dict(name=name, seconds=time.perf_counter() - start)), flush=True)

    options = dict(lr=1e-4, weight_decay=0.01)
    for name in NAMES:
        if name == "clip":
            continue
        params = [torch.nn.Parameter(torch.randn(shape) * 0.02) for shape in shapes()]
        gradients = [torch.randn(shape) * 0.01 for shape in shapes()]
        matrices = [p for i, p in enumerate(params) if p.ndim == 2 and 0 < i < len(params) - 1]
        others = [p for p in params if not any(p is m for m in matrices)]
        optimizers = {
            "adamw_torch": lambda: [torch.optim.AdamW(params, fused=True, **options)],
            "adamw_8bit": lambda: [bitsandbytes.optim.AdamW(params, optim_bits=8, **options)],
            "adafactor": lambda: [Adafactor(params, scale_parameter=False, relative_step=False, **options)],
            "lion_32bit": lambda: [bitsandbytes.optim.Lion(params, betas=(0.9, 0.999), **options)],
            "sgd": lambda: [torch.optim.SGD(params, **options)],
            "muon": lambda: [torch.optim.Muon(matrices, **options), torch.optim.AdamW(others, fused=True, **options)],
        }[name]()
        torch_muon._zeropower_via_newtonschulz = in_f32 if name == "muon" else own
        for step in range(2 if name == "muon" else steps + 1):
            for param, gradient in zip(params, gradients):
                param.grad = gradient.clone()
            if name == "adamw_torch":
                timed("clip", lambda: torch.nn.utils.clip_grad_norm_(params, 1.0), step == 0)
            timed(name, lambda: [optimizer.step() for optimizer in optimizers], step == 0)


def lines(command, threads):
    environment = os.environ | dict(RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment).stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--ours", help="our bench program, where it is built already")
    parser.add_argument("--peer", action="store_true")
    args = parser.parse_args()
    if args.peer:
        peer(args.steps, args.threads)
        return
    ours = [args.ours] if args.ours else ["cargo", "bench", "--quiet", "--workspace", "--bench", "optim", "--"]
    theirs = [sys.executable, __file__, "--peer", "--steps", str(args.steps), "--threads", str(args.threads)]
    seconds = {}
    for _ in range(args.rounds):
        for side, command in [("ours", [*ours, str(args.steps)]), ("peer", theirs)]:
            for line in lines(command, args.threads):
                seconds.setdefault((line["name"], side), []).append(line["seconds"])
    print("| step | ours ms | peer ms | ratio |\n|---|---:|---:|---:|")
    for name in NAMES:
        ours, theirs = (1e3 * statistics.median(seconds[name, side]) for side in ("ours", "peer"))
        print(f"| {name} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.2f} |")


if __name__ == "__main__":
    main()
