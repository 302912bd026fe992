"""Rows read per second: posttrain-data against Python's json module and Hugging Face datasets.

    python -m venv venv && venv/bin/pip install datasets==5.2.0 pyarrow==26.0.1
    venv/bin/python benches/peers/rows.py

`cargo bench -p posttrain-data` writes the same 20,000 conversations as JSON lines (plain, gzip, zstd) and as
Parquet, and reads them: parsed, checked, as typed rows. The peers read the same files to Python objects, one
thread each, in turn, three rounds: `json.loads` of each line, and iteration over a streamed `datasets` data
set (which parses in Arrow; its own threads are off). MB/s are of the plain text for all. The ratio is that of
the medians. At the end datasets reads what we wrote, and every row is compared.
"""

import gzip
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import datasets
import pyarrow as pa

assert datasets.__version__ == "5.2.0" and pa.__version__ == "26.0.1"
pa.set_cpu_count(1)
datasets.disable_progress_bars()

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
FILES = ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst", "rows.parquet"]
ROUNDS = 3


def build():
    """Path of the bench program."""
    out = subprocess.run(
        ["cargo", "bench", "-q", "-p", "posttrain-data", "--bench", "rows", "--no-run",
         "--message-format=json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    built = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return next(b["executable"] for b in built if b.get("executable"))


def ours(program, name):
    """Seconds per pass: criterion's median."""
    subprocess.run([program, "--bench", "--noplot", "--warm-up-time", "0.5", "--measurement-time", "2",
                    f"rows/{name}$"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    estimates = TARGET / "criterion/rows" / name.replace("/", "_") / "new/estimates.json"
    return json.loads(estimates.read_text())["median"]["point_estimate"] / 1e9


def python_json(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else (
        pa.input_stream(str(path), compression="zstd") if path.suffix == ".zst" else open(path, encoding="utf-8"))
    with opened as file:
        lines = file if path.suffix != ".zst" else file.read().split(b"\n")
        return sum(1 for line in lines if line and json.loads(line)["messages"])


def stream(path):
    kind = "parquet" if path.suffix == ".parquet" else "json"
    return datasets.load_dataset(kind, data_files=str(path), split="train", streaming=True)


def hf_datasets(path):
    return sum(1 for row in stream(path) if row["messages"])


def timed(read, path):
    start = time.perf_counter()
    count = read(path)
    assert count == 20_000, count
    return time.perf_counter() - start


def main():
    program = build()
    ours(program, FILES[0])
    folder = TARGET / "tmp"
    size = (folder / FILES[0]).stat().st_size / 1e6
    print(f"{size:.1f} MB of plain text")
    for name in FILES:
        path = folder / name
        peers = {"datasets": hf_datasets}
        if path.suffix != ".parquet":
            peers["json.loads"] = python_json
        rounds = [(ours(program, name), {peer: timed(read, path) for peer, read in peers.items()})
                  for _ in range(ROUNDS)]
        mine = statistics.median(own for own, _ in rounds)
        text = f"{name:15} {size / mine:6.0f} MB/s"
        for peer in peers:
            other = statistics.median(times[peer] for _, times in rounds)
            ratios = [times[peer] / own for own, times in rounds]
            text += f"   {peer} {size / other:5.0f} MB/s, ratio {other / mine:5.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        print(text, flush=True)
    lines = [json.loads(line) for line in open(folder / FILES[0], encoding="utf-8")]
    for name in FILES:
        for row, expected in zip(stream(folder / name), lines, strict=True):
            assert row == expected, (name, row, expected)
    print("datasets reads what we wrote")


main()
