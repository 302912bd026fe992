"""Scores of a reward model for 1,000 solutions of unequal length: ours against transformers on the CPU.

    python -m venv venv
    venv/bin/pip install transformers==5.23.0 torch==2.15.0
    cargo build --release --examples -p posttrain
    venv/bin/python benches/peers/reward_scores.py example_model_solutions.jsonl [--threads 2] [--rounds 3] [--rows N] \
        [--by-problem]

`example_model_solutions.jsonl` is that of openai/grade-school-math (MIT); its questions with one solution each become
conversations (`examples/data/gsm8k_pairs.py` reads them). The model is the Llama of 32 million random parameters of
`support.py` with a head of one score instead of the vocabulary's, `LlamaForSequenceClassification`; f32; two threads.

Rows are shuffled, so that few of them share a problem; `--by-problem` leaves the solutions to a problem together, four of
most, as they stand where the best of several answers is chosen.

All sides run in turn, each in a process of its own, from a file of rows with `messages` to a file of the same rows with
`score`, in the same order:

    transformers-8          batches of 8 rows in the order of the file, padded, as most would write it
    transformers-32         batches of 32 rows
    transformers-8-sorted   rows sorted by their number of tokens first, batches of 8
    transformers-32-sorted  the same with batches of 32
    ours                    examples/score_reward.rs

Rows a second are counted inside of each side, from the rows in memory to all scores, with the chat template and the
tokenizer and without start-up; ours says `1000 rows in 12.345 s` on standard error. The whole time of the process is
printed too. Scores of all sides have to agree within 1e-4. Memory is the peak resident set.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support import ROOT, Table, environment, make_model, read_rows, watch, write_rows

SIDES = ["transformers-8", "transformers-32", "transformers-8-sorted", "transformers-32-sorted", "ours"]
TOLERANCE = 1e-4


def make(folder, solutions, count, by_problem):
    """The rows, the tokenizer and the model."""
    subprocess.run([sys.executable, ROOT / "examples/data/gsm8k_pairs.py", solutions, "--out", folder / "all",
                    "--kinds", "unpaired", "--held-out", "0"], check=True, stdout=subprocess.DEVNULL)
    rows = read_rows(folder / "all_unpaired.jsonl")
    assert len(rows) >= count, f"only {len(rows)} solutions"
    if by_problem:
        rows.sort(key=lambda row: row["question"])
    write_rows(folder / "rows.jsonl", [dict(messages=row["prompt"] + row["completion"]) for row in rows[:count]])
    make_model(folder, (row[key][0]["content"] for row in rows for key in ["prompt", "completion"]),
               "LlamaForSequenceClassification", num_labels=1)


def peer(side, folder, threads):
    """What this script does in a process of its own: transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar
    disable_progress_bar()
    torch.set_num_threads(threads)
    batch = int(side.split("-")[1])
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model", dtype=torch.float32).eval()
    rows = read_rows(folder / "rows.jsonl")
    start = time.perf_counter()
    ids = [tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"] for row in rows]
    order = sorted(range(len(ids)), key=lambda row: len(ids[row])) if side.endswith("sorted") else range(len(ids))
    scores = [0.0] * len(ids)
    with torch.inference_mode():
        for first in range(0, len(ids), batch):
            places = order[first:first + batch]
            inputs = tokenizer.pad(dict(input_ids=[ids[row] for row in places]), return_tensors="pt",
                                   padding_side="right")
            logits = model(**inputs, use_cache=False).logits[:, 0]
            for row, score in zip(places, logits.tolist(), strict=True):
                scores[row] = score
    seconds = time.perf_counter() - start
    write_rows(folder / f"{side}.jsonl", [row | dict(score=score) for row, score in zip(rows, scores, strict=True)])
    print(json.dumps(dict(rows=len(rows), seconds=seconds, tokens=sum(map(len, ids)),
                          longest=max(map(len, ids)))), flush=True)


def run(side, folder, args, env):
    """Rows a second inside of the process, its whole time, its peak, and the scores."""
    start = time.monotonic()
    if side == "ours":
        command = [ROOT / "target/release/examples/score_reward", "--model", folder / "model", "--input",
                   folder / "rows.jsonl", "--output", folder / "ours.jsonl"]
        _, peak, said = watch(command, env)
        found = re.findall(r"^(\d+) rows in ([\d.]+) s\s*$", said, re.MULTILINE)
        assert found, f"no line of the time in:\n{said[-2000:]}"
        count, seconds = int(found[-1][0]), float(found[-1][1])
    else:
        command = [sys.executable, __file__, args.solutions, "--threads", str(args.threads), "--peer", side,
                   str(folder)]
        [(_, line)], peak, _ = watch(command, env)
        count, seconds = line["rows"], line["seconds"]
    whole = time.monotonic() - start
    given, rows = read_rows(folder / "rows.jsonl"), read_rows(folder / f"{side}.jsonl")
    assert count == len(given) == len(rows), (side, count, len(rows))
    assert all(row["messages"] == before["messages"] for row, before in zip(rows, given)), f"{side}: another order"
    return count / seconds, whole, peak, [row["score"] for row in rows]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("solutions", help="example_model_solutions.jsonl")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--by-problem", action="store_true")
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=SIDES)
    parser.add_argument("--peer", nargs=2, metavar=("SIDE", "FOLDER"))
    parser.add_argument("--make", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    if args.make:
        return make(args.make, args.solutions, args.rows, args.by_problem)
    if args.peer:
        return peer(args.peer[0], Path(args.peer[1]), args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = environment(args.threads, folder)
        # In a process of its own: what this one holds would count in the peak of those that it starts.
        order = ["--by-problem"] if args.by_problem else []
        subprocess.run([sys.executable, __file__, args.solutions, "--rows", str(args.rows), "--make", str(folder), *order],
                       env=env, check=True)
        table, first = Table("rows/s"), None
        for round_ in range(args.rounds):
            for side in args.sides:
                speed, whole, peak, scores = run(side, folder, args, env)
                first = first or scores
                apart = max(abs(a - b) for a, b in zip(first, scores, strict=True))
                assert apart <= TOLERANCE, f"scores of {side} are {apart:.1e} away from those of {args.sides[0]}"
                table.add(side, speed, peak)
                print(f"round {round_ + 1} {side}: {speed:.2f} rows/s, {whole:.1f} s in all, {peak:.0f} MiB, scores "
                      f"{min(scores):.3f} to {max(scores):.3f}, at most {apart:.1e} apart", flush=True)
        table.print("transformers")


if __name__ == "__main__":
    main()
