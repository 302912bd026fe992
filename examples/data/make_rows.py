"""Rows to try fine-tuning on: sorting, counting and sums in words, as conversations and as plain text.

    python examples/data/make_rows.py        # writes conversations.jsonl and text.jsonl beside itself

Made up here, from a fixed seed; no licence of others applies.
"""

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo"]
THINGS = ["apples", "books", "cards", "dates", "eggs", "figs"]


def conversation(r):
    kind = r.choice(["sort", "sum", "count"])
    if kind == "sort":
        digits = r.sample(range(10), 5)
        question = "Sort these digits: " + " ".join(map(str, digits))
        answer = " ".join(map(str, sorted(digits)))
    elif kind == "sum":
        a, b, name, thing = r.randrange(2, 30), r.randrange(2, 30), r.choice(NAMES), r.choice(THINGS)
        question = f"{name} has {a} {thing} and gets {b} more. How many are there now?"
        answer = f"{name} has {a + b} {thing} now."
    else:
        things = [r.choice(THINGS) for _ in range(6)]
        question = f"How often do {things[0]} stand here: {', '.join(things)}?"
        answer = str(things.count(things[0]))
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def text(r):
    name, thing, a, b = r.choice(NAMES), r.choice(THINGS), r.randrange(2, 30), r.randrange(2, 30)
    return {"text": f"{name} went to the market and bought {a} {thing}. On the way home {name} met a friend, "
                    f"who had {b} {thing}. Together they had {a + b}."}


def main():
    r = random.Random(7)
    for name, make, count in [("conversations", conversation, 200), ("text", text, 100)]:
        with open(HERE / f"{name}.jsonl", "w") as file:
            for _ in range(count):
                file.write(json.dumps(make(r)) + "\n")


if __name__ == "__main__":
    main()
