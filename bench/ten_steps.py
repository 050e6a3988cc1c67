#!/usr/bin/python3
"""A few steps of training, by official code and from Corvid's own start, loss beside loss.

    ten_steps.py lm --repo PATH/RWKV-LM --arch rwkv4|rwkv5.2|rwkv6|rwkv7 --start MODEL --log LOG
                 --text FILE --steps 10 ...
    ten_steps.py pictures --repo PATH/Vision-RWKV --start MODEL --log LOG --folder PICTURES ...
    ten_steps.py make-pictures --archive cifar10-jpeg.tar.gz --folder PICTURES

MODEL is a safetensors file that Corvid has written before its first step, LOG the log.jsonl of its
run from there. The official module is imported from its checkout: version 4 from RWKV-v4neo, the
others from the RWKV-v5 folder, VRWKV from classification. Its groups of parameters are asked for and
its schedule is called; what their files import and is not at hand (Lightning, DeepSpeed, mmcv) is as
little as they need of it below, and their CUDA operators are the published sums in plain PyTorch,
walked back by autograd. DeepSpeed's FusedAdam is PyTorch's AdamW, which does the same.

Prints the losses and their differences; status 1 when one is above --tolerance. bench/ten_steps.sh
makes the runs and calls this.
"""
import argparse
import contextlib
import importlib.util
import io
import json
import math
import os
import sys
import tarfile
import types

import vision_peers as common

torch = nn = F = np = None


# ---- What the official files import --------------------------------------------------------------

def stand_in(name, **members):
    module = types.ModuleType(name)
    module.__path__ = []
    module.__spec__ = importlib.util.spec_from_loader(name, None)
    for key, value in members.items():
        setattr(module, key, value)
    sys.modules[name] = module


def adam(groups, lr, betas, eps, weight_decay=0.0, **ignored):
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


def stand_ins():
    def nothing(*a, **k):
        return None

    stand_in("pytorch_lightning", LightningModule=nn.Module, Callback=object, __version__="1.9.5")
    stand_in("pytorch_lightning.utilities", rank_zero_info=nothing, rank_zero_only=lambda f: f)
    stand_in("pytorch_lightning.strategies", DeepSpeedStrategy=type("DeepSpeedStrategy", (), {}))
    stand_in("torch.utils.cpp_extension", load=nothing)  # it builds CUDA operators


def official_file(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    with contextlib.redirect_stdout(io.StringIO()):
        spec.loader.exec_module(module)
    return module


# ---- The operators -------------------------------------------------------------------------------

def wkv4(B, T, C, w, u, k, v):
    """[v4.wkv]; w is the parameter, the decay of a step e^(-e^w)."""
    w = -torch.exp(w)
    a = torch.zeros(B, C, dtype=k.dtype)
    b, p = torch.zeros_like(a), torch.full_like(a, -1e38)
    ys = []
    for key, value in zip(k.unbind(1), v.unbind(1)):
        q = torch.maximum(p, u + key)
        before, now = torch.exp(p - q), torch.exp(u + key - q)
        ys.append((before * a + now * value) / (before * b + now))
        q = torch.maximum(p + w, key)
        before, now = torch.exp(p + w - q), torch.exp(key - q)
        a, b, p = before * a + now * value, before * b + now, q
    return torch.stack(ys, 1)


def heads(x):
    return x.view(*x.shape[:-1], x.shape[-1] // 64, 64)


def wkv6(r, k, v, w, u):
    """Decays e^(-e^w), of each token; with w of one token it is version 5.2's."""
    B, T, C = r.shape
    decay = heads(torch.exp(-torch.exp(w)).expand(B, T, C))
    r, k, v, u = heads(r), heads(k), heads(v), u.view(1, -1, 64, 1)
    S = torch.zeros(B, C // 64, 64, 64, dtype=r.dtype)  # [key][value]
    ys = []
    for t in range(T):
        new = k[:, t, :, :, None] * v[:, t, :, None]
        ys.append((r[:, t, :, None] @ (S + u * new))[:, :, 0])
        S = S * decay[:, t, :, :, None] + new
    return torch.stack(ys, 1).view(B, T, C)


def wkv5(B, T, C, H, r, k, v, w, u):
    return wkv6(r, k, v, w.view(1, 1, C), u)


def wkv7(r, w, k, v, a, b):
    """Decays e^(-e^w); a takes out of the state, b is put in with what was taken."""
    B, T, C = r.shape
    r, w, k, v, a, b = map(heads, (r, torch.exp(-torch.exp(w)), k, v, a, b))
    S = torch.zeros(B, C // 64, 64, 64, dtype=r.dtype)  # [value][key]
    ys = []
    for t in range(T):
        taken = S @ a[:, t, :, :, None]
        S = S * w[:, t, :, None] + taken * b[:, t, :, None] + v[:, t, :, :, None] * k[:, t, :, None]
        ys.append((S @ r[:, t, :, :, None])[..., 0])
    return torch.stack(ys, 1).view(B, T, C)


def bi_wkv(w, u, k, v):
    """The sum over all pairs, as it is defined; w and u already over T."""
    T = k.shape[1]
    t = torch.arange(T, dtype=k.dtype)
    lag = (t[:, None] - t).abs() - 1
    e = torch.where(lag[..., None] < 0, u, -lag[..., None] * w)  # [T][T][C]
    return ((e + k[:, None]).softmax(2) * v[:, None]).sum(2)


# ---- Files ---------------------------------------------------------------------------------------

def read_f32(path):
    """Name -> tensor, of a safetensors file of F32."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            array = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
            tensors[name] = torch.from_numpy(array.copy())
    return tensors


def read_log(path):
    with open(path) as f:
        return [json.loads(line)["loss"] for line in f]


def put_in(model, tensors):
    """Loads them all. A parameter of another shape becomes one of the file's: low ranks differ
    between trainers. What the file lacks must be what version 7 never reads."""
    own = dict(model.named_parameters())
    lacking = [name for name in own if name not in tensors]
    unknown = [name for name in tensors if name not in own]
    if unknown or any(name.split(".att.")[-1] not in ("v0", "v1", "v2") for name in lacking):
        sys.exit(f"ten_steps.py: tensors do not fit: {unknown[:3]} not in the official model, "
                 f"{lacking[:3]} not in the file")
    for name, tensor in tensors.items():
        owner = model
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        if own[name].numel() == tensor.numel():
            tensor = tensor.view(own[name].shape)
        setattr(owner, last, nn.Parameter(tensor.clone()))


# ---- Batches of Corvid ---------------------------------------------------------------------------

MASK = (1 << 64) - 1


def mixed(x):
    """The finish of splitmix64, as in src/train/text_samples.c."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def text_batch(text, o, step):
    """The rows that Corvid reads in its random order: a function of seed, step and row."""
    windows = len(text) - o.context
    rows = []
    for row in range(o.batch):
        chance = mixed(mixed(mixed(o.seed) ^ step) ^ row)
        begin = chance * windows >> 64
        rows.append(text[begin:begin + o.context + 1])
    rows = torch.stack(rows)
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


# ---- Language models -----------------------------------------------------------------------------

def arguments(o, tensors):
    """What the official trainers' command line would have made."""
    layers = 1 + max(int(n.split(".")[1]) for n in tensors if n.startswith("blocks."))
    V, C = tensors["emb.weight"].shape
    return argparse.Namespace(
        n_layer=layers, n_embd=C, vocab_size=V, dim_att=C, ctx_len=o.context,
        dim_ffn=tensors["blocks.0.ffn.key.weight"].shape[0], head_size_a=64, head_size_divisor=8,
        head_qk=0, dropout=0, pre_ffn=0, my_pos_emb=0, tiny_att_dim=0, tiny_att_layer=-1,
        grad_cp=0, my_qa_mask=0, my_pile_stage=0, layerwise_lr=1, train_type="none",
        my_testing=os.environ["RWKV_MY_TESTING"], weight_decay=o.weight_decay,
        weight_decay_final=-1, lr_init=o.lr, lr_final=o.lr_final, betas=(0.9, 0.99), adam_eps=1e-18,
        warmup_steps=o.warmup, my_exit_tokens=o.steps * o.batch * o.context, real_bsz=o.batch,
        epoch_begin=0, epoch_steps=1, epoch_count=1, my_pile_edecay=0, magic_prime=0, wandb="",
        strategy="auto", proj_dir="", my_timestamp="")


def official_language(o):
    """Model and schedule of the trainer that this architecture has."""
    folder = os.path.join(o.repo, "RWKV-v4neo" if o.arch == "rwkv4" else "RWKV-v5", "src")
    testing = {"rwkv4": "", "rwkv5.2": "x052", "rwkv6": "x060", "rwkv7": "x070"}[o.arch]
    os.environ.update(RWKV_JIT_ON="0", RWKV_FLOAT_MODE="fp32", RWKV_T_MAX=str(o.context),
                      RWKV_CTXLEN=str(o.context), RWKV_HEAD_SIZE_A="64", RWKV_TRAIN_TYPE="none",
                      RWKV_MY_TESTING=testing)
    file = official_file(os.path.join(folder, "model.py"), "official_model")
    file.FusedAdam = adam
    for name, operator in (("RUN_CUDA", wkv4), ("RUN_CUDA_RWKV5", wkv5), ("RUN_CUDA_RWKV6", wkv6),
                           ("RUN_CUDA_RWKV7g", wkv7)):
        setattr(file, name, operator)
    return file, official_file(os.path.join(folder, "trainer.py"), "official_trainer")


def train_language(o):
    tensors = read_f32(o.start)
    file, trainer_file = official_language(o)
    args = arguments(o, tensors)
    model = file.RWKV(args)
    put_in(model, tensors)
    if o.double:
        model.double()
    model.trainer = types.SimpleNamespace(strategy=None, is_global_zero=False, global_step=0)
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = model.configure_optimizers()
    model.trainer.optimizers = [optimizer]
    schedule = trainer_file.train_callback(args)
    with open(o.text, "rb") as f:
        text = torch.from_numpy(np.frombuffer(f.read(), "u1").astype("i8"))
    text = text[:math.floor((1 - o.validation) * len(text))]
    losses = []
    for step in range(o.steps):
        model.trainer.global_step = step
        batch = text_batch(text, o, step)
        schedule.on_train_batch_start(model.trainer, model, batch, step)
        optimizer.zero_grad(set_to_none=True)
        loss = model.training_step(batch, step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), o.clip)
        optimizer.step()
        losses.append(loss.item())
    return losses


# ---- Pictures ------------------------------------------------------------------------------------

MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def make_pictures(o):
    """So many pictures of the first classes, as PNG files in FOLDER/CLASS/: nothing is lost."""
    from PIL import Image
    made = {}
    with tarfile.open(o.archive) as archive:
        for member in archive:
            parts = member.name.split("/")[-3:]
            if not (member.isfile() and parts[0] == "train" and parts[-1].endswith(".jpg")):
                continue
            if parts[1] not in made and len(made) == o.classes:
                continue
            done = made.setdefault(parts[1], [])
            if len(done) < o.each:
                folder = os.path.join(o.folder, parts[1])
                os.makedirs(folder, exist_ok=True)
                image = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")
                image.save(os.path.join(folder, parts[-1][:-4] + ".png"))
                done.append(member.name)
            if len(made) == o.classes and all(len(d) == o.each for d in made.values()):
                return


def read_pictures(folder):
    """All of them, normalised, and the numbers of their classes in alphabetical order."""
    from PIL import Image
    values, classes = [], []
    names = sorted(n for n in os.listdir(folder) if os.path.isdir(os.path.join(folder, n)))
    for number, name in enumerate(names):
        for file in sorted(os.listdir(os.path.join(folder, name))):
            image = Image.open(os.path.join(folder, name, file)).convert("RGB")
            values.append((np.asarray(image, "f4") - MEAN) / DEVIATION)
            classes.append(number)
    values = torch.tensor(np.stack(values), dtype=torch.float32)
    return values.permute(0, 3, 1, 2).contiguous(), torch.tensor(classes)


def official_vision(o, tensors, side):
    """The official VRWKV of the file's shape, with a head that takes the mean of all tokens."""
    common.stand_ins(os.path.join(o.repo, "classification"))
    file = importlib.import_module("mmcls_custom.models.backbones.vrwkv")
    file.RUN_CUDA = bi_wkv
    width, _, patch, _ = tensors["backbone.patch_embed.projection.weight"].shape
    layers = 1 + max(int(n.split(".")[2]) for n in tensors if n.startswith("backbone.layers."))
    gamma = tensors.get("backbone.layers.0.gamma1")
    traits = {"post_norm": o.post_norm,
              "key_norm": "backbone.layers.0.att.key_norm.weight" in tensors,
              "init_values": None if gamma is None else 1.0}

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = file.VRWKV(img_size=side, patch_size=patch, embed_dims=width,
                                       depth=layers, **traits)
            self.head = nn.Module()
            self.head.fc = nn.Linear(width, tensors["head.fc.weight"].shape[0])

        def forward(self, x):
            return self.head.fc(self.backbone(x)[-1].mean((2, 3)))

    return Classifier()


def vision_groups(model, decay):
    """mmcv's groups with norm_decay_mult and bias_decay_mult 0."""
    norms = {id(p) for m in model.modules() if isinstance(m, (nn.LayerNorm, nn.GroupNorm))
             for p in m.parameters()}
    kept, rest = [], []
    for name, p in model.named_parameters():
        (rest if id(p) in norms or name.endswith("bias") else kept).append(p)
    return [{"params": kept, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


def vision_rate(o, step):
    """mmcv's CosineAnnealing with min_lr_ratio, multiplied by a linear warm-up from 0.001."""
    last = o.lr_final
    rate = last + (o.lr - last) * 0.5 * (1 + math.cos(math.pi * step / o.steps))
    if step < o.warmup:
        rate *= 1 - (1 - step / o.warmup) * (1 - 1e-3)
    return rate


def train_pictures(o):
    tensors = read_f32(o.start)
    values, classes = read_pictures(o.folder)
    model = official_vision(o, tensors, values.shape[-1])
    put_in(model, tensors)
    if o.double:
        model.double()
        values = values.double()
    optimizer = torch.optim.AdamW(vision_groups(model, o.weight_decay), lr=o.lr,
                                  betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for step in range(o.steps):
        for group in optimizer.param_groups:
            group["lr"] = vision_rate(o, step)
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(values), classes, label_smoothing=o.smoothing)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), o.clip)
        optimizer.step()
        losses.append(loss.item())
    return losses


# ---- The command ---------------------------------------------------------------------------------

def compare(o, official, ours):
    if len(ours) < o.steps:
        sys.exit(f"ten_steps.py: {o.log} has {len(ours)} steps, expected {o.steps}")
    worst = max(abs(a - b) for a, b in zip(official, ours))
    if o.json:
        print(json.dumps({"official": official, "corvid": ours[:o.steps], "largest": worst}))
        return 0 if worst <= o.tolerance else 1
    print(f"{'step':>4} {'official':>12} {'corvid':>12} {'difference':>11}")
    for step, (a, b) in enumerate(zip(official, ours), 1):
        print(f"{step:4} {a:12.7f} {b:12.7f} {b - a:11.1e}")
    verdict = "within" if worst <= o.tolerance else "ABOVE"
    print(f"largest difference {worst:.1e}, {verdict} {o.tolerance:g}")
    return 0 if worst <= o.tolerance else 1


def add_common(p, lr, last, decay, clip):
    p.add_argument("--repo", required=True, help="checkout of the official code")
    p.add_argument("--start", required=True, help="Corvid's model before its first step")
    p.add_argument("--log", required=True, help="log.jsonl of Corvid's run")
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--lr", type=float, default=lr)
    p.add_argument("--lr-final", type=float, default=last)
    p.add_argument("--warmup", type=int, default=0)
    p.add_argument("--weight-decay", type=float, default=decay)
    p.add_argument("--clip", type=float, default=clip)
    p.add_argument("--tolerance", type=float, default=1e-4)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--double", action="store_true", help="the official model in double precision")
    p.add_argument("--json", action="store_true")


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = p.add_subparsers(dest="verb", required=True)
    v = verbs.add_parser("lm")
    add_common(v, 1e-3, 1e-5, 0.001, 1.0)
    v.add_argument("--arch", choices=("rwkv4", "rwkv5.2", "rwkv6", "rwkv7"), required=True)
    v.add_argument("--text", required=True)
    v.add_argument("--batch", type=int, default=8)
    v.add_argument("--context", type=int, default=256)
    v.add_argument("--seed", type=int, default=1)
    v.add_argument("--validation", type=float, default=0.1)
    v = verbs.add_parser("pictures")
    add_common(v, 1e-3, 1e-5, 0.05, 5.0)
    v.add_argument("--folder", required=True, help="pictures in folders of their classes")
    v.add_argument("--smoothing", type=float, default=0.1)
    v.add_argument("--post-norm", action="store_true")
    v = verbs.add_parser("make-pictures")
    v.add_argument("--archive", required=True)
    v.add_argument("--folder", required=True)
    v.add_argument("--classes", type=int, default=4)
    v.add_argument("--each", type=int, default=4)
    return p.parse_args()


def main():
    global torch, nn, F, np
    o = options()
    import numpy
    np = numpy
    if o.verb == "make-pictures":
        make_pictures(o)
        return 0
    common.start_torch(o.threads)
    torch, nn, F = common.torch, common.nn, common.F
    stand_ins()
    official = train_language(o) if o.verb == "lm" else train_pictures(o)
    return compare(o, official, read_log(o.log))


if __name__ == "__main__":
    sys.exit(main())
