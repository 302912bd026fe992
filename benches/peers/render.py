"""Renders per second: posttrain-chat against transformers' apply_chat_template.

    python -m venv venv && venv/bin/pip install transformers==5.23.0 jinja2==3.1.6
    venv/bin/python benches/peers/render.py

For each template of `crates/chat/benches/render.rs`, both sides render the same conversations (all
fixture cases that the template accepts), one thread each, in turn: three rounds of the criterion
bench, then transformers, two seconds each. The ratio is that of the medians over the rounds. Prints a
line per template, with the lowest and highest ratio of a single round, and the geometric mean.
"""

import json
import math
import os
import re
import statistics
import subprocess
import time
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import transformers
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

assert transformers.__version__ == "5.23.0", transformers.__version__

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/fixtures/chat_templates"
ROUNDS = 3
SECONDS = 2


def build():
    """Path of the bench program."""
    out = subprocess.run(
        ["cargo", "bench", "-q", "-p", "posttrain-chat", "--bench", "render", "--no-run",
         "--message-format=json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    built = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return next(b["executable"] for b in built if b.get("executable"))


def ours(program, name):
    """Nanoseconds per pass over the chats: criterion's median."""
    subprocess.run([program, "--bench", "--noplot", "--warm-up-time", "0.5", "--measurement-time",
                    str(SECONDS), f"render/{name}$"], cwd=ROOT, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    estimates = target / "criterion/render" / name / "new/estimates.json"
    return json.loads(estimates.read_text())["median"]["point_estimate"]


def peer(name, cases):
    """The tokenizer and the arguments of each call."""
    expected = json.loads((FIXTURES / f"expected/{name}.json").read_text())["results"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>",
                                        eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    tokenizer.chat_template = (FIXTURES / f"templates/{name}.jinja").read_bytes().decode()
    chats = [
        (case["messages"], {
            "tools": case.get("tools"),
            "documents": case.get("documents"),
            "add_generation_prompt": case["add_generation_prompt"],
            **case["variables"],
        })
        for case in cases
        if "text" in expected[case["name"]] and not case["continue_final_message"]
    ]
    return tokenizer, chats


def theirs(tokenizer, chats):
    """Nanoseconds per pass over the chats: the median of the passes."""
    passes = []
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter_ns()
        for messages, arguments in chats:
            tokenizer.apply_chat_template(messages, tokenize=False, **arguments)
        passes.append(time.perf_counter_ns() - start)
    return statistics.median(passes)


def main():
    source = (ROOT / "crates/chat/benches/render.rs").read_text()
    names = re.findall(r'^    "(\w+__[^"]+)",$', source, re.M)
    cases = json.loads((FIXTURES / "cases.json").read_text())
    program = build()
    ratios = []
    print(f"{'template':46} {'chats':>5} {'ours /s':>8} {'transformers /s':>15} {'ratio':>6}  rounds")
    for name in names:
        tokenizer, chats = peer(name, cases)
        rounds = [(ours(program, name), theirs(tokenizer, chats)) for _ in range(ROUNDS)]
        mine, other = (statistics.median(side) for side in zip(*rounds))
        single = [b / a for a, b in rounds]
        ratios.append(other / mine)
        print(f"{name:46} {len(chats):5} {len(chats) / mine * 1e9:8.0f} {len(chats) / other * 1e9:15.0f} "
              f"{ratios[-1]:6.1f}  {min(single):.1f}-{max(single):.1f}", flush=True)
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"geometric mean of the ratios {mean:.1f}, lowest {min(ratios):.1f}")


main()
