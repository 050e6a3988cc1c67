#!/usr/bin/python3
"""The n-gram models and the report of bench/story.sh.

    story_report.py ngram tokens|bytes --train FILE... --texts FILE... [--symbols N] [--order 5]
    story_report.py report WORK OUT --model NAME
    story_report.py self-test

ngram      an interpolated Kneser-Ney model with three discounts a length, from the files of
           --train; prints what it makes of each of --texts, as JSON. For tokens a file holds ids in
           decimal, for bytes it is the text. Every file is a document of its own.
report     takes what story.sh has left in WORK. Writes story.md and story.json into OUT.
self-test  the n-gram model against an example worked out by hand and against the definition,
           written a second time without arrays; probabilities after many contexts add up to 1.

Trains no networks.
"""
import argparse
import collections
import json
import os
import resource
import sys
import textwrap
import time

import numpy as np

ORDER = 5
FALLBACK = (0.5, 1.0, 1.5)  # discounts where counts of counts give none
CLOSE = 1e-6                # how far from 1 probabilities may add up
COLUMNS = ("model", "tokens", "bytes", "xz_after", "xz", "gzip")
MIB = 1 << 20


# ---- Kneser-Ney with three discounts -------------------------------------------------------------

def estimate_discounts(counts):
    """D1, D2 and D3+ by Chen and Goodman, and whether counts of counts gave them."""
    n = [0] + [int(np.count_nonzero(counts == k)) for k in (1, 2, 3, 4)]
    if all(n[1:]):
        y = n[1] / (n[1] + 2 * n[2])
        found = tuple(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))
        if all(0 <= d <= k for k, d in enumerate(found, 1)):
            return found, True
    return FALLBACK, False


def find(sorted_codes, codes):
    """Where each code is, and whether it is there at all."""
    at = np.minimum(np.searchsorted(sorted_codes, codes), len(sorted_codes) - 1)
    return at, sorted_codes[at] == codes


class Level:
    """All n-grams of one length, sorted, so that those of a context stand side by side.

    kept  of an n-gram: what is left of its share of the context when the discount is taken
    rest  of a context: the share of all that was taken, which goes to the shorter context
    """

    def __init__(self, codes, counts, bits):
        self.codes = codes
        self.discounts, self.estimated = estimate_discounts(counts)
        contexts = codes >> bits
        starts = np.flatnonzero(np.append(True, contexts[1:] != contexts[:-1]))
        self.contexts = contexts[starts]
        taken = np.array((0.0,) + self.discounts)[np.minimum(counts, 3)]
        totals = np.add.reduceat(counts, starts)
        self.rest = np.add.reduceat(taken, starts) / totals
        self.kept = (counts - taken) / np.repeat(totals, np.diff(np.append(starts, len(codes))))


class KneserNey:
    """Texts are arrays of symbols below a number. Zeros stand before a text, and are not counted.

    An n-gram is one integer, the oldest symbol highest. Those of the full order have their counts;
    a shorter one has the number of different symbols that were seen before it.
    """

    def __init__(self, texts, symbols, order=ORDER):
        self.symbols, self.order = symbols, order
        self.bits = np.uint64(max(1, (symbols - 1).bit_length()))
        if order * int(self.bits) > 64:
            sys.exit(f"story_report.py: {order} of {symbols} symbols do not fit in 64 bits")
        codes = np.concatenate([self.grams(text) for text in texts])
        codes, counts = np.unique(codes, return_counts=True)
        self.levels = [Level(codes, counts, self.bits)]
        for length in range(order - 1, 0, -1):
            codes, counts = np.unique(codes & self.mask(length), return_counts=True)
            self.levels.insert(0, Level(codes, counts, self.bits))

    def mask(self, length):
        return np.uint64((1 << length * int(self.bits)) - 1)

    def grams(self, text):
        """The n-gram of full order that ends at each symbol of a text."""
        padded = np.append(np.zeros(self.order - 1, np.uint64), text)
        codes = np.zeros(len(text), np.uint64)
        for i in range(self.order):
            codes = codes << self.bits | padded[i:i + len(text)]
        return codes

    def probabilities(self, codes):
        """Of the last symbol of each n-gram after those before it."""
        p = np.full(len(codes), 1 / self.symbols)
        for length, level in enumerate(self.levels, 1):
            own = codes & self.mask(length)
            at, seen = find(level.contexts, own >> self.bits)
            p *= np.where(seen, level.rest[at], 1)
            at, seen = find(level.codes, own)
            p += np.where(seen, level.kept[at], 0)
        return p

    def bits_of(self, text):
        return float(-np.log2(self.probabilities(self.grams(text))).sum())


def largest_deviation(model, codes):
    """From 1, of the sum over all symbols after the contexts of these n-grams."""
    every = np.arange(model.symbols, dtype=np.uint64)
    return max(abs(float(model.probabilities(code >> model.bits << model.bits | every).sum()) - 1)
               for code in codes)


def some_contexts(model, texts, n):
    """As n-grams: n of each text, and n of symbols at random, which hardly occur anywhere."""
    rng = np.random.default_rng(1)
    picked = [rng.choice(model.grams(text), n) for text in texts]
    noise = rng.integers(0, model.symbols, n + model.order - 1).astype(np.uint64)
    return np.concatenate(picked + [model.grams(noise)[model.order - 1:]])


def read_symbols(kind, path):
    if kind == "tokens":
        return np.fromfile(path, np.int64, sep=" ").astype(np.uint64)
    return np.fromfile(path, np.uint8).astype(np.uint64)


def ngram(o):
    began = time.time()
    train = [read_symbols(o.kind, path) for path in o.train]
    texts = [read_symbols(o.kind, path) for path in o.texts]
    for path, text in zip(o.train + o.texts, train + texts):
        if not len(text) or int(text.max()) >= o.symbols:
            sys.exit(f"story_report.py: {path} is empty, or has symbols from {o.symbols} on")
    model = KneserNey(train, o.symbols, o.order)
    deviation = largest_deviation(model, some_contexts(model, texts, 10))
    if not deviation < CLOSE:
        sys.exit(f"story_report.py: probabilities add up to 1 only within {deviation:g}")
    lines = [{"file": path, "symbols": len(text), "bits": model.bits_of(text)}
             for path, text in zip(o.texts, texts)]
    print(json.dumps({
        "order": o.order, "symbols": o.symbols, "trained_on": sum(len(text) for text in train),
        "documents": len(train), "deviation": deviation,
        "levels": [{"ngrams": len(level.codes), "contexts": len(level.contexts),
                    "discounts": level.discounts, "estimated": level.estimated}
                   for level in model.levels],
        "seconds": round(time.time() - began, 1),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "texts": lines}))


# ---- Self-test -----------------------------------------------------------------------------------

class Plain:
    """The same model straight from its definition: tuples, sets and a recursion."""

    def __init__(self, texts, symbols, order):
        self.symbols = symbols
        padded = [[0] * (order - 1) + [int(symbol) for symbol in text] for text in texts]
        # Raw counts of every length, of n-grams that end in a symbol of a text.
        raw = {length: collections.Counter(
            tuple(text[end - length:end]) for text in padded for end in range(order, len(text) + 1))
            for length in range(1, order + 1)}
        self.counts = {order: raw[order]}
        for length in range(1, order):
            before = collections.defaultdict(set)
            for gram in raw[length + 1]:
                before[gram[1:]].add(gram[0])
            self.counts[length] = {gram: len(seen) for gram, seen in before.items()}
        self.discounts = {length: estimate_discounts(np.array(list(counts.values())))[0]
                          for length, counts in self.counts.items()}

    def probability(self, context, symbol):
        length = len(context) + 1
        lower = self.probability(context[1:], symbol) if context else 1 / self.symbols
        counts = self.counts[length]
        after = [counts[context + (other,)] for other in range(self.symbols)
                 if context + (other,) in counts]
        if not after:
            return lower
        d1, d2, d3 = self.discounts[length]
        own = counts.get(context + (symbol,), 0)
        discount = {0: 0, 1: d1, 2: d2}.get(own, d3)
        rest = d1 * after.count(1) + d2 * after.count(2) + d3 * sum(n >= 3 for n in after)
        return (own - discount + rest * lower) / sum(after)


def near(what, value, wanted, within=1e-12):
    if not abs(value - wanted) <= within:
        sys.exit(f"story_report.py: {what} is {value}, not {wanted}")


def by_hand():
    """The text a b a c with a=1, b=2, c=3, and 0 before it; pairs, and the fallback discounts.

    Once each: 0a, ab, ba, ac. Before a were two symbols, before b and c one, together 4.
    Single: a (2 - 1) / 4 and so on, taken 1 + 0.5 + 0.5 of 4, so that 1/2 goes to the uniform 1/4:
    0 1/8, a 1/4 + 1/8, b and c 1/8 + 1/8.
    After a: ab and ac of 2, 0.5 taken of each, so that 1/2 goes to the single ones.
    """
    model = KneserNey([np.array([1, 2, 1, 3], np.uint64)], 4, 2)
    for context, wanted in ((1, (1 / 16, 3 / 16, 3 / 8, 3 / 8)),
                            (3, (1 / 8, 3 / 8, 1 / 4, 1 / 4)),            # c: nothing after it
                            (2, (1 / 16, 11 / 16, 1 / 8, 1 / 8))):        # b: a alone
        codes = np.arange(4, dtype=np.uint64) | np.uint64(context << 2)
        for symbol, value in enumerate(model.probabilities(codes)):
            near(f"p({symbol} after {context})", value, wanted[symbol])
    # Counts of counts 8, 4, 2, 1: Y is 8 / 16, and D1 = 1 - 2 Y 4/8, D2 = 2 - 3 Y 2/4,
    # D3 = 3 - 4 Y 1/2.
    counts = np.repeat([1, 2, 3, 4, 9], [8, 4, 2, 1, 5])
    for value, wanted in zip(estimate_discounts(counts)[0], (0.5, 1.25, 2)):
        near("a discount", value, wanted)


def against_definition():
    """Every symbol after contexts that occur and that do not, for orders up to 5; how far apart."""
    rng = np.random.default_rng(7)
    symbols, worst, estimated = 7, 0.0, 0
    # Some symbols are far likelier than others, and 6 never comes.
    texts = [(rng.random(n) ** 2.5 * 6).astype(np.uint64) for n in (60, 1, 140, 25)]
    for order in range(1, ORDER + 1):
        model, plain = KneserNey(texts, symbols, order), Plain(texts, symbols, order)
        estimated += sum(level.estimated for level in model.levels)
        contexts = {tuple(int(s) for s in rng.integers(0, symbols, order - 1)) for _ in range(40)}
        contexts |= {tuple(int(s) for s in texts[2][i:i + order - 1]) for i in range(60)}
        contexts.add((0,) * (order - 1))
        for context in sorted(contexts):
            padded = [np.array(context + (symbol,), np.uint64) for symbol in range(symbols)]
            codes = np.array([model.grams(gram)[-1] for gram in padded])
            for symbol, value in enumerate(model.probabilities(codes)):
                wanted = plain.probability(context, symbol)
                near(f"order {order}: p({symbol} after {context})", value, wanted)
                worst = max(worst, abs(value - wanted))
    if not estimated:
        sys.exit("story_report.py: no discounts were estimated in the self-test")
    return worst


def add_up():
    """5-grams of 4,096 symbols that come by Zipf's law, in phrases that come again."""
    rng = np.random.default_rng(3)
    phrases = [np.minimum(rng.zipf(1.3, 6), 4095).astype(np.uint64) for _ in range(4000)]
    texts = [np.concatenate([phrases[i] for i in (rng.random(15000) ** 3 * 4000).astype(int)])
             for _ in range(3)]
    model = KneserNey(texts[:2], 4096)
    contexts = np.append(some_contexts(model, texts, 30), np.uint64(0))
    if not all(level.estimated for level in model.levels[1:]):
        sys.exit("story_report.py: the self-test should estimate discounts of all orders above 1")
    return largest_deviation(model, contexts), len(contexts)


def self_test(_):
    by_hand()
    print("the example worked out by hand: agrees")
    print(f"the definition without arrays: largest difference {against_definition():.2g}")
    deviation, n = add_up()
    print(f"sums after {n} contexts over 4096 symbols: largest deviation from 1 {deviation:.2g}")
    if not deviation < CLOSE:
        sys.exit("story_report.py: the probabilities do not add up to 1")


# ---- The report ----------------------------------------------------------------------------------

def load(*path):
    with open(os.path.join(*path)) as f:
        return json.load(f)


def read_sizes(work):
    """Bytes of the training text, and of each file its bytes and what the packers made of it."""
    with open(os.path.join(work, "sizes")) as f:
        lines = [line.rstrip("\n").split("\t") for line in f]
    files = {name: dict(zip(("bytes", "xz_after", "xz", "gzip"), map(int, numbers)))
             for name, *numbers in lines[1:]}
    return int(lines[0][1]), files


def one_file(work, name, sizes, baselines):
    """Bytes, tokens and bits by each column."""
    run = load(work, name + ".eval")
    by_tokens, by_bytes = (
        next(t for t in baselines[kind]["texts"] if t["file"].endswith("/" + name + ending))
        for kind, ending in (("tokens", ".ids"), ("bytes", "")))
    counted = (run["tokens"], run["bytes"])
    if counted != (by_tokens["symbols"], sizes["bytes"]) or by_bytes["symbols"] != sizes["bytes"]:
        sys.exit(f"story_report.py: {name} was not the same text for all")
    bits = {"model": run["bits_per_byte"] * run["scored_bytes"],
            "tokens": by_tokens["bits"], "bytes": by_bytes["bits"]}
    bits.update((packer, 8 * sizes[packer]) for packer in ("xz_after", "xz", "gzip"))
    # Byte models score no first byte.
    scored = {"model": run["scored_bytes"]}
    return {"file": name, "bytes": sizes["bytes"], "tokens": run["tokens"],
            "perplexity": run["perplexity"], "bits": bits,
            "bits_per_byte": {c: bits[c] / scored.get(c, sizes["bytes"]) for c in COLUMNS}}


def all_files(files):
    size = sum(line["bytes"] for line in files)
    bits = {c: sum(line["bits"][c] for line in files) for c in COLUMNS}
    return {"file": "all", "bytes": size, "tokens": sum(line["tokens"] for line in files),
            "bits": bits, "bits_per_byte": {c: bits[c] / size for c in COLUMNS}}


def label(model):
    name = os.path.basename(model)
    for ending in (".safetensors", ".gguf", ".pth", ".bin"):
        name = name.removesuffix(ending)
    return name


def table(name, files):
    yield (f"| file | bytes | {name} | 5-gram of tokens | 5-gram of bytes "
           "| xz after the training text | xz | gzip |")
    yield "|---|---|---|---|---|---|---|---|"
    for line in files:
        figures = " | ".join(f"{line['bits_per_byte'][c]:.3f}" for c in COLUMNS)
        yield f"| {line['file']} | {line['bytes']:,} | {figures} |"


def ngram_words(what, run):
    top = run["levels"][-1]
    kept = [str(i) for i, level in enumerate(run["levels"], 1) if not level["estimated"]]
    words = (f"**{what}**: {top['ngrams'] / 1e6:.1f} million different {run['order']}-grams in "
             f"{run['trained_on'] / 1e6:.1f} million; {run['seconds']:.0f} s, "
             f"{run['peak_bytes'] / MIB:,.0f} MiB.")
    if kept:
        words += (f" For n-grams of length {' and '.join(kept)} the counts of counts give no "
                  f"discounts; they are {', '.join(map(str, FALLBACK))} there.")
    return words


def report_words(result):
    name, everything = result["model"]["name"], result["all"]
    baselines, model = result["baselines"], result["model"]
    deviation = max(run["deviation"] for run in baselines.values())
    lead = (
        f"Bits per byte of whole files; less is better. {name} and both 5-gram models have learnt "
        f"from the same {result['train']['files']} novels ({result['train']['bytes']:,} bytes), "
        "which the files below are no part of. The last row is all bits over all bytes.")
    points = [
        f"**{name}**: {model['arch']}, {model['parameters']:,} parameters as {model['type']}, a "
        f"vocabulary of {model['n_vocab']:,}, "
        f"{everything['bytes'] / everything['tokens']:.2f} bytes a token. "
        "`corvid eval perplexity --context 0` reads a file as one stream, from an empty state to "
        "the last token: nothing is cut into windows, and the state is carried all the way. What "
        "it prints as `bits_per_byte` is the figure here.",
        "**5-gram models**: interpolated Kneser-Ney with discounts D1, D2 and D3+ of each length "
        "from counts of counts, shorter n-grams counted by how many symbols stand before them, "
        f"down to a uniform distribution over {baselines['tokens']['symbols']:,} tokens or 256 "
        "bytes. A novel is a document; nothing is counted across two, and an end is not "
        f"predicted. The tokens are those of `corvid tokenize`, which {name} reads too. "
        "Probabilities after contexts taken at random add up to 1 within "
        f"{deviation:.0e}.",
        ngram_words("Of tokens", baselines["tokens"]),
        ngram_words("Of bytes", baselines["bytes"]),
        "**xz after the training text**: what `xz -9e`, with a dictionary of 64 MiB, makes of the "
        "training text and the file, less what it makes of the training text.",
        "**xz**, **gzip**: `xz -9e` and `gzip -9` of the file by itself."]
    lines = [f"# How well {name} predicts novels it has never seen", "", "    bench/story.sh", "",
             textwrap.fill(lead, 96, break_on_hyphens=False), "",
             *table(name, result["files"] + [everything]), "", "## How it was measured", ""]
    lines += [textwrap.fill("- " + point, 96, subsequent_indent="  ", break_on_hyphens=False)
              for point in points]
    return "\n".join(lines) + "\n"


def report(o):
    train_bytes, sizes = read_sizes(o.work)
    baselines = {kind: load(o.work, kind + ".json") for kind in ("tokens", "bytes")}
    info = load(o.work, "model.json")
    files = [one_file(o.work, name, sizes[name], baselines) for name in sizes]
    for run in baselines.values():
        del run["texts"]
    keys = ("arch", "type", "parameters", "n_vocab", "n_layers", "n_embd", "fingerprint")
    model = dict({"name": label(o.model)}, **{key: info[key] for key in keys if key in info})
    result = {"model": model, "context": 0,
              "train": {"files": baselines["bytes"]["documents"], "bytes": train_bytes},
              "baselines": baselines, "files": files, "all": all_files(files)}
    os.makedirs(o.out, exist_ok=True)
    words = report_words(result)
    for ending, content in ((".json", json.dumps(result, indent=1) + "\n"), (".md", words)):
        with open(os.path.join(o.out, "story" + ending), "w") as f:
            f.write(content)
    print(words, end="")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = p.add_subparsers(dest="verb", required=True)
    v = verbs.add_parser("ngram")
    v.add_argument("kind", choices=("tokens", "bytes"))
    v.add_argument("--train", nargs="+", required=True)
    v.add_argument("--texts", nargs="+", required=True)
    v.add_argument("--symbols", type=int, default=256)
    v.add_argument("--order", type=int, default=ORDER)
    v = verbs.add_parser("report")
    v.add_argument("work")
    v.add_argument("out")
    v.add_argument("--model", required=True)
    verbs.add_parser("self-test")
    o = p.parse_args()
    {"ngram": ngram, "report": report, "self-test": self_test}[o.verb](o)


if __name__ == "__main__":
    main()
