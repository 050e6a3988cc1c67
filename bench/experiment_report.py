#!/usr/bin/python3
"""Table, figure, data and verdict of bench/experiment.sh, from the log of each run.

    experiment_report.py note FOLDER --model MODEL --seed N --steps N --lr R --threads N --commit ID
    experiment_report.py report EXPERIMENT RUNS OUT [--seeds "1 2 3"] [--models "rwkv4 ..."]

note    writes FOLDER/done for a finished run: what it was, and the sizes of its model.
report  takes the folders MODEL-sSEED of RUNS that are done. Writes EXPERIMENT.csv, .json, .md and .svg
        into OUT; the same runs give the same bytes.

Marks and reference values are those of the specification, set before anything ran. Trains nothing.
"""
import argparse
import csv
import io
import json
import math
import os
import sys

from learning_report import Panel, count_parameters, write_results
from resolution_report import label_heights, text

NAMES = {"rwkv4": "RWKV-4", "rwkv7": "RWKV-7", "gpt": "GPT", "lstm": "LSTM",
         "aft-full": "AFT-full", "aft-local": "AFT-local", "aft-simple": "AFT-simple",
         "rwkv4-no-shift": "RWKV-4 without shift"}
# Told apart by those who see few colours, too.
COLOURS = {"rwkv4": "#0072b2", "rwkv7": "#56a0d3", "gpt": "#d55e00", "lstm": "#000000",
           "aft-full": "#009e73", "aft-local": "#b8860b", "aft-simple": "#b0578d",
           "rwkv4-no-shift": "#d55e00"}
# Of one run each, of the same 65 characters: loss after 1,000 and 2,000 steps.
REFERENCE = {"rwkv4": (1.671, 1.589), "aft-local": (1.99, 1.820), "aft-full": (1.992, 1.821),
             "lstm": (1.926, 1.832), "gpt": (2.093, 1.902), "aft-simple": (2.102, 1.929),
             "rwkv4-no-shift": (1.747, 1.641)}
REFERENCE_STEPS = (1000, 2000)
RECIPE_STEPS, RECIPE_LR, RECIPE_SEEDS = 2000, 1e-3, 3
STEP_TOKENS = 12 * 64
ALIKE = 0.03  # how far apart the numbers of parameters may lie


# ---- Marks ---------------------------------------------------------------------------------------

def band(words, model, low, high):
    return {"mark": words, "models": (model,), "value": lambda v: v[model], "low": low,
            "high": high}


def gap(words, lower, upper, high, below):
    """How far the worst of `lower` lies above the best of `upper`."""
    return {"mark": words, "models": lower + upper, "high": high, "below": below,
            "value": lambda v: max(v[m] for m in lower) - min(v[m] for m in upper)}


BETWEEN = ("aft-full", "aft-local", "lstm")
EXPERIMENTS = {
    "e1": {
        "title": "The same data, about the same size",
        "models": ("rwkv4", "rwkv7", "gpt", "lstm", "aft-full", "aft-local", "aft-simple"),
        "marks": (
            band("RWKV-4", "rwkv4", None, 1.63),
            band("GPT", "gpt", 1.86, 1.95),
            band("LSTM", "lstm", None, 1.88),
            band("AFT-full", "aft-full", None, 1.87),
            band("AFT-simple", "aft-simple", None, 1.98),
            gap("RWKV-4 under AFT-full, AFT-local and LSTM", ("rwkv4",), BETWEEN, 0.0, True),
            gap("AFT-full, AFT-local and LSTM under GPT", BETWEEN, ("gpt",), 0.0, True),
            gap("GPT less than 0.03 over AFT-simple", ("gpt",), ("aft-simple",), 0.03, True),
            gap("RWKV-7 at most 0.03 over RWKV-4 (provisional: was not measured when it was set)",
                ("rwkv7",), ("rwkv4",), 0.03, False)),
    },
    "e7": {
        "title": "Token shift",
        "models": ("rwkv4", "rwkv4-no-shift"),
        "marks": (
            gap("with the shift at least 0.03 better", ("rwkv4",), ("rwkv4-no-shift",), -0.03,
                False),),
    },
}


def required(mark):
    if mark.get("low") is not None:
        return f"{mark['low']:g} to {mark['high']:g}"
    return f"{'below' if mark.get('below') else 'at most'} {mark['high']:g}"


def reached(mark, value):
    if mark.get("low") is not None and value < mark["low"]:
        return False
    return value < mark["high"] if mark.get("below") else value <= mark["high"]


def judge(experiment, means):
    judged = []
    for mark in EXPERIMENTS[experiment]["marks"]:
        there = all(model in means for model in mark["models"])
        value = mark["value"](means) if there else None
        verdict = "not measured" if value is None else \
            "passed" if reached(mark, value) else "failed"
        judged.append({"mark": mark["mark"], "required": required(mark), "value": value,
                       "verdict": verdict})
    return judged


def differences(runs, seeds):
    """In what the runs are not those that the marks were set for."""
    steps, rates = {run["steps"] for run in runs}, {run["lr"] for run in runs}
    if steps != {RECIPE_STEPS}:
        yield f"{' and '.join(f'{n:,}' for n in sorted(steps))} steps instead of {RECIPE_STEPS:,}"
    if rates != {RECIPE_LR}:
        yield f"a learning rate of {' and '.join(f'{r:g}' for r in sorted(rates))} instead of 0.001"
    if len(seeds) < RECIPE_SEEDS:
        yield f"{len(seeds)} of {RECIPE_SEEDS} seeds"


def overall(judged, unlike):
    verdicts = {mark["verdict"] for mark in judged}
    if unlike:
        return "trial"
    return next(v for v in ("failed", "not measured", "passed") if v in verdicts)


# ---- Data ----------------------------------------------------------------------------------------

TABLES = ("emb.weight", "pos.weight")      # looked up, not multiplied
VECTORS = ("att.r_k", "att.time_faaaa")    # written as [heads, width of a head]


def count_matrices(path):
    """Numbers that every token is multiplied by."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    header.pop("__metadata__", None)
    return sum(math.prod(entry["shape"]) for name, entry in header.items()
               if entry["dtype"] == "F32" and sum(n != 1 for n in entry["shape"]) >= 2
               and name not in TABLES and not name.endswith(VECTORS))


def note(o):
    model = os.path.join(o.folder, "model.safetensors")
    done = {"model": o.model, "seed": o.seed, "steps": o.steps, "lr": o.lr, "threads": o.threads,
            "processors": len(os.sched_getaffinity(0)), "commit": o.commit,
            "parameters": count_parameters(model), "matrix_parameters": count_matrices(model)}
    with open(os.path.join(o.folder, "done.new"), "w") as f:
        f.write(json.dumps(done) + "\n")
    os.replace(f.name, os.path.join(o.folder, "done"))


def read_points(folder):
    """What was evaluated: (step, tokens, validation, mean training loss since the one before,
    seconds so far). The seconds of a log begin anew where a run went on."""
    points, losses, before, last = [], [], 0.0, 0.0
    with open(os.path.join(folder, "log.jsonl")) as f:
        for line in map(json.loads, f):
            if line["seconds"] < last:
                before += last
            last = line["seconds"]
            losses.append(line["loss"])
            if "validation" in line:
                points.append({"step": line["step"], "tokens": line["tokens"],
                               "validation": line["validation"],
                               "train_loss": sum(losses) / len(losses),
                               "seconds": before + last})
                losses = []
    return points


def read_runs(folder, models, seeds):
    runs = []
    for model in models:
        for seed in seeds:
            path = os.path.join(folder, f"{model}-s{seed}")
            if not os.path.exists(os.path.join(path, "done")):
                print(f"{path}: not done, left out", file=sys.stderr)
                continue
            with open(os.path.join(path, "done")) as f:
                run = json.load(f)
            run["points"] = read_points(path)
            runs.append(run)
    return runs


def losses_at(runs, model, step):
    """By seed."""
    return {run["seed"]: point["validation"] for run in runs if run["model"] == model
            for point in run["points"] if point["step"] == step}


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else None


def models_of(runs):
    return list(dict.fromkeys(run["model"] for run in runs))


def summary(runs):
    """Of every model: sizes, seconds, and losses in the middle and at the end."""
    lines = {}
    for model in models_of(runs):
        own = [run for run in runs if run["model"] == model]
        steps, matrices = own[0]["steps"], own[0]["matrix_parameters"]
        final = losses_at(runs, model, steps)
        lines[model] = {"parameters": own[0]["parameters"], "matrix_parameters": matrices,
                        "steps": steps, "flop": 6 * matrices * steps * STEP_TOKENS,
                        "final": final, "mean": mean(final.values()),
                        "middle": mean(losses_at(runs, model, 1000).values()),
                        "seconds": mean(run["points"][-1]["seconds"] for run in own)}
    return lines


def table_of_points(experiment, runs):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["experiment", "model", "seed", "step", "tokens", "validation", "train_loss",
                     "parameters", "flop", "seconds", "commit"])
    for run in runs:
        for p in run["points"]:
            writer.writerow([experiment, run["model"], run["seed"], p["step"], p["tokens"],
                             f"{p['validation']:.6f}", f"{p['train_loss']:.6f}", run["parameters"],
                             6 * run["matrix_parameters"] * p["tokens"], f"{p['seconds']:.2f}",
                             run["commit"]])
    return out.getvalue()


# ---- Words ---------------------------------------------------------------------------------------

def shown(value, form=".4f"):
    return "-" if value is None else format(value, form)


def row(cells):
    return "| " + " | ".join(cells) + " |"


def table(lines, seeds):
    """Best first; sizes beside that of RWKV-4."""
    base = lines.get("rwkv4", next(iter(lines.values())))["parameters"]
    head = ["model", "parameters", "beside RWKV-4"] + [f"seed {seed}" for seed in seeds] + \
        ["mean", "at step 1,000", "reference: 1,000", "2,000", "FLOP of a run", "s of a run"]
    rows = [row(head), "|---|" + "---|" * (len(head) - 1)]
    for model, line in sorted(lines.items(), key=lambda item: item[1]["mean"]):
        reference = REFERENCE.get(model, (None, None))
        rows.append(row(
            [NAMES[model], f"{line['parameters']:,}", f"{line['parameters'] / base - 1:+.1%}"]
            + [shown(line["final"].get(seed)) for seed in seeds]
            + [f"**{line['mean']:.4f}**", shown(line["middle"])]
            + [shown(value, ".3f") for value in reference]
            + [f"{line['flop']:.2e}", f"{line['seconds']:,.0f}"]))
    return "\n".join(rows)


def table_of_marks(judged):
    rows = [row(["mark, mean over the seeds", "required", "measured", "verdict"]), "|---|---|---|---|"]
    for mark in judged:
        verdict = mark["verdict"]
        rows.append(row([mark["mark"], mark["required"], shown(mark["value"]),
                         "**failed**" if verdict == "failed" else verdict]))
    return "\n".join(rows)


def size_sentence(lines):
    if "rwkv4" not in lines:
        return "RWKV-4, beside which the sizes are to be held, was not run."
    base = lines["rwkv4"]["parameters"]
    off = [f"{NAMES[model]} ({line['parameters'] / base - 1:+.1%})" for model, line in lines.items()
           if abs(line["parameters"] / base - 1) > ALIKE]
    if not off:
        return "The numbers of parameters lie within 3 % of that of RWKV-4."
    return ("**Not within 3 % of the parameters of RWKV-4:** " + ", ".join(off) + ". 4 layers of "
            "width 128 are what the marks were set for, so the widths stay.")


def pairs_sentence(lines, seeds):
    if not {"rwkv4", "rwkv4-no-shift"} <= set(lines):
        return ""
    on, off = lines["rwkv4"]["final"], lines["rwkv4-no-shift"]["final"]
    pairs = [f"{off[seed] - on[seed]:.4f} (seed {seed})" for seed in seeds
             if seed in on and seed in off]
    return "What the shift gains: " + ", ".join(pairs) + "; the reference has 0.052. " \
        "Without it a token's mixes let nothing of the token before in, from the first step to " \
        "the last, and are not learnt (their gradients still count in the norm that is clipped); all " \
        "else is the same."


def verdict_sentence(verdict, judged, unlike):
    failed = [mark["mark"] for mark in judged if mark["verdict"] == "failed"]
    missing = sum(mark["verdict"] == "not measured" for mark in judged)
    words = f"Verdict: **{verdict}**"
    if unlike:
        words += " - not what the marks were set for: " + "; ".join(unlike)
    if failed:
        words += f" - failed: {'; '.join(failed)}"
    if missing:
        words += f" - {missing} not measured"
    return words + "."


def recipe_words(runs):
    steps, lr = runs[0]["steps"], runs[0]["lr"]
    return (f"Tinyshakespeare by its 65 characters, as the reference has it. The last tenth is not "
            f"learnt from. {steps:,} steps of 12 sequences of 64 characters "
            f"({steps * STEP_TOKENS:,}), the same for every model at a seed. 4 layers of width 128, "
            f"LSTM 2 of 232. AdamW with betas 0.9 and 0.99, rate {lr:g} for every model, not "
            f"chosen for each; 100 steps of warm-up, a cosine to {lr / 10:g}; weight decay 0.1 of "
            "matrices, gradients clipped to norm 1, f32, no dropout. Initial values, factors of the "
            "rate and L2Wrap (1e-4) as they are by default. Losses are nats per character over the whole "
            "last tenth, in windows of 64, each from an empty state.")


def machine_words(runs):
    total = sum(run["points"][-1]["seconds"] for run in runs)
    def among(key):
        return " and ".join(str(value) for value in sorted({run[key] for run in runs}))
    return (f"{len(runs)} runs, {total / 60:.1f} minutes in all with their evaluations, one after "
            f"another (threads: {among('threads')}); the framework of the reference took about 50 "
            "for one run of each of its models, on one thread of another machine. Commit "
            f"{among('commit')}. FLOP: 6 x numbers of the matrices x characters learnt from; matrices "
            "are all but what is looked up.")


def report_words(experiment, runs, lines, seeds, judged, verdict, unlike):
    words = [f"# {experiment.upper()}: {EXPERIMENTS[experiment]['title'].lower()}", "",
             f"    bench/experiment.sh {experiment}", "",
             verdict_sentence(verdict, judged, unlike), "",
             "Loss after the last step, nats per character:", "", table(lines, seeds), "",
             table_of_marks(judged), "",
             f"![loss against characters learnt from]({experiment}.svg)", "",
             size_sentence(lines), ""]
    if pairs_sentence(lines, seeds):
        words += [pairs_sentence(lines, seeds), ""]
    words += [recipe_words(runs), "", machine_words(runs), "",
              "The reference is one run of each in another framework, from the specification; it is "
              "drawn as rings. Every", f"evaluated point is in [{experiment}.csv]({experiment}.csv), "
              f"settings and verdicts in [{experiment}.json]({experiment}.json)."]
    return "\n".join(words) + "\n"


# ---- Figure --------------------------------------------------------------------------------------

class TokensPanel(Panel):
    """Characters learnt from to the right, on a log scale."""

    def __init__(self, tokens, values):
        super().__init__(70, 0, values, "text")
        self.width, self.height = 620, 400
        self.tokens = (tokens[0], max(tokens[-1], 2 * tokens[0]))

    def x(self, tokens):
        low, high = map(math.log, self.tokens)
        return self.left + self.width * (math.log(tokens) - low) / (high - low)

    def ticks(self):
        for power in range(3, 13):
            for digit in (1, 2, 3, 5, 7):
                if self.tokens[0] <= digit * 10 ** power <= self.tokens[1]:
                    yield digit * 10 ** power

    def axes(self, title):
        right, floor = self.left + self.width, self.top + self.height
        parts = [text(self.left, self.top - 14, title, "start", "#111", 15, "bold")]
        for i in range(round((self.high - self.low) / self.step) + 1):
            value = self.low + i * self.step
            parts.append(f'<path d="M{self.left} {self.y(value):.1f}H{right}" stroke="#ddd"/>')
            parts.append(text(self.left - 8, self.y(value) + 4, f"{value:.2f}", "end"))
        for tick in self.ticks():
            label = f"{tick / 1e6:g} M" if tick >= 1e6 else f"{tick / 1e3:g} k"
            parts.append(f'<path d="M{self.x(tick):.1f} {floor}v5" stroke="#333"/>')
            parts.append(text(self.x(tick), floor + 19, label, size=11))
        parts.append(f'<path d="M{self.left} {floor}H{right}" stroke="#333"/>')
        parts.append(text(self.left + self.width / 2, floor + 42, "characters learnt from (log scale)"))
        return parts


def line_of(panel, points, colour, width, opacity):
    path = "M" + "L".join(f"{panel.x(tokens):.1f} {panel.y(value):.1f}" for tokens, value in points)
    return (f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" '
            f'stroke-opacity="{opacity}" stroke-linejoin="round"/>')


def seed_lines(runs, model):
    return [[(p["tokens"], p["validation"]) for p in run["points"]] for run in runs
            if run["model"] == model]


def mean_line(lines):
    """Where every seed was measured."""
    common = set.intersection(*({tokens for tokens, _ in line} for line in lines))
    return [(tokens, mean(dict(line)[tokens] for line in lines)) for tokens in sorted(common)]


def rings(panel, model, colour):
    """The reference, where it lies in the picture."""
    for step, value in zip(REFERENCE_STEPS, REFERENCE.get(model, ())):
        tokens = step * STEP_TOKENS
        if panel.tokens[0] <= tokens <= panel.tokens[1] and panel.low <= value <= panel.high:
            yield (f'<circle cx="{panel.x(tokens):.1f}" cy="{panel.y(value):.1f}" r="4.5" '
                   f'fill="none" stroke="{colour}" stroke-width="1.5"/>')


def figure(experiment, runs):
    everything = [(p["tokens"], p["validation"]) for run in runs for p in run["points"]]
    tokens = sorted({t for t, _ in everything})
    panel = TokensPanel(tokens, [value for _, value in everything])
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" width="900" height="510" '
             'viewBox="0 0 900 510" font-family="Helvetica, Arial, sans-serif">',
             f"<title>{EXPERIMENTS[experiment]['title']}</title>",
             '<rect width="900" height="510" fill="white"/>']
    parts += panel.axes("Loss on the part kept aside, nats per character")
    ends, means = {}, {}
    for model in models_of(runs):
        lines = seed_lines(runs, model)
        if len(lines) > 1:
            parts += [line_of(panel, line, COLOURS[model], 1, 0.4) for line in lines]
        means[model] = mean_line(lines)
        ends[model] = panel.y(means[model][-1][1])
    for model, line in means.items():
        parts.append(line_of(panel, line, COLOURS[model], 2.2, 1))
        parts += rings(panel, model, COLOURS[model])
    for model, y in label_heights(ends).items():
        x = panel.x(means[model][-1][0])
        parts.append(text(x + 10, y + 4, NAMES[model], "start", COLOURS[model]))
    parts.append(text(panel.left + panel.width, 505, "thick: mean; thin: each seed; rings: reference",
                      "end", "#666", 11))
    return "\n".join(parts + ["</svg>"]) + "\n"


# ---- The command ---------------------------------------------------------------------------------

def configuration(runs, seeds):
    def among(key):
        return sorted({run[key] for run in runs})
    lr = runs[0]["lr"]
    return {"data": "tinyshakespeare, characters, last tenth kept aside", "seeds": seeds,
            "steps": among("steps"), "batch": 12, "context": 64, "layers": 4, "width": 128,
            "lstm": {"layers": 2, "width": 232}, "optimizer": "AdamW", "lr": among("lr"),
            "lr_final": lr / 10, "schedule": "cosine", "warmup": 100, "betas": [0.9, 0.99],
            "weight_decay": 0.1, "clip": 1, "type": "f32", "threads": among("threads"),
            "commit": among("commit")}


def report(o):
    known = EXPERIMENTS[o.experiment]["models"]
    models = o.models.split() if o.models else list(known)
    seeds = [int(seed) for seed in o.seeds.split()]
    for model in models:
        if model not in known:
            sys.exit(f"experiment_report.py: {model} is no model of {o.experiment}: "
                     f"{', '.join(known)}")
    runs = [run for run in read_runs(o.runs, models, seeds) if run["points"]]
    if not runs:
        sys.exit(f"experiment_report.py: {o.runs} has no finished run of {o.experiment}")
    lines = summary(runs)
    judged = judge(o.experiment, {model: line["mean"] for model, line in lines.items()})
    least = min((sorted(line["final"]) for line in lines.values()), key=len)
    unlike = list(differences(runs, least))
    verdict = overall(judged, unlike)
    contents = {
        ".csv": table_of_points(o.experiment, runs),
        ".json": json.dumps({"experiment": o.experiment, "verdict": verdict, "unlike": unlike,
                             "configuration": configuration(runs, seeds), "marks": judged,
                             "models": lines}, indent=1) + "\n",
        ".md": report_words(o.experiment, runs, lines, seeds, judged, verdict, unlike),
        ".svg": figure(o.experiment, runs)}
    write_results(o.out, o.experiment, contents)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = p.add_subparsers(dest="verb", required=True)
    v = verbs.add_parser("note")
    v.add_argument("folder")
    v.add_argument("--model", required=True, choices=sorted(NAMES))
    v.add_argument("--commit", required=True)
    for name, kind in (("seed", int), ("steps", int), ("lr", float), ("threads", int)):
        v.add_argument(f"--{name}", type=kind, required=True)
    v = verbs.add_parser("report")
    v.add_argument("experiment", choices=sorted(EXPERIMENTS))
    v.add_argument("runs")
    v.add_argument("out")
    v.add_argument("--seeds", default="1 2 3")
    v.add_argument("--models", default="")
    o = p.parse_args()
    {"note": note, "report": report}[o.verb](o)


if __name__ == "__main__":
    main()
