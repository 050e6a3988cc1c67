#!/usr/bin/python3
"""GPT, LSTM and the three AFT in plain PyTorch: what Corvid's must equal, and how long theirs take.

    ancestors.py check --corvid CORVID --start MODEL --trained MODEL --log LOG --text FILE ...
    ancestors.py speed --corvid CORVID --text FILE [--models "gpt lstm ..."] [--rounds 3]

check  --start is a safetensors file that Corvid has written before its first step, --trained and
       --log are the model and the log.jsonl of its run from there. Compares logits, of the trained
       model and of the start with all weights drawn anew, so that nothing in them is small or
       alike; and the losses of the run with those of AdamW here, and what has become of the
       weights. PyTorch computes in double and in f32. The mean of an AFT is the sum over all pairs
       of tokens; "timed" is the form that is timed below, in f32.
speed  Milliseconds of a whole training step for the models of experiment E1 (bench/experiment.sh),
       Corvid and PyTorch in turns; f32, one thread. The two RWKV are those of train_peers.py.

Everything is written for this file, from docs/models/ancestors.md. check ends with status 1 when
logits differ by more than --tolerance of the largest, losses or, relatively, norms of gradients by
more than --tolerance, or weights by more than ten times that of the way they went.
bench/ancestors.sh makes the runs and calls this.
"""
import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile

import ten_steps
import train_peers as peers
import vision_peers as common

# Filled by start(), after the environment that torch reads at its import is set.
torch = nn = F = np = None

PLACED = ("gpt", "aft-full", "aft-local", "aft-simple")
ARCHS = PLACED + ("lstm",)
FACTORS, WINDOW, HEAD = 64, 32, 64


def start(threads):
    global torch, nn, F, np
    peers.start(threads)
    torch, nn, F, np = peers.torch, peers.nn, peers.F, peers.np
    ten_steps.torch, ten_steps.np = torch, np


# ---- How tokens are mixed ------------------------------------------------------------------------

def up_to_now(T):
    """[t][i]: is i at t or before?"""
    return torch.ones(T, T, dtype=torch.bool).tril()


def attention(q, k, v, head):
    B, T, A = q.shape
    q, k, v = (x.view(B, T, A // head, head).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(2, 3) / math.sqrt(head)
    scores = scores.masked_fill(~up_to_now(T), -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, A)


def mean_of_pairs(k, v, w):
    """The sum over all pairs, as it is defined; w is [T][T], or 0."""
    T = k.shape[1]
    w = k.new_zeros(T, T) if w is None else w
    e = k[:, None] + w[:, :, None]  # [B][t][i][C]
    e = e.masked_fill(~up_to_now(T)[:, :, None], -math.inf)
    return (e.softmax(2) * v[:, None]).sum(2)


def mean_by_products(k, v, w):
    """The same, by one product with all e^w, or by running sums: the fastest forms found.

    They hold while the keys of a channel lie within about 80 of each other. Timed for aft-full of
    E1, milliseconds of a step on a busy machine: this 76, a product for each sequence 87, above
    and below the line apart 84, the sum over all pairs 375."""
    p = torch.exp(k - k.detach().amax(1, keepdim=True))
    if w is None:
        return (p * v).cumsum(1) / p.cumsum(1)
    both = torch.cat((p * v, p), 2).transpose(0, 1)  # [i][B][2 C]
    both = (torch.exp(w).tril() @ both.flatten(1)).view(both.shape).transpose(0, 1)
    above, below = both.chunk(2, 2)
    return above / below


# ---- Models --------------------------------------------------------------------------------------
# Their parameters have the names of Corvid's files; of an LSTM see own_name().

def mixer(arch, s, mean):
    C = s["dim"]

    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value, self.output = (peers.linear(C, C) for _ in range(4))
            if arch in ("aft-full", "aft-local"):
                self.bias_u = nn.Embedding(s["places"], s["factors"])
                self.bias_z = nn.Embedding(s["places"], s["factors"])
                nn.init.normal_(self.bias_u.weight, std=0.01)
                nn.init.normal_(self.bias_z.weight, std=0.01)
            if arch == "aft-local":
                self.bias_distance = nn.Parameter(torch.zeros(s["window"]))

        def biases(self, T):
            """[t][i]; what stands at i > t counts for nothing."""
            if arch == "aft-simple":
                return None
            w = self.bias_u.weight[:T] @ self.bias_z.weight[:T].t()
            if arch == "aft-full":
                return w
            lag = torch.arange(T)[:, None] - torch.arange(T)
            near = self.bias_distance[lag.clamp(0, s["window"] - 1)]
            return torch.where(lag < s["window"], w + near, torch.zeros_like(w))

        def forward(self, z):
            q, k, v = self.query(z), self.key(z), self.value(z)
            if arch == "gpt":
                return self.output(attention(q, k, v, s["head"]))
            return self.output(torch.sigmoid(q) * mean(k, v, self.biases(z.shape[1])))

    return Mixer()


def placed(arch, s, mean):
    """Learned places, norms before the branches, a head of its own."""
    C = s["dim"]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln1, self.ln2 = nn.LayerNorm(C), nn.LayerNorm(C)
            self.add_module("att" if arch == "gpt" else "aft", mixer(arch, s, mean))
            self.ffn = nn.ModuleDict({"key": peers.linear(C, 4 * C),
                                      "value": peers.linear(4 * C, C)})

        def forward(self, x):
            mix = self.att if arch == "gpt" else self.aft
            x = x + mix(self.ln1(x))
            return x + self.ffn.value(F.gelu(self.ffn.key(self.ln2(x))))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(s["vocabulary"], C)
            self.pos = nn.Embedding(s["places"], C)
            self.blocks = nn.Sequential(*[Block() for _ in range(s["layers"])])
            self.ln_out = nn.LayerNorm(C)
            self.head = peers.linear(C, s["vocabulary"])

        def forward(self, idx):
            x = self.emb(idx) + self.pos.weight[:idx.shape[1]]
            return self.head(self.ln_out(self.blocks(x)))

    return Model()


def lstm(s):
    """PyTorch's own. Its second biases stay at 0: they would only be added to the first."""
    C = s["dim"]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(s["vocabulary"], C)
            self.lstm = nn.LSTM(C, C, s["layers"], batch_first=True)
            self.head = peers.linear(C, s["vocabulary"])
            for name, p in self.lstm.named_parameters():
                if name.startswith("bias_hh"):
                    nn.init.zeros_(p.requires_grad_(False))

        def forward(self, idx):
            return self.head(self.lstm(self.emb(idx))[0])

    return Model()


def own_name(name):
    """The name here of a tensor of Corvid's file. Both have the gates in the order i f g o."""
    found = re.fullmatch(r"blocks\.(\d+)\.lstm\.(.*)", name)
    if not found:
        return name
    kinds = {"input.weight": "weight_ih", "hidden.weight": "weight_hh", "bias": "bias_ih"}
    return f"lstm.{kinds[found[2]]}_l{found[1]}"


def build(arch, s, mean):
    return lstm(s) if arch == "lstm" else placed(arch, s, mean)


# ---- Files ---------------------------------------------------------------------------------------

def read_file(path):
    """Name -> f32 tensor, and the metadata, of a safetensors file."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] != "F32":
            sys.exit(f"ancestors.py: {path}: {name} is {entry['dtype']}, expected F32")
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
        tensors[name] = torch.from_numpy(array.copy())
    return tensors, metadata


def write_file(path, tensors, metadata):
    header, at = ({"__metadata__": metadata} if metadata else {}), 0
    for name, t in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(t.shape),
                        "data_offsets": [at, at + 4 * t.numel()]}
        at += 4 * t.numel()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for t in tensors.values():
            f.write(t.numpy().astype("<f4").tobytes())


def what_it_is(tensors, metadata):
    """Architecture and sizes, from names and shapes."""
    layers = 1 + max(int(n.split(".")[1]) for n in tensors if n.startswith("blocks."))
    vocabulary, dim = tensors["emb.weight"].shape
    s = {"layers": layers, "dim": dim, "vocabulary": vocabulary}
    if "blocks.0.lstm.bias" in tensors:
        return "lstm", s
    s.update(places=len(tensors["pos.weight"]), head=int(metadata.get("head_size", HEAD)))
    if "blocks.0.att.query.weight" in tensors:
        return "gpt", s
    if "blocks.0.aft.bias_u.weight" not in tensors:
        return "aft-simple", s
    s["factors"] = tensors["blocks.0.aft.bias_u.weight"].shape[1]
    if "blocks.0.aft.bias_distance" not in tensors:
        return "aft-full", s
    s["window"] = len(tensors["blocks.0.aft.bias_distance"])
    return "aft-local", s


def filled(tensors, metadata, dtype, mean=mean_of_pairs):
    """A model with these weights. No tensor may be left over, on either side."""
    model = build(*what_it_is(tensors, metadata), mean)
    weights = {own_name(name): t for name, t in tensors.items()}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            weights[name] = p.detach()
    model.load_state_dict(weights, strict=True)
    return model.to(dtype)


def read_text(path):
    with open(path, "rb") as f:
        return torch.from_numpy(np.frombuffer(f.read(), "u1").astype("i8"))


# ---- Logits --------------------------------------------------------------------------------------

def drawn_anew(tensors):
    """Weights of such sizes that every term counts: norms that are not one, scores and biases of
    about one."""
    chance = torch.Generator().manual_seed(7)
    drawn = {}
    for name, t in tensors.items():
        x = torch.randn(t.shape, generator=chance)
        if t.dim() < 2:
            drawn[name] = t + 0.5 * x
        elif ".bias_" in name:
            drawn[name] = 0.4 * x
        else:
            drawn[name] = x if name in ("emb.weight", "pos.weight") else x * t.shape[1] ** -0.5
    return drawn


def corvid_logits(corvid, model, tokens, folder):
    out = os.path.join(folder, "logits.safetensors")
    subprocess.run([corvid, "logits", "-m", model, "--tokens", " ".join(map(str, tokens.tolist())),
                    "--all", "--out", out, "--threads", "1", "--quiet"], check=True)
    return read_file(out)[0]["logits"].double()


def compare_logits(o, tensors, metadata, tokens):
    """Largest differences, as parts of the largest logit; and that one."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.safetensors")
        write_file(path, tensors, metadata)
        ours = corvid_logits(o.corvid, path, tokens, folder)
    forms = {"double": (torch.float64, mean_of_pairs), "f32": (torch.float32, mean_of_pairs)}
    if what_it_is(tensors, metadata)[0].startswith("aft"):
        forms["timed"] = (torch.float32, mean_by_products)
    top, apart = float(ours.abs().max()), {}
    for form, (dtype, mean) in forms.items():
        with torch.inference_mode():
            theirs = filled(tensors, metadata, dtype, mean)(tokens[None])[0].double()
        apart[form] = float((theirs - ours).abs().max()) / top
    return apart, top


# ---- Ten steps -----------------------------------------------------------------------------------

def wrap(logits):
    """L2Wrap: nothing is added to the loss, 1e-4 of the largest logit of a row to its gradient."""
    half = 0.5e-4 * logits.amax(-1).square().mean()
    return half - half.detach()


def rate_at(o, step):
    """A cosine behind the warm-up, which lifts it from a hundredth."""
    p = min(1.0, max(0.0, (step - o.warmup) / (o.steps - o.warmup)))
    rate = o.lr_final + 0.5 * (o.lr - o.lr_final) * (1 + math.cos(math.pi * p))
    return rate * (0.01 + 0.99 * step / o.warmup) if step < o.warmup else rate


def decays(name, tensor):
    return name.endswith(".weight") and sum(n > 1 for n in tensor.shape) >= 2


def adam_of(o, model, tensors):
    own = dict(model.named_parameters())
    matrices = [own[own_name(n)] for n, t in tensors.items() if decays(n, t)]
    rest = [own[own_name(n)] for n, t in tensors.items() if not decays(n, t)]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": o.weight_decay},
                              {"params": rest, "weight_decay": 0.0}],
                             lr=o.lr, betas=(o.beta1, o.beta2), eps=o.eps)


def train(o, tensors, metadata, text, dtype):
    """Losses, norms of gradients before they are clipped, and the weights at the end."""
    model = filled(tensors, metadata, dtype)
    adam = adam_of(o, model, tensors)
    learning = [p for p in model.parameters() if p.requires_grad]
    losses, norms = [], []
    for step in range(o.steps):
        peers.set_rate(adam, rate_at(o, step))
        inputs, targets = ten_steps.text_batch(text, o, step)
        logits = model(inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        adam.zero_grad(set_to_none=True)
        (loss + wrap(logits)).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(learning, o.clip)))
        adam.step()
        losses.append(loss.item())
    own = dict(model.named_parameters())
    return losses, norms, {n: own[own_name(n)].detach().double() for n in tensors}


def moved_apart(first, ours, theirs):
    """Of the worst tensor: how far apart the two runs brought it, over how far they brought it."""
    def apart(name):
        a, b, begin = theirs[name], ours[name], first[name]
        if name.endswith("bias_u.weight"):  # that of the first place cancels: rounding moves it
            a, b, begin = a[1:], b[1:], begin[1:]
        return float((a - b).norm() / (a - begin).norm()), name
    return max(apart(name) for name in first)


# ---- check ---------------------------------------------------------------------------------------

def row(what, numbers, note=""):
    columns = "".join(f"{numbers[f]:11.1e}" if f in numbers else f"{'-':>11}"
                      for f in ("double", "f32", "timed"))
    print(f"  {what:<37}{columns}  {note}".rstrip())


def read_log(o):
    with open(o.log) as f:
        lines = [json.loads(line) for line in f]
    if len(lines) != o.steps:
        sys.exit(f"ancestors.py: {o.log} has {len(lines)} steps, expected {o.steps}")
    return [x["loss"] for x in lines], [x["grad_norm"] for x in lines]


def check(o):
    first, metadata = read_file(o.start)
    trained, _ = read_file(o.trained)
    text = read_text(o.text)
    cut = math.floor((1 - o.validation) * len(text))
    arch, s = what_it_is(first, metadata)
    print(f"{arch}, {s['layers']} layers, width {s['dim']}, {o.batch} sequences of {o.context} "
          "bytes")
    print(f"  {'largest difference':<37}{'double':>11}{'f32':>11}{'timed':>11}")
    tokens = text[cut:cut + s.get("places", 4 * o.context)]
    worst = []
    for what, tensors in (("weights drawn anew", drawn_anew(first)),
                          (f"after {o.steps} steps", trained)):
        apart, top = compare_logits(o, tensors, metadata, tokens)
        row(f"logits / largest, {what}", apart, f"largest {top:.2f}")
        worst += apart.values()
    losses, norms = read_log(o)
    runs = {f: train(o, first, metadata, text[:cut], t)
            for f, t in (("double", torch.float64), ("f32", torch.float32))}
    apart = {f: max(abs(a - b) for a, b in zip(run[0], losses)) for f, run in runs.items()}
    row(f"losses of {o.steps} steps", apart, f"from {losses[0]:.4f} to {losses[-1]:.4f}")
    worst += apart.values()
    apart = {f: max(abs(a / b - 1) for a, b in zip(run[1], norms)) for f, run in runs.items()}
    row("norms of gradients, relative", apart)
    worst += apart.values()
    moved = {f: moved_apart(first, trained, run[2]) for f, run in runs.items()}
    row("weights / their way, worst tensor", {f: m[0] for f, m in moved.items()},
        f"{moved['double'][1]}; at most {10 * o.tolerance:g}")
    worst += [m[0] / 10 for m in moved.values()]  # AdamW makes steps of roundings, too
    good = all(x <= o.tolerance for x in worst)  # not a number is not good
    print(f"  {'within' if good else 'ABOVE'} {o.tolerance:g}")
    if not good:
        print(f"  {'step':>4} {'double':>12} {'f32':>12} {'corvid':>12}")
        for step, numbers in enumerate(zip(runs["double"][0], runs["f32"][0], losses), 1):
            print(f"  {step:4} " + " ".join(f"{x:12.7f}" for x in numbers))
    return 0 if good else 1


# ---- speed ---------------------------------------------------------------------------------------

E1 = {"context": 64, "batch": 12, "steps": 2000}


def e1_shape(model):
    return {"layers": 2, "dim": 232} if model == "lstm" else {"layers": 4, "dim": 128}


def peer(model):
    s = e1_shape(model)
    if model in ARCHS:
        s.update(vocabulary=256, places=E1["context"], head=HEAD, factors=FACTORS, window=WINDOW)
        return build(model, s, mean_by_products)
    return peers.language_model(argparse.Namespace(model=model, **s))


def corvid_steps(o, model):
    """Seconds of each step but the first; those that measure or save are left out."""
    s = e1_shape(model)
    with tempfile.TemporaryDirectory() as folder:
        run = os.path.join(folder, "run")
        subprocess.run([o.corvid, "train", "lm", "--arch", model, "--layers", str(s["layers"]),
                        "--dim", str(s["dim"]), "--context", str(E1["context"]), "--batch",
                        str(E1["batch"]), "--steps", str(o.steps), "--lr", "1e-3", "--lr-final",
                        "1e-4", "--warmup", "4", "--weight-decay", "0.1", "--type", "f32",
                        "--threads", "1", "--eval-every", "1000000", "--save-every", "1000000",
                        "--eval-tokens", "1", "--data", o.text, "--out", run, "--quiet"],
                       check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(run, "log.jsonl")) as f:
            lines = [json.loads(line) for line in f]
    return [b["seconds"] - a["seconds"] for a, b in zip(lines, lines[1:])
            if "validation" not in b and "saved" not in b]


def torch_steps(o, model, adam, text):
    o.context, o.batch = E1["context"], E1["batch"]
    seconds = []
    for step in range(o.warm + o.torch_steps):
        inputs, targets = ten_steps.text_batch(text, o, step)
        spent, _ = common.timed(lambda: peers.one_step(model, adam, inputs, targets, 1.0))
        if step >= o.warm:
            seconds.append(spent)
    return seconds


def load():
    return os.getloadavg()[0]


def speed(o):
    library, gmac = common.blas(1)
    if gmac < common.SLOW_GMAC_PER_S and not o.any_blas:
        sys.exit(f"ancestors.py: torch multiplies matrices with {library}, at {gmac:.1f} GMAC/s: a "
                 "peer that slow proves nothing. Install libopenblas0-openmp, or put its folder "
                 "into LD_LIBRARY_PATH, or say --any-blas.")
    before, text = load(), read_text(o.text)
    names = o.models.split()
    theirs = {n: peer(n) for n in names}
    adams = {n: peers.optimizer(m, 1e-3, (0.9, 0.99), 0.1) for n, m in theirs.items()}
    times = {n: ([], []) for n in names}
    for _ in range(o.rounds):
        for n in names:
            times[n][0].append(1e3 * statistics.median(corvid_steps(o, n)))
            spent = torch_steps(o, theirs[n], adams[n], text)
            times[n][1].append(1e3 * statistics.median(spent))
    print(f"PyTorch {torch.__version__}, {os.path.basename(library)} at {gmac:.0f} GMAC/s; a step "
          f"of {E1['batch']} sequences of {E1['context']} bytes, f32, one thread;\n"
          f"medians of a round's steps, then of {o.rounds} rounds; load {before:.1f} before")
    print(f"{'model':<10} {'corvid ms':>10} {'PyTorch ms':>10} {'ratio':>7} {'corvid min':>11} "
          f"{'PyTorch min':>11}   minutes of {E1['steps']} steps")
    for n in names:
        a, b = (statistics.median(t) for t in times[n])
        print(f"{n:<10} {a:10.1f} {b:10.1f} {b / a:7.2f} {a * E1['steps'] / 6e4:11.1f} "
              f"{b * E1['steps'] / 6e4:11.1f}")
    for n in names:
        for who, t in zip(("corvid", "PyTorch"), times[n]):
            if max(t) > 1.5 * min(t):
                print(f"not steady: {n}, {who}, {min(t):.1f} to {max(t):.1f} ms; measure again")
    return 0


# ---- The command ---------------------------------------------------------------------------------

def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = p.add_subparsers(dest="verb", required=True)
    v = verbs.add_parser("check")
    v.add_argument("--start", required=True, help="Corvid's model before its first step")
    v.add_argument("--trained", required=True, help="its model after the run")
    v.add_argument("--log", required=True, help="log.jsonl of the run")
    v.add_argument("--steps", type=int, default=10)
    v.add_argument("--context", type=int, default=64)
    v.add_argument("--batch", type=int, default=4)
    v.add_argument("--lr", type=float, default=1e-3)
    v.add_argument("--lr-final", type=float, default=1e-5)
    v.add_argument("--warmup", type=int, default=4)
    v.add_argument("--beta1", type=float, default=0.9)
    v.add_argument("--beta2", type=float, default=0.99)
    v.add_argument("--eps", type=float, default=1e-18)
    v.add_argument("--weight-decay", type=float, default=0.1)
    v.add_argument("--clip", type=float, default=1.0)
    v.add_argument("--validation", type=float, default=0.1)
    v.add_argument("--tolerance", type=float, default=1e-4)
    v = verbs.add_parser("speed")
    v.add_argument("--models", default="rwkv4 rwkv7 gpt lstm aft-full aft-local aft-simple")
    v.add_argument("--rounds", type=int, default=3)
    v.add_argument("--steps", type=int, default=40, help="of Corvid, in a round")
    v.add_argument("--torch-steps", type=int, default=12, help="of PyTorch, in a round")
    v.add_argument("--warm", type=int, default=2, help="of PyTorch, not counted")
    v.add_argument("--any-blas", action="store_true",
                   help="measure with a slow library for matrices as well")
    for verb in verbs.choices.values():
        verb.add_argument("--corvid", required=True, help="the command")
        verb.add_argument("--text", required=True)
        verb.add_argument("--seed", type=int, default=1)
    return p.parse_args()


def main():
    o = options()
    start(1)
    return check(o) if o.verb == "check" else speed(o)


if __name__ == "__main__":
    sys.exit(main())
