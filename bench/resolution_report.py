#!/usr/bin/python3
"""Table, figure and data of bench/resolution.sh, from the JSON of each run.

    resolution_report.py RUNS OUT [--threads N] [--type TYPE]

RUNS holds corvid.SIZE, vit.SIZE and perhaps official.SIZE. Writes resolution.json, resolution.md
and resolution.svg into OUT. Measures nothing.
"""
import argparse
import json
import math
import os

NAMES = {"corvid": "VRWKV-T, Corvid", "vit": "ViT-T, PyTorch", "official": "VRWKV-T, PyTorch"}
COLOURS = {"corvid": "#0b6e4f", "vit": "#b3401f", "official": "#5a6b9a"}
MIB = 1 << 20


# ---- Data ----------------------------------------------------------------------------------------

def read_runs(folder):
    """One entry per size: {"size", "tokens", "corvid": {...}, "vit": {...}, ...}."""
    sizes = sorted(int(name.split(".")[1]) for name in os.listdir(folder)
                   if name.startswith("corvid."))
    entries = []
    for size in sizes:
        entry = {"size": size, "tokens": (size // 16) ** 2}
        for who in NAMES:
            path = os.path.join(folder, f"{who}.{size}")
            if not os.path.exists(path):
                continue
            with open(path) as f:
                run = json.load(f)
            run = run.get("vision", run)
            kept = ("skipped", "images_per_s", "ms_per_image", "peak_bytes", "start_bytes",
                    "ms_least", "ms_most")
            entry[who] = {key: run[key] for key in kept if key in run}
            for key in ("torch", "blas"):
                if key in run:
                    entry.setdefault("with", {})[key] = run[key]
        entries.append(entry)
    return entries


def points(entries, who, key):
    """(side, value) of all sizes that were measured."""
    return [(e["size"], e[who][key]) for e in entries if key in e.get(who, {})]


def crossing(entries, who, key="ms_per_image"):
    """Side at which ViT's value passes that of `who`, between sizes on log scales; else None."""
    ours, theirs = dict(points(entries, who, key)), dict(points(entries, "vit", key))
    before = None
    for side in sorted(set(ours) & set(theirs)):
        gap = math.log(theirs[side] / ours[side])
        if before and before[1] < 0 <= gap:
            share = -before[1] / (gap - before[1])
            return math.exp(math.log(before[0]) + share * math.log(side / before[0]))
        before = (side, gap)
    return None


def crossing_sentence(entries, who, key, verb):
    at = crossing(entries, who, key)
    if at:
        return f"{NAMES[who]} is {verb} from **{at:.0f} px** on (interpolated)."
    ours, theirs = dict(points(entries, who, key)), dict(points(entries, "vit", key))
    both = sorted(set(ours) & set(theirs))
    if not both:
        return f"{NAMES[who]} and ViT-T were not measured at the same size."
    if all(theirs[side] >= ours[side] for side in both):
        return (f"{NAMES[who]} is {verb} at every size, from {both[0]} to {both[-1]} px: "
                "no crossing.")
    if all(theirs[side] < ours[side] for side in both):
        return f"{NAMES[who]} is at no size {verb}, from {both[0]} to {both[-1]} px: no crossing."
    return f"{NAMES[who]} is {verb} only at some sizes."


def unsteady(entries):
    """What was measured while something else ran: rounds that lie far apart."""
    for e in entries:
        for who, name in NAMES.items():
            run = e.get(who, {})
            if run.get("ms_most", 0) > 1.5 * run.get("ms_least", math.inf):
                yield (f"Not steady: {name} at {e['size']} px, {significant(run['ms_least'])} to "
                       f"{significant(run['ms_most'])} ms.")


# ---- Table ---------------------------------------------------------------------------------------

def significant(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cells(run):
    if "ms_per_image" not in run:
        return ["-", "-", "-"]
    return [significant(run["ms_per_image"]), significant(run["images_per_s"]),
            f"{run['peak_bytes'] / MIB:,.0f}"]


def table(entries, who_all):
    head = ["side", "tokens"]
    for who in who_all:
        head += [f"{NAMES[who]}: ms", "images/s", "peak MiB"]
    head += ["time ratio", "memory ratio"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for e in entries:
        row = [str(e["size"]), f"{e['tokens']:,}"]
        for who in who_all:
            row += cells(e.get(who, {}))
        for key in ("ms_per_image", "peak_bytes"):
            ours, theirs = e["corvid"].get(key), e["vit"].get(key)
            row.append(f"{theirs / ours:.2f}" if ours and theirs else "-")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def report(entries, who_all, o):
    of_peer = next((e["with"] for e in entries if "with" in e), {})
    torch = of_peer.get("torch", "?")
    blas = os.path.basename(of_peer.get("blas", "built in"))
    start = [e["vit"]["start_bytes"] for e in entries if "start_bytes" in e["vit"]]
    text = [
        "# Cost against resolution", "",
        "    bench/resolution.sh", "",
        f"One image, {o.threads} threads, Corvid with {o.type} weights, PyTorch {torch} with f32 "
        f"({blas}).", "Each figure from a process of its own; the middle of its rounds. The ratios "
        "are ViT-T in PyTorch over VRWKV-T in", "Corvid.", "",
        table(entries, who_all), "",
        "![time and memory against the side of the image](resolution.svg)", ""]
    for e in entries:
        if "skipped" in e["vit"]:
            text += [f"ViT-T at {e['size']} px was left out: {e['vit']['skipped']}.", ""]
    for sentence in unsteady(entries):
        text += [sentence, ""]
    text += ["Time: " + " ".join(crossing_sentence(entries, who, "ms_per_image", "faster")
                                 for who in who_all if who != "vit"), "",
             "Memory: " + " ".join(crossing_sentence(entries, who, "peak_bytes", "smaller")
                                   for who in who_all if who != "vit"), "",
             "The peak is that of the whole process."]
    if start:
        text[-1] += (f" A process with PyTorch has {min(start) / MIB:,.0f} MiB before there is a "
                     "model.")
    text += ["", "In the paper, on an A100 with both models in PyTorch: 29 images/s against 2.9 "
             "and 2.2 GB against 11 GB at", "2048 px, with the crossing between 640 and 768 px."]
    return "\n".join(text) + "\n"


# ---- Figure --------------------------------------------------------------------------------------

class Panel:
    """Log-log axes in a rectangle of the picture."""

    def __init__(self, left, top, width, height, sides, values):
        self.left, self.top, self.width, self.height = left, top, width, height
        self.sides = (sides[0] / 1.06, sides[-1] * 1.06)
        self.bottom = 10 ** math.floor(math.log10(min(values)))
        self.upper = 10 ** math.ceil(math.log10(max(values) * 1.05))

    def x(self, side):
        low, high = map(math.log, self.sides)
        return self.left + self.width * (math.log(side) - low) / (high - low)

    def y(self, value):
        low, high = math.log(self.bottom), math.log(self.upper)
        return self.top + self.height * (high - math.log(value)) / (high - low)

    def decades(self):
        value = self.bottom
        while value <= self.upper * 1.001:
            yield value
            value *= 10


def text(x, y, words, anchor="middle", colour="#333", size=13, weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
            f'font-size="{size}" font-weight="{weight}">{words}</text>')


def axes(panel, title, sides, unit):
    """The frame: a line and a label per decade and per size."""
    right, floor = panel.left + panel.width, panel.top + panel.height
    parts = [text(panel.left, panel.top - 14, title, "start", "#111", 15, "bold")]
    for value in panel.decades():
        y = panel.y(value)
        parts.append(f'<path d="M{panel.left:.1f} {y:.1f}H{right:.1f}" stroke="#ddd"/>')
        parts.append(text(panel.left - 8, y + 4, unit(value), "end"))
    last = None
    for side in sides:
        x = panel.x(side)
        parts.append(f'<path d="M{x:.1f} {floor:.1f}v5" stroke="#333"/>')
        if last is None or x - last > 28:
            parts.append(text(x, floor + 19, side, size=11))
            last = x
    parts.append(f'<path d="M{panel.left:.1f} {floor:.1f}H{right:.1f}" stroke="#333"/>')
    parts.append(text(panel.left + panel.width / 2, floor + 42, "side of the image, pixels"))
    return parts


def label_heights(ends):
    """Heights of the labels at the lines' right ends, moved apart to stay readable."""
    heights, below = {}, -math.inf
    for y, who in sorted((y, who) for who, y in ends.items()):
        heights[who] = below = max(y, below + 17)
    return heights


def line(panel, data, who):
    places = [(panel.x(side), panel.y(value)) for side, value in data]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[who]}"/>'
                   for x, y in places)
    return f'<path d="{path}" fill="none" stroke="{COLOURS[who]}" stroke-width="2"/>{dots}', places


def panel_parts(entries, who_all, left, title, key, scale, unit):
    series = {who: [(side, value * scale) for side, value in points(entries, who, key)]
              for who in who_all}
    series = {who: data for who, data in series.items() if data}
    sides = [e["size"] for e in entries]
    values = [value for data in series.values() for _, value in data]
    panel = Panel(left, 50, 390, 330, sides, values)
    parts, ends = axes(panel, title, sides, unit), {}
    for who, data in series.items():
        drawn, places = line(panel, data, who)
        parts.append(drawn)
        ends[who] = places[-1][1]
    for who, y in label_heights(ends).items():
        parts.append(text(panel.x(series[who][-1][0]) + 9, y + 4, NAMES[who], "start",
                          COLOURS[who]))
    at = crossing(entries, "corvid", key)
    if at:
        x = panel.x(at)
        parts.append(f'<path d="M{x:.1f} {panel.top}V{panel.top + panel.height}" stroke="#888" '
                     'stroke-dasharray="3 4"/>')
        parts.append(text(x + 5, panel.top + 12, f"{at:.0f} px", "start", "#666", 12))
    return parts


def time_unit(ms):
    return f"{ms / 1000:g} s" if ms >= 1000 else f"{ms:g} ms"


def memory_unit(mib):
    return f"{mib:,.0f} MiB"


def figure(entries, who_all):
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" width="1180" height="440" '
             'viewBox="0 0 1180 440" font-family="Helvetica, Arial, sans-serif">',
             "<title>Time and memory of one image against its side</title>",
             '<rect width="1180" height="440" fill="white"/>']
    parts += panel_parts(entries, who_all, 65, "Time for one image", "ms_per_image", 1, time_unit)
    parts += panel_parts(entries, who_all, 660, "Peak memory of the process", "peak_bytes",
                         1 / MIB, memory_unit)
    return "\n".join(parts + ["</svg>"]) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("runs")
    p.add_argument("out")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--type", default="f32")
    o = p.parse_args()
    entries = read_runs(o.runs)
    who_all = [who for who in NAMES if any(who in e for e in entries)]
    contents = {
        "resolution.json": json.dumps({
            "threads": o.threads, "type": o.type, "sizes": entries,
            "crossing_px": {who: {"time": crossing(entries, who),
                                  "memory": crossing(entries, who, "peak_bytes")}
                            for who in who_all if who != "vit"}}, indent=1) + "\n",
        "resolution.md": report(entries, who_all, o),
        "resolution.svg": figure(entries, who_all)}
    for name, content in contents.items():
        with open(os.path.join(o.out, name), "w") as f:
            f.write(content)
    print(contents["resolution.md"], end="")


if __name__ == "__main__":
    main()
