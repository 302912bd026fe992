"""Renders per second: posttrain-chat against transformers' apply_chat_template.

    python -m venv venv && venv/bin/pip install transformers==5.23.0 jinja2==3.1.6
    venv/bin/python benches/peers/render.py

For each template of `crates/chat/benches/render.rs`, both sides render the same conversations (all
fixture cases that the template accepts), one thread each, in turn: first the criterion bench, then
transformers. Prints a line per template and the geometric mean of the ratios.
"""

import json
import math
import os
import re
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


def ours(names):
    """Nanoseconds per pass over the chats, by template, from criterion's own estimate."""
    subprocess.run(["cargo", "bench", "-q", "-p", "posttrain-chat", "--bench", "render"], cwd=ROOT,
                   check=True, stdout=subprocess.DEVNULL)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    read = lambda name: json.loads(
        (target / "criterion/render" / name / "new/estimates.json").read_text())
    return {name: read(name)["median"]["point_estimate"] for name in names}


def theirs(name, cases):
    """(chats, nanoseconds per pass), the median of the passes of two seconds."""
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
    passes = []
    until = time.perf_counter() + 2
    while time.perf_counter() < until:
        start = time.perf_counter_ns()
        for messages, arguments in chats:
            tokenizer.apply_chat_template(messages, tokenize=False, **arguments)
        passes.append(time.perf_counter_ns() - start)
    return len(chats), sorted(passes)[len(passes) // 2]


def main():
    source = (ROOT / "crates/chat/benches/render.rs").read_text()
    names = re.findall(r'^    "(\w+__[^"]+)",$', source, re.M)
    cases = json.loads((FIXTURES / "cases.json").read_text())
    mine = ours(names)
    ratios = []
    print(f"{'template':48} {'chats':>5} {'ours /s':>9} {'transformers /s':>15} {'ratio':>6}")
    for name in names:
        count, peer = theirs(name, cases)
        ratios.append(peer / mine[name])
        print(f"{name:48} {count:5} {count / mine[name] * 1e9:9.0f} {count / peer * 1e9:15.0f} "
              f"{ratios[-1]:6.1f}")
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"geometric mean of the ratios {mean:.1f}, lowest {min(ratios):.1f}")


main()
