#!/usr/bin/python3
"""Table, figure and data of bench/learning.sh, from the log of each run.

    learning_report.py note FOLDER --model NAME [--threads N] [--minutes M] [--peak BYTES]
    learning_report.py report RUNS OUT [--name learning]

note    writes FOLDER/result.json for a run of Corvid: what its log and its model say.
report  takes all folders of RUNS that have a result.json; those with an accuracy are of pictures, the
        others of text. Writes NAME.json, NAME.md and NAME.svg into OUT.

The clock of all figures is that of training. train_peers.py logs just that; in Corvid's logs the seconds
of a step in which something was evaluated or saved, and of the first, count as those of a middling
one. Trains nothing.
"""
import argparse
import json
import math
import os
import statistics
import sys

from resolution_report import label_heights, significant, text

MIB = 1 << 20
COLOURS = ("#0b6e4f", "#b3401f", "#5a6b9a", "#a8780b", "#7a3b8f", "#333333")
MOMENTS = (5, 15, 30, 60)  # minutes
SLACK = 1.05               # an evaluation waits for its step to end
RECENT = 1.5               # nor is it of long before


# ---- Data ----------------------------------------------------------------------------------------

def read_log(folder, of_training):
    """Lines of log.jsonl with "clock", the seconds of training so far; of_training: as they are."""
    with open(os.path.join(folder, "log.jsonl")) as f:
        lines = [json.loads(line) for line in f if line.strip()]
    spent = [b["seconds"] - a["seconds"] for a, b in zip([{"seconds": 0}] + lines, lines)]
    middle, clock = statistics.median(spent), 0.0
    for i, (line, seconds) in enumerate(zip(lines, spent)):
        aside = not of_training and (
            i == 0 or any(key in line for key in ("validation", "accuracy", "saved")))
        clock += min(seconds, middle) if aside else seconds
        line["clock"] = clock
    return lines


def count_parameters(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    header.pop("__metadata__", None)
    return sum(math.prod(entry["shape"]) for entry in header.values() if entry["dtype"] == "F32")


def note(o):
    log = read_log(o.folder, False)
    result = {"model": o.model, "steps": log[-1]["step"], "threads": o.threads,
              "minutes": o.minutes, "peak_bytes": o.peak,
              "parameters": count_parameters(os.path.join(o.folder, "model.safetensors"))}
    with open(os.path.join(o.folder, "result.json"), "w") as f:
        f.write(json.dumps(result) + "\n")


def at_moment(points, minutes):
    """The last value measured by then and not long before; None: none."""
    before = [value for clock, value in points
              if 60 * minutes / RECENT <= clock <= 60 * minutes * SLACK]
    return before[-1] if before else None


def read_runs(folder):
    runs = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not os.path.exists(os.path.join(path, "result.json")):
            continue
        with open(os.path.join(path, "result.json")) as f:
            run = json.load(f)
        log = read_log(path, run.get("clock") == "training")
        key = "accuracy" if any("accuracy" in line for line in log) else "validation"
        seen = "tokens" if "tokens" in log[-1] and log[-1]["tokens"] else "pictures"
        run.update(run=name, kind="pictures" if key == "accuracy" else "text",
                   seen=log[-1][seen], per_s=log[-1][seen] / log[-1]["clock"],
                   points=[(line["clock"], line[key]) for line in log if key in line])
        if run["points"]:
            runs.append(run)
        else:
            print(f"{path}: nothing was evaluated, left out", file=sys.stderr)
    return runs


# ---- Tables --------------------------------------------------------------------------------------

def shown(value, kind):
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if kind == "pictures" else f"{value:.4f}"


def moments_of(runs):
    longest = max(run["minutes"] for run in runs)
    return [m for m in MOMENTS if m < longest] + [longest]


def table(runs, kind):
    moments = moments_of(runs)
    head = ["model", "parameters", "steps", "bytes" if kind == "text" else "pictures",
            "a second", "peak MiB"] + [f"{m:g} min" for m in moments]
    if kind == "text":
        head += ["best", "bits per byte"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---|" * (len(head) - 1)]
    sign = -1 if kind == "text" else 1
    for run in sorted(runs, key=lambda run: -sign * run["points"][-1][1]):
        row = [run["model"], f"{run['parameters']:,}", f"{run['steps']:,}", f"{run['seen']:,}",
               significant(run["per_s"]),
               f"{run['peak_bytes'] / MIB:,.0f}" if run.get("peak_bytes") else "-"]
        row += [shown(at_moment(run["points"], m), kind) for m in moments]
        if kind == "text":
            best = min(value for _, value in run["points"])
            row += [f"{best:.4f}", f"{best / math.log(2):.3f}"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


# ---- Figure --------------------------------------------------------------------------------------

class Panel:
    """Linear axes in a rectangle of the picture: minutes to the right."""

    def __init__(self, left, minutes, values, kind):
        self.left, self.top, self.width, self.height = left, 50, 390, 330
        self.minutes, self.kind = minutes, kind
        low, high = min(values), max(values)
        if kind == "text":
            high = min(high, low + 1.2)
        self.step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
                         if (high - low) / s <= 8)
        self.low = self.step * math.floor(low / self.step)
        self.high = self.step * math.ceil(high / self.step + 1e-9)

    def x(self, minutes):
        return self.left + self.width * minutes / self.minutes

    def y(self, value):
        share = (value - self.low) / (self.high - self.low)
        return self.top + self.height * (1 - min(1.0, max(0.0, share)))

    def axes(self, title):
        right, floor = self.left + self.width, self.top + self.height
        parts = [text(self.left, self.top - 14, title, "start", "#111", 15, "bold")]
        for i in range(round((self.high - self.low) / self.step) + 1):
            value = self.low + i * self.step
            words = f"{100 * value:.0f} %" if self.kind == "pictures" else f"{value:.2f}"
            parts.append(f'<path d="M{self.left} {self.y(value):.1f}H{right}" stroke="#ddd"/>')
            parts.append(text(self.left - 8, self.y(value) + 4, words, "end"))
        every = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60) if self.minutes / s <= 7),
                     120)
        for i in range(int(self.minutes / every + 1e-9) + 1):
            parts.append(f'<path d="M{self.x(i * every):.1f} {floor}v5" stroke="#333"/>')
            parts.append(text(self.x(i * every), floor + 19, f"{i * every:g}", size=11))
        parts.append(f'<path d="M{self.left} {floor}H{right}" stroke="#333"/>')
        parts.append(text(self.left + self.width / 2, floor + 42, "minutes of training"))
        return parts


def panel_parts(runs, left, kind):
    minutes = max(max(run["minutes"] for run in runs),
                  max(run["points"][-1][0] for run in runs) / 60)
    panel = Panel(left, minutes, [value for run in runs for _, value in run["points"]], kind)
    parts = panel.axes("Validation, nats per byte" if kind == "text"
                       else "Right ones of the test set")
    ends, places = {}, {}
    for run, colour in zip(runs, COLOURS):
        line = [(panel.x(clock / 60), panel.y(value)) for clock, value in run["points"]]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in line]
        ends[run["model"]], places[run["model"]] = line[-1][1], (line[-1][0], colour)
    for model, y in label_heights(ends).items():
        x, colour = places[model]
        parts.append(text(x + 9, y + 4, model, "start", colour))
    return parts


def figure(kinds):
    width = 20 + 595 * len(kinds)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="440" '
             f'viewBox="0 0 {width} 440" font-family="Helvetica, Arial, sans-serif">',
             "<title>What is learned in so many minutes</title>",
             f'<rect width="{width}" height="440" fill="white"/>']
    for i, (kind, runs) in enumerate(kinds.items()):
        parts += panel_parts(runs, 65 + 595 * i, kind)
    return "\n".join(parts + ["</svg>"]) + "\n"


# ---- The command ---------------------------------------------------------------------------------

def overtime(runs):
    """Runs whose trial promised more speed than there was."""
    for run in runs:
        took = run["points"][-1][0] / 60
        if took > run["minutes"] * SLACK:
            yield (f"{run['model']} ended after {took:.3g} minutes instead of {run['minutes']:g}: the "
                   "machine was busier than in its trial.")


def report(o):
    runs = read_runs(o.runs)
    if not runs:
        sys.exit(f"learning_report.py: {o.runs} has no finished run")
    kinds = {}
    for run in runs:
        kinds.setdefault(run["kind"], []).append(run)
    threads = sorted({run["threads"] for run in runs})
    words = ["# What is learned in the same time", "", "    bench/learning.sh", "",
             f"On {' and '.join(map(str, threads))} thread{'s' * (threads[-1] > 1)} of one machine, one run after another, "
             "from nothing; evaluating", "does not count. RWKV and VRWKV by Corvid, GPT and ViT by "
             "PyTorch.", ""]
    if "text" in kinds:
        words += ["Text: nats per byte over the whole last tenth, in windows that do not overlap, "
                  "each from an empty state.", "", table(kinds["text"], "text"), ""]
    if "pictures" in kinds:
        words += ["Pictures: right ones of the whole test set.", "",
                  table(kinds["pictures"], "pictures"), ""]
    for sentence in overtime(runs):
        words += [sentence, ""]
    words += [f"![what is learned against the time of training]({o.name}.svg)", ""]
    contents = {".json": json.dumps(runs, indent=1) + "\n", ".md": "\n".join(words),
                ".svg": figure(kinds)}
    write_results(o.out, o.name, contents)


def write_results(folder, name, contents):
    """Files NAME.ENDING, and the words to standard output."""
    os.makedirs(folder, exist_ok=True)
    for ending, content in contents.items():
        with open(os.path.join(folder, name + ending), "w") as f:
            f.write(content)
    print(contents[".md"], end="")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = p.add_subparsers(dest="verb", required=True)
    v = verbs.add_parser("note")
    v.add_argument("folder")
    v.add_argument("--model", required=True)
    v.add_argument("--threads", type=int, default=2)
    v.add_argument("--minutes", type=float, default=30)
    v.add_argument("--peak", type=int, default=0)
    v = verbs.add_parser("report")
    v.add_argument("runs")
    v.add_argument("out")
    v.add_argument("--name", default="learning")
    o = p.parse_args()
    {"note": note, "report": report}[o.verb](o)


if __name__ == "__main__":
    main()
