"""Rows read per second: posttrain-data against Python's json module and Hugging Face datasets.

    python -m venv venv && venv/bin/pip install datasets==5.2.0 pyarrow==26.0.1
    venv/bin/python benches/peers/rows.py

The bench program of posttrain-data writes the same 20,000 conversations as JSON lines (plain, gzip, zstd) and
as Parquet, and reads them: parsed, checked, as typed rows. The peers read the same files to Python objects:
`json.loads` of each line, and iteration over a streamed `datasets` data set (which parses in Arrow). All in
turn, each pass in a process of its own, three rounds. Times are processor seconds, user and system, of all threads, which
a busy machine disturbs least; the start of Python with its imports, measured by an empty pass, is taken off.
MB/s are of the plain text for all files. The ratio is that of the medians. At the end datasets reads what we
wrote, and every row is compared.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

os.environ["HF_DATASETS_OFFLINE"] = "1"
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


def python_json(path):
    import gzip

    import pyarrow as pa

    if path.suffix == ".zst":
        lines = pa.input_stream(str(path), compression="zstd").read().splitlines()
    else:
        lines = gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")
    return sum(1 for line in lines if json.loads(line)["messages"])


def stream(path):
    import datasets

    assert datasets.__version__ == "5.2.0"
    kind = "parquet" if path.suffix == ".parquet" else "json"
    return datasets.load_dataset(kind, data_files=str(path), split="train", streaming=True)


def hf_datasets(path):
    return sum(1 for row in stream(path) if row["messages"])


PEERS = {"json": python_json, "datasets": hf_datasets}


def seconds(command):
    """Processor seconds of a process."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def peer(name, path):
    call = [sys.executable, __file__, name]
    (empty, _), (whole, memory) = seconds([*call, "-"]), seconds([*call, str(path)])
    return whole - empty, memory


def main():
    program = build()
    subprocess.run([program, "--write"], check=True)
    folder = TARGET / "tmp"
    size = (folder / FILES[0]).stat().st_size / 1e6
    print(f"{size:.1f} MB of plain text")
    for name in FILES:
        path = folder / name
        readers = {"ours": lambda: seconds([program, "--read", str(path)])}
        for other in PEERS:
            # datasets reads zstd only with another package, json no Parquet.
            if (other, path.suffix) not in [("datasets", ".zst"), ("json", ".parquet")]:
                readers[other] = lambda other=other: peer(other, path)
        rounds = [{reader: read() for reader, read in readers.items()} for _ in range(ROUNDS)]
        times = {reader: statistics.median(one[reader][0] for one in rounds) for reader in readers}
        text = f"{name:15}"
        for reader, time in times.items():
            text += f"  {reader} {size / time:.0f} MB/s, {max(one[reader][1] for one in rounds):.0f} MiB"
            if reader != "ours":
                ratios = [one[reader][0] / one["ours"][0] for one in rounds]
                text += f", ratio {time / times['ours']:.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        print(text, flush=True)
    lines = [json.loads(line) for line in open(folder / FILES[0], encoding="utf-8")]
    for name in ["rows.jsonl.gz", "rows.parquet"]:
        for row, expected in zip(stream(folder / name), lines, strict=True):
            assert row == expected, (name, row, expected)
    print("datasets reads what we wrote")


if len(sys.argv) == 3:
    reader, file = sys.argv[1:]
    if file == "-":
        import pyarrow

        if reader == "datasets":
            import datasets
    else:
        assert PEERS[reader](Path(file)) == 20_000
else:
    main()
