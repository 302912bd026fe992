"""Merges of checkpoints: posttrain-merge against mergekit, and against reading and writing the bytes once.

    python -m venv venv && venv/bin/pip install mergekit==0.1.5 torch==2.15.0 transformers==5.24.0
    cargo build --release --example merge
    venv/bin/python benches/peers/merge.py --work FOLDER [--merge PROGRAM] [--rounds N] [--scale small] [--only ties...]

Three checkpoints of 513 million parameters in bf16 (a Llama: vocabulary 32000, hidden 1536, intermediate 4096, 16
layers, 16 heads, 8 key-value heads; 1.03 GB each) are written to FOLDER once: random weights, and two models a small
delta away from them. For each method and round, in turn: mergekit, ours, and the floor. Whole process against whole
process, from the start of the program until its output has been flushed to the disk (fsync of every file, inside the
time for both). The inputs are read before each run, so that they come from the page cache.

- `import`: the time of `mergekit-yaml --help`, which loads what a merge loads.
- `anonymous`: the largest resident anonymous memory of the process (RssAnon, read every 20 ms; unlike
  smaps_rollup, whose `Anonymous` is the same sum, it does not walk the page tables of the mapped inputs, which would
  slow the process down). `resident`: its peak with the mapped files (VmHWM; the peak that wait4 gives includes that
  of the process that started it).
- floor: two threads read all inputs into buffers, then two threads write a file of the size of the output and flush
  it; no arithmetic.

Without `dtype` in the configuration, mergekit computes in bf16 except in linear and slerp; with `--dtype float32` both
sides compute in f32 and write bf16. The configurations are in FOLDER.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import support

SCALES = {
    "full": dict(vocab_size=32000, hidden_size=1536, intermediate_size=4096, num_hidden_layers=16,
                 num_attention_heads=16, num_key_value_heads=8),
    "small": dict(vocab_size=4096, hidden_size=512, intermediate_size=1408, num_hidden_layers=6,
                  num_attention_heads=8, num_key_value_heads=4),
}
TWO = {"weight": 0.5, "density": 0.5}
# Method: base model, inputs with their parameters, shared parameters.
METHODS = {
    "linear": (None, {"a": {"weight": 0.6}, "b": {"weight": 0.4}}, {}),
    "slerp": ("a", {"a": {}, "b": {}}, {"t": 0.4}),
    "ties": ("base", {"a": TWO, "b": TWO}, {}),
    "dare_ties": ("base", {"a": TWO, "b": TWO}, {}),
    "della": ("base", {"a": TWO, "b": TWO}, {}),
    "model_stock": ("base", {"a": {}, "b": {}}, {}),
    "passthrough": (None, {"a": {}}, {}),
}
SAME = ["linear", "slerp", "model_stock", "passthrough"]  # Nothing is drawn and nothing selected.
PIECE = 8 << 20
CONTENT = os.urandom(PIECE)


def shapes(scale):
    sizes = SCALES[scale]
    hidden, wide = sizes["hidden_size"], sizes["intermediate_size"]
    keys = hidden // sizes["num_attention_heads"] * sizes["num_key_value_heads"]
    found = {"model.embed_tokens.weight": (sizes["vocab_size"], hidden), "lm_head.weight": (sizes["vocab_size"], hidden),
             "model.norm.weight": (hidden,)}
    for i in range(sizes["num_hidden_layers"]):
        at = f"model.layers.{i}"
        for name, shape in [("q_proj", (hidden, hidden)), ("k_proj", (keys, hidden)), ("v_proj", (keys, hidden)),
                            ("o_proj", (hidden, hidden))]:
            found[f"{at}.self_attn.{name}.weight"] = shape
        found |= {f"{at}.mlp.gate_proj.weight": (wide, hidden), f"{at}.mlp.up_proj.weight": (wide, hidden),
                  f"{at}.mlp.down_proj.weight": (hidden, wide), f"{at}.input_layernorm.weight": (hidden,),
                  f"{at}.post_attention_layernorm.weight": (hidden,)}
    return found


def make_checkpoints(folder, scale):
    """base, a and b; nothing where they are already."""
    import torch
    from safetensors.torch import save_file
    if (folder / "made").exists():
        return
    draw = torch.Generator().manual_seed(0)
    config = SCALES[scale] | dict(
        architectures=["LlamaForCausalLM"], model_type="llama", dtype="bfloat16", hidden_act="silu",
        max_position_embeddings=2048, rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
    models = {"base": {}, "a": {}, "b": {}}
    for name, shape in shapes(scale).items():
        weight = 0.02 * torch.randn(shape, generator=draw) + ("norm" in name)
        models["base"][name] = weight.bfloat16()
        for tuned in "ab":
            models[tuned][name] = (weight + 0.002 * torch.randn(shape, generator=draw)).bfloat16()
    for name, tensors in models.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(config, indent=1))
        save_file(tensors, folder / name / "model.safetensors", {"format": "pt"})
    count = sum(tensor.numel() for tensor in models["base"].values())
    (folder / "made").write_text(f"{count} parameters\n")


def configuration(folder, method, dtype):
    base, inputs, shared = METHODS[method]
    config = {"merge_method": method}
    if base:
        config["base_model"] = str(folder / base)
    config["models"] = [{"model": str(folder / m)} | ({"parameters": p} if p else {}) for m, p in inputs.items()]
    if shared:
        config["parameters"] = shared
    if dtype:
        config |= {"dtype": dtype, "out_dtype": "bfloat16"}
    path = folder / f"{method}.yaml"
    path.write_text(json.dumps(config, indent=1) + "\n")  # JSON is YAML.
    files = [folder / m / "model.safetensors" for m in dict.fromkeys([*inputs, *([base] if base else [])])]
    return path, files


def in_two_threads(work, pieces):
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, pieces[i::2]) for i in range(2)]:
            done.result()


def read(files):
    """All bytes of the files, by two threads."""
    pieces = [(path, at) for path in files for at in range(0, path.stat().st_size, PIECE)]

    def some(pieces):
        buffer = memoryview(bytearray(PIECE))
        handles = {path: open(path, "rb", buffering=0) for path in files}
        for path, at in pieces:
            os.preadv(handles[path].fileno(), [buffer], at)
        for handle in handles.values():
            handle.close()
    in_two_threads(some, pieces)


def write(path, size):
    """A file of that size, by two threads, flushed to the disk."""
    content = memoryview(CONTENT)
    with open(path, "wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, size)  # As ours: a place on the disk first, which is faster here.

        def some(places):
            for at in places:
                os.pwrite(file.fileno(), content[: min(PIECE, size - at)], at)
        in_two_threads(some, list(range(0, size, PIECE)))
        os.fsync(file.fileno())


def flush(folder):
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def watch(command, env, out):
    """Seconds until the output is on the disk, peak anonymous and resident memory in MiB."""
    peak, over = {"RssAnon": 0, "VmHWM": 0}, threading.Event()

    def follow(status):
        while not over.wait(0.02):
            try:
                lines = [line.split() for line in status.read_text().splitlines()]
            except OSError:
                return
            for line in lines:  # A process that has ended has none of the two.
                if (key := line[0].rstrip(":")) in peak:
                    peak[key] = max(peak[key], int(line[1]))

    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, env=env, stdout=said, stderr=said)
        follower = threading.Thread(target=follow, args=[Path(f"/proc/{process.pid}/status")])
        follower.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended = time.perf_counter()
        if process.returncode == 0 and out:
            flush(out)
        seconds = time.perf_counter() - start
        over.set()
        follower.join()
        if process.returncode != 0:
            said.seek(0)
            sys.exit(f"{command} failed:\n{said.read()[-4000:]}")
    return dict(seconds=seconds, flush=seconds - (ended - start), anonymous=peak["RssAnon"] / 1024,
                resident=peak["VmHWM"] / 1024, processor=usage.ru_utime + usage.ru_stime)


def floor(folder, files, size):
    path = folder / "floor"
    path.unlink(missing_ok=True)
    start = time.perf_counter()
    read(files)
    between = time.perf_counter()
    write(path, size)
    end = time.perf_counter()
    path.unlink()
    return dict(seconds=end - start, reading=between - start, writing=end - between)


def difference(one, other):
    """The largest difference of some tensors of two outputs."""
    from safetensors import safe_open
    worst, tensors = 0.0, {}
    for folder in (one, other):
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    if ".layers.1." in name or name == "model.norm.weight":
                        tensors.setdefault(name, []).append(file.get_tensor(name).float())
    for name, pair in tensors.items():
        if len(pair) != 2:
            sys.exit(f"{name} is in one output only")
        worst = max(worst, (pair[0] - pair[1]).abs().max().item())
    return worst


def measure(folder, sides, methods, rounds, threads, dtype):
    env = support.environment(threads, folder) | {"TRANSFORMERS_OFFLINE": "1"}
    runs = []

    def note(**run):
        runs.append(run)
        print(json.dumps(run), flush=True)

    for turn in range(rounds):
        if "mergekit" in sides:
            note(side="import", round=turn, **watch([sides["mergekit"][0], "--help"], env, None))
    for method in methods:
        config, files = configuration(folder, method, dtype)
        for turn in range(rounds):
            for side, command in sides.items():
                out = folder / f"out_{side}"
                shutil.rmtree(out, ignore_errors=True)
                read(files)
                os.sync()  # What others have left to write.
                command = [command[0], str(config), str(out), *command[1:]]
                note(side=side, method=method, round=turn, **watch(command, env, out))
            size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
            read(files)
            os.sync()
            note(side="floor", method=method, round=turn, **floor(folder, files, size))
        if method in SAME and len(sides) == 2:
            note(side="difference", method=method, largest=difference(*(folder / f"out_{side}" for side in sides)))
    for side in sides:
        shutil.rmtree(folder / f"out_{side}", ignore_errors=True)
    return runs


def table(runs, methods):
    def pick(side, what, method=None, how=statistics.median):
        found = [run[what] for run in runs if run["side"] == side and run.get("method") == method]
        return how(found) if found else None

    def show(value, form="{:.2f}"):
        return form.format(value) if value is not None else ""

    loading = pick("import", "seconds")
    print("\n| method | ours s | mergekit s | of it import s | times as fast | without import | ours anonymous MiB "
          "| mergekit anonymous MiB | ours resident MiB | mergekit resident MiB | floor s | ours to floor |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for method in methods:
        ours, theirs, least = (pick(side, "seconds", method) for side in ("ours", "mergekit", "floor"))
        both = ours is not None and theirs is not None
        memory = [show(pick(side, what, method, max), "{:.0f}")
                  for what in ("anonymous", "resident") for side in ("ours", "mergekit")]
        cells = [method, show(ours), show(theirs), show(loading), show(theirs / ours if both else None, "{:.1f}"),
                 show((theirs - loading) / ours if both else None, "{:.1f}"), *memory, show(least),
                 show(ours / least if ours else None)]
        print("| " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True, help="where the checkpoints are made and kept")
    parser.add_argument("--merge", type=Path, default=support.ROOT / "target/release/examples/merge")
    parser.add_argument("--mergekit", type=Path, default=Path(sys.executable).parent / "mergekit-yaml")
    parser.add_argument("--sides", nargs="+", choices=["mergekit", "ours"], default=["mergekit", "ours"])
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--scale", choices=list(SCALES), default="full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", choices=["float32"])
    chosen = parser.parse_args()
    commands = {
        "mergekit": [str(chosen.mergekit), "--lazy-unpickle", "--allow-crimes", "--no-write-model-card", "--quiet",
                     "--no-copy-tokenizer", "-j", str(chosen.threads), "--random-seed", "0"],
        "ours": [str(chosen.merge)],
    }
    sides = {side: commands[side] for side in chosen.sides}
    for command in sides.values():
        if not Path(command[0]).exists():
            sys.exit(f"there is no {command[0]}")
    found = importlib.metadata.version("mergekit")
    if "mergekit" in sides and found != "0.1.5":
        sys.exit(f"mergekit {found}, expected 0.1.5")
    folder = chosen.work.resolve() / chosen.scale
    make_checkpoints(folder, chosen.scale)
    print((folder / "made").read_text().strip(), file=sys.stderr)
    runs = measure(folder, sides, chosen.only, chosen.rounds, chosen.threads, chosen.dtype)
    table(runs, chosen.only)


if __name__ == "__main__":
    main()
