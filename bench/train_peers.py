#!/usr/bin/python3
"""What training is measured against, in PyTorch on the processor.

    train_peers.py speed --model gpt|rwkv4|rwkv7 [--layers 6 --dim 256 --context 256 --batch 8]
    train_peers.py check --model rwkv4|rwkv7 --golden FOLDER
    train_peers.py learn --data FILE --out FOLDER [--recipe nano|strong] [--minutes 30]
    train_peers.py learn-pictures --images cifar10|mnist --data PATH --cache FOLDER --out FOLDER

speed           tokens per second of whole steps: forward, backward, clipping, AdamW; and the peak of
                memory. The weights are random, and so are the tokens.
check           the two RWKV models against the reference values (lm_v4, lm_v7), so that it is known
                that these models are timed and no others.
learn           a GPT over bytes, for so many minutes: the last tenth of the text is for validation,
                all of it, in windows. nano is the recipe that nanoGPT gives for a processor, strong
                one of the size that Corvid trains in learning.sh.
learn-pictures  a ViT for so many minutes; right ones of the whole test set at 5, 15 and 60 minutes.
                The archive of pictures is unpacked once, into --cache.

Minutes are those of training: evaluating stops the clock. Everything is written for this file, from
the equations in docs/equations.md. bench/train_speed.sh and bench/learning.sh run it.
"""
import argparse
import gzip
import io
import json
import math
import os
import statistics
import sys
import tarfile
import time

import vision_peers as common

# Filled by start(), after the environment that torch reads at its import is set.
torch = nn = F = np = None

HEAD = 64


def start(threads):
    global torch, nn, F, np
    common.start_torch(threads)
    import numpy
    torch, nn, F, np = common.torch, common.nn, common.F, numpy


# ---- GPT and ViT ---------------------------------------------------------------------------------

def linear(inputs, outputs, std=0.02, bias=False):
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=std)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def attention_block(dim, heads, layers, causal, context):
    """One pre-norm block: GPT's with a triangular mask and no biases, ViT's without and with."""
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.qkv = linear(dim, 3 * dim, bias=not causal)
            self.out = linear(dim, dim, 0.02 / math.sqrt(2 * layers), bias=not causal)
            self.up = linear(dim, 4 * dim, bias=not causal)
            self.down = linear(4 * dim, dim, 0.02 / math.sqrt(2 * layers), bias=not causal)
            if causal:
                mask = torch.full((context, context), -math.inf).triu(1)
                self.register_buffer("mask", mask, persistent=False)

        def forward(self, x):
            B, T, C = x.shape
            qkv = self.qkv(self.norm1(x)).view(B, T, 3, heads, C // heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).reshape(3, B * heads, T, C // heads).unbind(0)
            scale = (C // heads) ** -0.5
            if causal:
                a = torch.baddbmm(self.mask[:T, :T], q, k.transpose(1, 2), alpha=scale)
            else:
                a = torch.bmm(q * scale, k.transpose(1, 2))
            y = torch.bmm(a.softmax(-1), v).view(B, heads, T, -1).transpose(1, 2).reshape(B, T, C)
            x = x + self.out(y)
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    return Block()


def gpt(layers, dim, heads, context, vocabulary=256):
    """Learned positions, tied head: GPT-2's text."""
    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Parameter(0.02 * torch.randn(vocabulary, dim))
            self.positions = nn.Parameter(0.02 * torch.randn(context, dim))
            self.blocks = nn.Sequential(*[attention_block(dim, heads, layers, True, context)
                                          for _ in range(layers)])
            self.norm = nn.LayerNorm(dim)

        def forward(self, idx):
            x = F.embedding(idx, self.tokens) + self.positions[:idx.shape[1]]
            return self.norm(self.blocks(x)) @ self.tokens.t()

    return GPT()


def vit(layers, dim, heads, side, patch, channels, classes):
    """No class token: the mean of all tokens classifies, as in VRWKV."""
    class ViT(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(channels, dim, patch, patch)
            self.positions = nn.Parameter(0.02 * torch.randn((side // patch) ** 2, dim))
            self.blocks = nn.Sequential(*[attention_block(dim, heads, layers, False, 0)
                                          for _ in range(layers)])
            self.norm = nn.LayerNorm(dim)
            self.head = linear(dim, classes, bias=True)

        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
            return self.head(self.norm(self.blocks(x)).mean(1))

    return ViT()


# ---- RWKV ----------------------------------------------------------------------------------------
# Official names of tensors, so that reference files can be loaded.

def wkv4(w, u, k, v):
    """[v4.wkv] of [B, T, C], token by token; autograd walks it back."""
    keys, values = k.unbind(1), v.unbind(1)
    a = torch.zeros_like(keys[0])
    b = torch.zeros_like(a)
    p = torch.full_like(a, -1e38)
    ys = []
    for t in range(len(keys)):
        x = u + keys[t]
        q = torch.maximum(p, x)
        before, now = torch.exp(p - q), torch.exp(x - q)
        ys.append((before * a + now * values[t]) / (before * b + now))
        x = p + w
        p = torch.maximum(x, keys[t])
        before, now = torch.exp(x - p), torch.exp(keys[t] - p)
        a = before * a + now * values[t]
        b = before * b + now
    return torch.stack(ys, 1)


def wkv7(r, w, k, v, kk, a):
    """[v7.wkv] of [B, T, H, N], w in (0, 1), token by token: S = S diag(w) - (S kk) (kk a)' + v k'."""
    B, T, H, N = r.shape
    left = torch.stack((kk * a, k), 3).transpose(0, 1).reshape(T, B * H, 2, N)
    decay = w.transpose(0, 1).reshape(T, B * H, 1, N).unbind(0)
    reads = r.transpose(0, 1).reshape(T, B * H, N, 1).unbind(0)
    keys = kk.transpose(0, 1).reshape(T, B * H, N, 1).unbind(0)
    values = v.transpose(0, 1).reshape(T, B * H, N, 1).unbind(0)
    lefts = left.unbind(0)
    S = torch.zeros(B * H, N, N, dtype=r.dtype)
    ys = []
    for t in range(T):
        taken = torch.cat((-torch.bmm(S, keys[t]), values[t]), 2)
        S = torch.baddbmm(S * decay[t], taken, lefts[t])
        ys.append(torch.bmm(S, reads[t]))
    return torch.stack(ys, 0).view(T, B, H, N).transpose(0, 1)


def shifted(x):
    return F.pad(x, (0, 0, 1, -1))


def vector(n, value=0.5):
    return nn.Parameter(torch.full((1, 1, n), float(value)))


def rwkv4_mixers(s):
    scripted = torch.jit.script(wkv4)

    class Time(nn.Module):
        def __init__(self):
            super().__init__()
            C = s["dim"]
            self.time_mix_k, self.time_mix_v, self.time_mix_r = vector(C), vector(C), vector(C)
            self.time_decay = nn.Parameter(torch.linspace(-5, 3, C))
            self.time_first = nn.Parameter(torch.full((C,), math.log(0.3)))
            self.key, self.value, self.receptance, self.output = (linear(C, C) for _ in range(4))

        def forward(self, x, first):
            xx = shifted(x)
            k = self.key(torch.lerp(xx, x, self.time_mix_k))
            v = self.value(torch.lerp(xx, x, self.time_mix_v))
            r = torch.sigmoid(self.receptance(torch.lerp(xx, x, self.time_mix_r)))
            y = scripted(-torch.exp(self.time_decay), self.time_first, k, v)
            return self.output(r * y), first

    class Channel(nn.Module):
        def __init__(self):
            super().__init__()
            C = s["dim"]
            self.time_mix_k, self.time_mix_r = vector(C), vector(C)
            self.key, self.value = linear(C, s["inner"]), linear(s["inner"], C)
            self.receptance = linear(C, C)

        def forward(self, x):
            xx = shifted(x)
            k = torch.relu(self.key(torch.lerp(xx, x, self.time_mix_k))) ** 2
            r = torch.sigmoid(self.receptance(torch.lerp(xx, x, self.time_mix_r)))
            return r * self.value(k)

    return Time, Channel


def rank(factor, dim):
    return max(32, 32 * round(factor * math.sqrt(dim) / 32))


def rwkv7_mixers(s):
    scripted = torch.jit.script(wkv7)

    def low_rank(inner):
        return (nn.Parameter(0.02 * torch.randn(s["dim"], inner)),
                nn.Parameter(0.02 * torch.randn(inner, s["dim"])))

    class Time(nn.Module):
        def __init__(self, layer):
            super().__init__()
            C, N = s["dim"], s["head"]
            for name in "rwkvag":
                setattr(self, "x_" + name, vector(C))
            for name in "wavg":
                if name == "v" and layer == 0:
                    continue
                first, second = low_rank(s["ranks"][name])
                setattr(self, name + "1", first)
                setattr(self, name + "2", second)
                if name != "g":
                    setattr(self, name + "0", vector(C, -3.0 if name == "w" else 0.0))
            self.k_k, self.k_a = vector(C, 0.7), vector(C, 1.0)
            self.r_k = nn.Parameter(torch.full((C // N, N), -0.04))
            self.key, self.value, self.receptance, self.output = (linear(C, C) for _ in range(4))
            self.ln_x = nn.GroupNorm(C // N, C, eps=64e-5)

        def forward(self, z, first):
            B, T, C = z.shape
            H, N = self.r_k.shape
            xx = shifted(z)
            r = self.receptance(torch.lerp(z, xx, self.x_r)).view(B, T, H, N)
            k = self.key(torch.lerp(z, xx, self.x_k))
            xw, xv = torch.lerp(z, xx, self.x_w), torch.lerp(z, xx, self.x_v)
            v = self.value(xv)
            w = torch.sigmoid(self.w0 + torch.tanh(xw @ self.w1) @ self.w2)
            w = torch.exp(-math.exp(-0.5) * w)
            if first is None:
                first = v
            else:
                v = torch.lerp(v, first, torch.sigmoid(self.v0 + (xv @ self.v1) @ self.v2))
            a = torch.sigmoid(self.a0 + (torch.lerp(z, xx, self.x_a) @ self.a1) @ self.a2)
            g = torch.sigmoid(torch.lerp(z, xx, self.x_g) @ self.g1) @ self.g2
            kk = F.normalize((k * self.k_k).view(B, T, H, N), dim=-1)
            k = (k * (1 + (a - 1) * self.k_a)).view(B, T, H, N)
            v = v.view(B, T, H, N)
            y = scripted(r, w.view(B, T, H, N), k, v, kk, a.view(B, T, H, N))
            y = self.ln_x(y.reshape(B * T, C)).view(B, T, H, N)
            y = y + (r * k * self.r_k).sum(-1, keepdim=True) * v
            return self.output(y.reshape(B, T, C) * g), first

    class Channel(nn.Module):
        def __init__(self):
            super().__init__()
            self.x_k = vector(s["dim"])
            self.key, self.value = linear(s["dim"], s["inner"]), linear(s["inner"], s["dim"])

        def forward(self, z):
            return self.value(torch.relu(self.key(torch.lerp(z, shifted(z), self.x_k))) ** 2)

    return Time, Channel


def rwkv(version, s):
    """A whole model; s holds layers, dim, inner, vocabulary, and for 7 head and ranks."""
    Time, Channel = rwkv4_mixers(s) if version == 4 else rwkv7_mixers(s)
    C = s["dim"]

    class Block(nn.Module):
        def __init__(self, layer):
            super().__init__()
            if layer == 0:
                self.ln0 = nn.LayerNorm(C)
            self.ln1, self.ln2 = nn.LayerNorm(C), nn.LayerNorm(C)
            self.att, self.ffn = Time() if version == 4 else Time(layer), Channel()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(s["vocabulary"], C)
            self.blocks = nn.ModuleList([Block(layer) for layer in range(s["layers"])])
            self.ln_out = nn.LayerNorm(C)
            self.head = linear(C, s["vocabulary"])

        def forward(self, idx):
            x, first = self.blocks[0].ln0(self.emb(idx)), None
            for block in self.blocks:
                y, first = block.att(block.ln1(x), first)
                x = x + y
                x = x + block.ffn(block.ln2(x))
            return self.head(self.ln_out(x))

    return Model()


def language_model(o):
    if o.model == "gpt":
        return gpt(o.layers, o.dim, o.heads or max(1, o.dim // 64), o.context)
    s = {"layers": o.layers, "dim": o.dim, "inner": 4 * o.dim, "vocabulary": 256, "head": HEAD,
         "ranks": {"w": rank(2.5, o.dim), "a": rank(2.5, o.dim), "v": rank(1.7, o.dim),
                   "g": rank(5.0, o.dim)}}
    return rwkv(int(o.model[-1]), s)


# ---- Steps ---------------------------------------------------------------------------------------

def optimizer(model, lr, betas, decay, eps=1e-8):
    """AdamW; matrices decay, vectors do not."""
    matrices = [p for p in model.parameters() if p.squeeze().dim() >= 2]
    vectors = [p for p in model.parameters() if p.squeeze().dim() < 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps)


def one_step(model, adam, inputs, targets, clip, smoothing=0.0):
    scores = model(inputs)
    loss = F.cross_entropy(scores.view(-1, scores.shape[-1]), targets.view(-1),
                           label_smoothing=smoothing)
    adam.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    adam.step()
    return loss.item()


def set_rate(adam, rate):
    for group in adam.param_groups:
        group["lr"] = rate


def cosine(o, progress, step):
    """Over the time there is, with a warm-up counted in steps."""
    rate = o.lr_final + (o.lr - o.lr_final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return rate * min(1.0, (step + 1) / o.warmup)


def count(model):
    return sum(p.numel() for p in model.parameters())


# ---- Speed ---------------------------------------------------------------------------------------

def speed(o):
    model = language_model(o)
    adam = optimizer(model, 1e-4, (0.9, 0.99), 0.001)
    seconds = []
    for step in range(o.warm + o.steps):
        rows = torch.randint(0, 256, (o.batch, o.context + 1))
        inputs, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
        spent, _ = common.timed(lambda: one_step(model, adam, inputs, targets, 1.0))
        if step >= o.warm:
            seconds.append(spent)
    tokens = o.batch * o.context
    return {"model": o.model, "layers": o.layers, "dim": o.dim, "context": o.context,
            "batch": o.batch, "threads": o.threads, "parameters": count(model),
            "tokens_per_s": tokens / statistics.median(seconds),
            "tokens_per_s_least": tokens / max(seconds), "tokens_per_s_most": tokens / min(seconds),
            "peak_bytes": common.peak_bytes()}


def read_f64(path):
    """Name -> tensor, of a safetensors file of F64 and I64."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    header.pop("__metadata__", None)
    kinds = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4"}
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[begin:end], kinds[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(array.copy())
    return tensors


def check(o):
    """Largest difference of logits and of gradients from the reference, in double."""
    version = int(o.model[-1])
    golden = read_f64(os.path.join(o.golden, f"lm_v{version}.safetensors"))
    params = {name[6:]: t for name, t in golden.items() if name.startswith("param.")}
    s = {"layers": 1 + max(int(n.split(".")[1]) for n in params if n.startswith("blocks.")),
         "dim": params["emb.weight"].shape[1], "vocabulary": params["emb.weight"].shape[0],
         "inner": params["blocks.0.ffn.key.weight"].shape[0]}
    if version == 7:
        s["head"] = params["blocks.0.att.r_k"].shape[1]
        s["ranks"] = {n: params[f"blocks.1.att.{n}1"].shape[1] for n in "wavg"}
    model = rwkv(version, s).double()
    own = model.state_dict()
    model.load_state_dict({n: t.view(own[n].shape) for n, t in params.items()})
    logits = model(golden["tokens"].long().view(1, -1))[0]
    F.cross_entropy(logits, golden["targets"].long()).backward()
    worst = max(float((p.grad.view(-1) - golden["grad." + n].view(-1)).abs().max())
                for n, p in model.named_parameters())
    return {"model": o.model, "logits": float((logits - golden["logits"]).abs().max()),
            "gradients": worst}


# ---- Learning to write ---------------------------------------------------------------------------

RECIPES = {  # layers, width, heads, context, batch, rate, last rate, warm-up
    "nano": (4, 128, 4, 64, 12, 1e-3, 1e-4, 100),
    "strong": (6, 256, 4, 256, 16, 1e-3, 5e-5, 100),
}


def use_recipe(o):
    names = ("layers", "dim", "heads", "context", "batch", "lr", "lr_final", "warmup")
    for name, value in zip(names, RECIPES[o.recipe]):
        if getattr(o, name) is None:
            setattr(o, name, value)


def validate(model, text, context):
    """Nats per byte over all of the text, in windows that do not overlap."""
    n = len(text) - 1
    total = 0.0
    model.eval()
    with torch.inference_mode():
        for begin in range(0, n - n % context, 32 * context):
            end = min(begin + 32 * context, n - n % context)
            rows, targets = text[begin:end].view(-1, context), text[begin + 1:end + 1]
            total += float(F.cross_entropy(model(rows).flatten(0, 1), targets, reduction="sum"))
        if n % context:
            rows, targets = text[n - n % context:n].view(1, -1), text[n - n % context + 1:]
            total += float(F.cross_entropy(model(rows)[0], targets, reduction="sum"))
    model.train()
    return total / n


class Log:
    """log.jsonl in the form of `corvid train`: one line each step, results of evaluation with it."""

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        self.file = open(os.path.join(folder, "log.jsonl"), "w")

    def line(self, **fields):
        self.file.write(json.dumps(fields) + "\n")
        self.file.flush()


def read_text(path):
    with open(path, "rb") as f:
        text = torch.from_numpy(np.frombuffer(f.read(), "u1").astype("i8"))
    cut = int(0.9 * len(text))
    return text[:cut], text[cut:]


def learn(o):
    use_recipe(o)
    train, held = read_text(o.data)
    o.model = "gpt"
    model = language_model(o)
    adam = optimizer(model, o.lr, (0.9, 0.99), 0.1)
    log, budget, spent, step, best = Log(o.out), 60 * o.minutes, 0.0, 0, math.inf
    looks = [budget * (i + 1) / o.looks for i in range(o.looks)]
    offsets = torch.arange(o.context + 1)
    while spent < budget:
        begin = time.perf_counter()
        rate = cosine(o, spent / budget, step)
        set_rate(adam, rate)
        rows = train[torch.randint(0, len(train) - o.context, (o.batch, 1)) + offsets]
        loss = one_step(model, adam, rows[:, :-1], rows[:, 1:].reshape(-1), 1.0)
        step += 1
        spent += time.perf_counter() - begin
        fields = {"step": step, "loss": loss, "lr": rate, "seconds": spent,
                  "tokens": step * o.batch * o.context}
        if spent >= looks[0]:
            while looks and spent >= looks[0]:
                looks.pop(0)
            fields["validation"] = held_loss = validate(model, held, o.context)
            best = min(best, held_loss)
            looks = looks or [math.inf]
        log.line(**fields)
    return {"model": f"GPT {o.recipe}", "parameters": count(model), "layers": o.layers,
            "dim": o.dim, "context": o.context, "batch": o.batch, "threads": o.threads,
            "minutes": o.minutes, "steps": step, "validation": held_loss, "best": best,
            "peak_bytes": common.peak_bytes()}


# ---- Learning to see -----------------------------------------------------------------------------

MOMENTS = (5, 15, 60)  # minutes


def unpack_cifar(path):
    """Pictures and classes of the archive of JPEG files: train and test, [n][32][32][3]."""
    from PIL import Image
    found = {"train": [], "test": []}
    with tarfile.open(path) as archive:
        for member in archive:
            parts = member.name.split("/")[-3:]
            if member.isfile() and parts[0] in found and parts[-1].endswith(".jpg"):
                image = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")
                found[parts[0]].append((parts[1], parts[2], np.asarray(image)))
    classes = sorted({name for name, _, _ in found["train"]})
    arrays = {}
    for part, items in found.items():
        items.sort(key=lambda item: item[:2])
        arrays[part] = np.stack([pixels for _, _, pixels in items])
        arrays[part + "_class"] = np.array([classes.index(name) for name, _, _ in items])
    return arrays


def unpack_mnist(folder):
    def idx(name, header):
        with gzip.open(os.path.join(folder, name)) as f:
            return np.frombuffer(f.read(), "u1")[header:]
    arrays = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        arrays[part] = idx(prefix + "-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
        arrays[part + "_class"] = idx(prefix + "-labels-idx1-ubyte.gz", 8).astype("i8")
    return arrays


def pictures(o):
    """Unpacked once."""
    cache = os.path.join(o.cache, o.images + ".npz")
    if not os.path.exists(cache):
        arrays = unpack_cifar(o.data) if o.images == "cifar10" else unpack_mnist(o.data)
        os.makedirs(o.cache, exist_ok=True)
        np.savez(cache + ".part.npz", **arrays)
        os.replace(cache + ".part.npz", cache)
    with np.load(cache) as file:
        return {name: file[name] for name in file.files}


def as_values(pixels, mean, deviation):
    """[n][side][side][channels] of bytes -> [n][channels][side][side], normalised."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return ((x - mean.view(1, -1, 1, 1)) / deviation.view(1, -1, 1, 1)).contiguous()


def augmented(pixels, rng, border, flips):
    """Shifted by up to `border` pixels, zeros coming in; every second one mirrored."""
    n, side = pixels.shape[0], pixels.shape[1]
    wide = np.pad(pixels, ((0, 0), (border, border), (border, border), (0, 0)))
    out = np.empty_like(pixels)
    at = rng.integers(0, 2 * border + 1, (n, 2))
    mirror = rng.random(n) < 0.5
    for i in range(n):
        y, x = at[i]
        one = wide[i, y:y + side, x:x + side]
        out[i] = one[:, ::-1] if flips and mirror[i] else one
    return out


def accuracy(model, values, classes):
    right = 0
    model.eval()
    with torch.inference_mode():
        for i in range(0, len(values), 250):
            right += int((model(values[i:i + 250]).argmax(1) == classes[i:i + 250]).sum())
    model.train()
    return right / len(values)


def epochs(n, batch, rng):
    """Numbers of pictures, batch by batch, without end; the rest of a round is left out."""
    while True:
        order = rng.permutation(n)
        for i in range(0, n - batch + 1, batch):
            yield order[i:i + batch]


def learn_pictures(o):
    data, rng = pictures(o), np.random.default_rng(1)
    colour = o.images == "cifar10"
    side, channels = data["train"].shape[1], data["train"].shape[3]
    mean = torch.tensor((0.4914, 0.4822, 0.4465) if colour else (0.1307,))
    deviation = torch.tensor((0.2470, 0.2435, 0.2616) if colour else (0.3081,))
    test = as_values(data["test"], mean, deviation)
    test_class = torch.from_numpy(data["test_class"])
    model = vit(o.layers, o.dim, o.heads, side, o.patch, channels, 10)
    adam = optimizer(model, o.lr, (0.9, 0.999), 0.05)
    log, budget, spent, step = Log(o.out), 60 * o.minutes, 0.0, 0
    moments = sorted({60 * m for m in MOMENTS if m < o.minutes} | {budget})
    reached = {}
    for chosen in epochs(len(data["train"]), o.batch, rng):
        begin = time.perf_counter()
        rate = cosine(o, spent / budget, step)
        set_rate(adam, rate)
        pixels = augmented(data["train"][chosen], rng, 4, colour)
        targets = torch.from_numpy(data["train_class"][chosen])
        loss = one_step(model, adam, as_values(pixels, mean, deviation), targets, 5.0, 0.1)
        step += 1
        spent += time.perf_counter() - begin
        fields = {"step": step, "loss": loss, "lr": rate, "seconds": spent,
                  "pictures": step * o.batch}
        if spent >= moments[0]:
            fields["accuracy"] = accuracy(model, test, test_class)
            while moments and spent >= moments[0]:
                reached[f"{moments.pop(0) / 60:g}"] = fields["accuracy"]
        log.line(**fields)
        if not moments:
            break
    return {"model": "ViT", "images": o.images, "parameters": count(model), "layers": o.layers,
            "dim": o.dim, "patch": o.patch, "batch": o.batch, "threads": o.threads,
            "minutes": o.minutes, "steps": step, "accuracy": fields["accuracy"],
            "accuracy_at_minutes": reached, "peak_bytes": common.peak_bytes()}


# ---- The command ---------------------------------------------------------------------------------

def add_shape(p, layers, dim, heads, batch):
    p.add_argument("--layers", type=int, default=layers)
    p.add_argument("--dim", type=int, default=dim)
    p.add_argument("--heads", type=int, default=heads)
    p.add_argument("--batch", type=int, default=batch)


def add_rates(p, lr, last, warmup):
    p.add_argument("--lr", type=float, default=lr)
    p.add_argument("--lr-final", type=float, default=last)
    p.add_argument("--warmup", type=int, default=warmup, help="steps")
    p.add_argument("--minutes", type=float, default=30)
    p.add_argument("--out", required=True, help="folder of log.jsonl and result.json")


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = p.add_subparsers(dest="verb", required=True)
    v = verbs.add_parser("speed")
    v.add_argument("--model", choices=("gpt", "rwkv4", "rwkv7"), required=True)
    add_shape(v, 6, 256, 0, 8)
    v.add_argument("--context", type=int, default=256)
    v.add_argument("--steps", type=int, default=5)
    v.add_argument("--warm", type=int, default=2, help="steps that are not counted")
    v = verbs.add_parser("check")
    v.add_argument("--model", choices=("rwkv4", "rwkv7"), required=True)
    v.add_argument("--golden", required=True, help="folder of lm_v4.safetensors")
    v = verbs.add_parser("learn")
    v.add_argument("--data", required=True, help="a text")
    v.add_argument("--recipe", choices=tuple(RECIPES), default="strong")
    add_shape(v, None, None, None, None)
    v.add_argument("--context", type=int)
    v.add_argument("--looks", type=int, default=12, help="evaluations")
    add_rates(v, None, None, None)
    v = verbs.add_parser("learn-pictures")
    v.add_argument("--images", choices=("cifar10", "mnist"), required=True)
    v.add_argument("--data", required=True, help="cifar10-jpeg.tar.gz, or the folder of MNIST")
    v.add_argument("--cache", required=True, help="folder for the unpacked pictures")
    add_shape(v, 6, 96, 3, 128)
    v.add_argument("--patch", type=int, default=4)
    add_rates(v, 1e-3, 1e-5, 200)
    for verb in verbs.choices.values():
        verb.add_argument("--threads", type=int, default=2)
        verb.add_argument("--any-blas", action="store_true",
                          help="measure with a slow library for matrices as well")
        verb.add_argument("--json", action="store_true", help="print one JSON object")
    return p.parse_args()


def main():
    o = options()
    start(o.threads)
    library, gmac_per_s = common.blas(o.threads)
    if gmac_per_s < common.SLOW_GMAC_PER_S and not o.any_blas and o.verb != "check":
        sys.exit(f"train_peers.py: torch multiplies matrices with {library}, at "
                 f"{gmac_per_s:.1f} GMAC/s a core: a peer that slow proves nothing. Install "
                 "libopenblas0-openmp, or put its folder into LD_LIBRARY_PATH, or say --any-blas.")
    work = {"speed": speed, "check": check, "learn": learn, "learn-pictures": learn_pictures}
    result = work[o.verb](o)
    if o.verb != "check":
        result.update(torch=torch.__version__, blas=os.path.basename(library),
                      blas_gmac_per_s_core=gmac_per_s)
    if o.verb.startswith("learn"):
        result["clock"] = "training"
        with open(os.path.join(o.out, "result.json"), "w") as f:
            f.write(json.dumps(result) + "\n")
    common.say(result, o.json)
    return 1 if o.verb == "check" and max(result["logits"], result["gradients"]) > 1e-9 else 0


if __name__ == "__main__":
    sys.exit(main())
