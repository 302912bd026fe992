"""Steps of full fine-tuning: posttrain-train against transformers and torch's AdamW on the CPU.

    python -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.23.0
    venv/bin/python benches/peers/training.py [--threads 2] [--rounds 4] [--steps 6]

A Llama of 32 million parameters (vocabulary 8192, hidden 512, 8 layers, 8 heads of which 4 for keys, intermediate
1408) with random weights, in f32: 4 rows of 256 tokens, loss on all of them, gradient norm clipped at 1, AdamW (the
fused one on torch's side, the fastest). Both sides run in turn, `--rounds` times, each in a process of its own: our
bench program `crates/train/benches/training.rs`, then this script with `--peer`. The first two steps of each process
are left out. The ratio is that of the medians over all steps.
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
ROWS, TIME = 4, 256
WARM_UP = 2


def peak_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def peer(steps, threads):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=False)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for step in range(steps):
        start = time.perf_counter()
        ids = torch.tensor([[(i * 7919 + (step * ROWS + row) * 104729) % 8000 + 3 for i in range(TIME)]
                            for row in range(ROWS)])
        loss = model(ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - start
        print(json.dumps(dict(name="step", seconds=seconds, loss=loss.item(), peak_mib=peak_mib())), flush=True)


def lines(command, threads):
    environment = os.environ | dict(RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment).stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--ours", help="our bench program, where it is built already")
    parser.add_argument("--peer", action="store_true")
    args = parser.parse_args()
    if args.peer:
        return peer(args.steps, args.threads)
    ours = [args.ours] if args.ours else ["cargo", "bench", "--quiet", "--workspace", "--bench", "training", "--"]
    theirs = [sys.executable, __file__, "--peer", "--steps", str(args.steps), "--threads", str(args.threads)]
    seconds, peaks = {}, {}
    for _ in range(args.rounds):
        for side, command in [("ours", [*ours, str(args.steps)]), ("torch", theirs)]:
            steps = lines(command, args.threads)
            seconds.setdefault(side, []).extend(step["seconds"] for step in steps[WARM_UP:])
            peaks.setdefault(side, []).append(steps[-1]["peak_mib"])
    for side in seconds:
        median = statistics.median(seconds[side])
        print(f"{side}: {ROWS * TIME / median:.0f} tokens/s, {median:.3f} s a step "
              f"({min(seconds[side]):.3f} to {max(seconds[side]):.3f}), peak {max(peaks[side]):.0f} MiB")
    ratio = statistics.median(seconds["torch"]) / statistics.median(seconds["ours"])
    print(f"speed {ratio:.2f}, memory {max(peaks['ours']) / max(peaks['torch']):.2f}")


if __name__ == "__main__":
    main()
