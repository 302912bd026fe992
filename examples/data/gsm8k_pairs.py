"""Preference rows from solutions of four models to GSM8K's problems, right and wrong ones.

    curl -LO https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data/example_model_solutions.jsonl
    python examples/data/gsm8k_pairs.py example_model_solutions.jsonl --out gsm8k [--kinds pairs unpaired steps]

https://github.com/openai/grade-school-math, MIT License, Copyright (c) 2021 OpenAI. The problems are those of GSM8K's TEST
set: a model trained on these rows must not be compared with others on it. Needs only Python's standard library.

    pairs     prompt, chosen, rejected: every right solution of a problem with every wrong one (or --per-question)
    unpaired  prompt, completion, label: every solution
    steps     prompt, completions, labels: every solution, cut into its lines

Prompts and answers are messages; in `steps` they are texts. Every row has `question`, the line of the problem in the
file (from 0), and the names of the models. Each kind goes to OUT_KIND.jsonl and OUT_KIND_eval.jsonl: all rows of a
problem are in the same one of the two. Rows are shuffled, so that neighbours have different prompts, which KTO wants.

The labels of `steps` are WEAK, made here and by nobody who read the solutions: all steps of a right solution are right.
In a wrong one steps are right up to the first with a calculated result that is in no right solution to the problem,
and its last step, the answer, is wrong.
"""

import argparse
import json
import random
import re
import sys
from collections import Counter
from pathlib import Path

CALCULATOR = re.compile(r"<<[^<>]*>>")
RESULT = re.compile(r"=\s*([-+]?[\d.,]+)\s*>>")
KINDS = ["pairs", "unpaired", "steps"]


def read(path):
    """The problems of the file, as (question, reference, {model: (right, solution)})."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                solutions = {name: (bool(value["is_correct"]), value["solution"].strip())
                             for name, value in row.items() if isinstance(value, dict)}
                yield row["question"].strip(), row["ground_truth"].strip(), solutions
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                sys.exit(f"{path}, line {number}: not a row of example_model_solutions.jsonl ({error!r})")


def results(text):
    """The numbers that the calculator gave."""
    found = set()
    for number in RESULT.findall(text):
        try:
            found.add(float(number.replace(",", "")))
        except ValueError:
            continue
    return found


def step_labels(lines, right, known):
    """Weak labels of the lines, which still have their calculations."""
    if right:
        return [True] * len(lines)
    labels, good = [], True
    for line in lines:
        good = good and results(line) <= known
        labels.append(good)
    labels[-1] = False
    return labels


def message(role, content):
    return [{"role": role, "content": content}]


def rows_of(index, question, reference, solutions, args, r, counts):
    """The rows of one problem, by kind."""
    def clean(text):
        return text if args.keep_calculator else CALCULATOR.sub("", text)

    if args.ground_truth:
        solutions = {"ground_truth": (True, reference)} | solutions
    by_text = {}
    for model, (right, text) in solutions.items():
        by_text.setdefault(clean(text), []).append((model, right, text))
    kept = []
    for text, same in by_text.items():
        counts["duplicates"] += len(same) - 1
        if not text:
            counts["empty"] += 1
        elif len({right for _, right, _ in same}) > 1:
            counts["both right and wrong"] += 1
        else:
            kept.append((text, *same[0]))
    good, bad = ([s for s in kept if s[2] is right] for right in [True, False])
    counts["questions"] += 1
    counts["only right"] += bool(good and not bad)
    counts["only wrong"] += bool(bad and not good)

    prompt = message("user", question)
    pairs = [dict(prompt=prompt, chosen=message("assistant", c[0]), rejected=message("assistant", w[0]), question=index,
                  chosen_model=c[1], rejected_model=w[1]) for c in good for w in bad]
    if args.per_question and len(pairs) > args.per_question:
        pairs = r.sample(pairs, args.per_question)
    unpaired = [dict(prompt=prompt, completion=message("assistant", text), label=right, question=index, model=model)
                for text, model, right, _ in kept]
    known = results(reference).union(*(results(whole) for _, _, right, whole in kept if right))
    steps = []
    for _, model, right, whole in kept:
        lines = [line for line in whole.split("\n") if clean(line).strip()]
        steps.append(dict(prompt=question, completions=[clean(line).strip() for line in lines],
                          labels=step_labels(lines, right, known), question=index, model=model))
    return dict(pairs=pairs, unpaired=unpaired, steps=steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("solutions", type=Path, help="example_model_solutions.jsonl")
    parser.add_argument("--out", required=True, help="how the names of the written files begin")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["pairs"])
    parser.add_argument("--per-question", type=int, default=0, help="at most so many pairs of a problem (0: all)")
    parser.add_argument("--held-out", type=float, default=0.1, help="the part of the problems for _eval")
    parser.add_argument("--limit", type=int, help="at most so many rows")
    parser.add_argument("--limit-eval", type=int, help="at most so many rows in _eval (0: no file)")
    parser.add_argument("--keep-calculator", action="store_true", help="keep the annotations <<1+1=2>>")
    parser.add_argument("--ground-truth", action="store_true", help="GSM8K's own solution is a right one too")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    r, counts = random.Random(args.seed), Counter()
    problems = list(read(args.solutions))
    held_out = set(r.sample(range(len(problems)), round(args.held_out * len(problems))))
    rows = {(kind, part): [] for kind in args.kinds for part in ["", "_eval"]}
    for index, problem in enumerate(problems):
        made = rows_of(index, *problem, args, r, counts)
        for kind in args.kinds:
            rows[kind, "_eval" if index in held_out else ""] += made[kind]
    print(f"{counts['questions']} questions ({len(held_out)} held out): {counts['only right']} have only right "
          f"solutions, {counts['only wrong']} only wrong ones; left out: {counts['duplicates']} duplicates, "
          f"{counts['both right and wrong']} both right and wrong, {counts['empty']} empty")
    for (kind, part), found in rows.items():
        limit = args.limit_eval if part else args.limit
        r.shuffle(found)
        kept = found if limit is None else found[:limit]
        if not kept:
            continue
        path = Path(f"{args.out}_{kind}{part}.jsonl")
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")
        print(f"{path}: {len(kept)} of {len(found)} rows")


if __name__ == "__main__":
    main()
