#!/usr/bin/python3
"""What the speed of images is measured against, in PyTorch on the processor.

    vision_peers.py vrwkv --repo PATH [--size 224] [--batch 8] [--threads 2] [--rounds 3]
    vision_peers.py vit [--size 224] [--batch 1] ...
    vision_peers.py vrwkv --repo PATH --check GOLDEN_FOLDER

vrwkv  the official module from a checkout of OpenGVLab/Vision-RWKV. What its file imports and is
       not at hand (a registry, a base class, the patch embedding) is written again below; its CUDA
       operator is replaced by the fastest exact form found in plain PyTorch, see bi_wkv().
vit    a plain ViT-T of the same width and depth: what VRWKV is compared with in its paper.

Weights are random: speed does not depend on them. --check loads known ones instead and compares
the scores with the published reference, to know that it is the official model that is timed.

Each call is one process, so the peak of memory is that of one size. It does not train, and reads
no images. bench/vision.sh and bench/resolution.sh run it.
"""
import argparse
import importlib
import json
import os
import resource
import statistics
import struct
import sys
import time
import types

# Filled by start_torch(), after the environment that torch reads at its import is set.
torch = nn = F = None

WIDTH, DEPTH, HEADS, PATCH, CLASSES = 192, 12, 3, 16, 1000

# On one core: an optimised library does 30 to 90, the unblocked reference 2 or 3.
SLOW_GMAC_PER_S = 8.0


def start_torch(threads):
    """Import PyTorch for that many threads, with the widest vectors that it was built for."""
    global torch, nn, F
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with open("/proc/cpuinfo") as f:
        flags = f.read()
    if all(name in flags for name in ("avx512f", "avx512vl", "avx512bw", "avx512dq")):
        os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx512")
    import torch as module
    torch, nn, F = module, module.nn, module.nn.functional
    torch.set_num_threads(threads)
    torch.manual_seed(1)


# ---- Bi-WKV --------------------------------------------------------------------------------------

def bi_wkv(w, u, k, v):
    """Exact Bi-WKV of [B, T, C], w and u already over T, as a scan in two levels.

    The tokens are cut into n runs of L, about sqrt(T) each. All runs are scanned at once, a second
    scan carries their ends from run to run, and each token takes its run's carry times a power of
    the decay: 2 (L + n) small steps instead of 2 T. Timed for T = 196, C = 192, two threads,
    milliseconds per image and layer for one image / in a batch of eight: this 0.24 / 0.13, a scan
    token by token 0.74 / 0.18, running sums of p e^(wt) 0.82 / 0.68, a Toeplitz matrix per channel
    7.7 / 1.3, the same in blocks 0.79 / 0.33.
    """
    B, T, C = k.size(0), k.size(1), k.size(2)
    L = int(T ** 0.5)
    while T % L != 0:
        L -= 1
    n = T // L
    p = torch.exp(k - k.amax(1, keepdim=True))
    x = torch.stack((p, p * v)).view(2, B, n, L, C)  # denominators, then numerators
    lag = torch.arange(L, dtype=k.dtype)
    decay, over_run = torch.exp(-w), torch.exp(-w * L)
    fall = torch.exp(-w * lag[:, None])
    rise = fall.flip(0)

    y = x * torch.exp(u)
    inner = torch.zeros_like(x)
    carry = torch.zeros((n, 2, B, C), dtype=k.dtype)
    xs, inners, carries = x.unbind(3), inner.unbind(3), carry.unbind(0)
    for i in range(L - 1):  # the past
        torch.addcmul(xs[i], inners[i], decay, out=inners[i + 1])
    ends = torch.addcmul(xs[L - 1], inners[L - 1], decay).unbind(2)
    for i in range(n - 1):
        torch.addcmul(ends[i], carries[i], over_run, out=carries[i + 1])
    y.add_(inner).addcmul_(carry.permute(1, 2, 0, 3)[:, :, :, None], fall)

    inners[L - 1].zero_()
    carries[n - 1].zero_()
    for i in range(L - 1, 0, -1):  # the future
        torch.addcmul(xs[i], inners[i], decay, out=inners[i - 1])
    ends = torch.addcmul(xs[0], inners[0], decay).unbind(2)
    for i in range(n - 1, 0, -1):
        torch.addcmul(ends[i], carries[i], over_run, out=carries[i - 1])
    y.add_(inner).addcmul_(carry.permute(1, 2, 0, 3)[:, :, :, None], rise)
    return (y[1] / y[0]).view(B, T, C)


# ---- The official module -------------------------------------------------------------------------

def stand_ins(classification):
    """Modules under the names that the official file imports, as little as it needs of them."""
    class Base(nn.Module):
        def __init__(self, init_cfg=None):
            super().__init__()

    class Registry:
        @staticmethod
        def register_module():
            return lambda cls: cls

    class PatchEmbed(nn.Module):
        def __init__(self, in_channels, input_size, embed_dims, kernel_size, stride, bias,
                     conv_type="Conv2d"):
            super().__init__()
            self.patch = kernel_size
            self.projection = nn.Conv2d(in_channels, embed_dims, kernel_size, stride, bias=bias)
            self.init_out_size = (input_size // stride, input_size // stride)

        def forward(self, x):
            x = F.pad(x, (0, -x.shape[3] % self.patch, 0, -x.shape[2] % self.patch))
            x = self.projection(x)
            return x.flatten(2).transpose(1, 2), tuple(x.shape[2:])

    def resize_pos_embed(table, old, new, mode="bicubic", num_extra_tokens=0):
        if tuple(old) == tuple(new):
            return table
        grid = table.reshape(1, *old, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=new, mode=mode, align_corners=False)
        return grid.flatten(2).transpose(1, 2)

    contents = {
        "mmcv": {}, "mmcv.runner": {}, "mmcv.cnn": {}, "mmcv.cnn.bricks": {},
        "mmcv.runner.base_module": {"BaseModule": Base, "ModuleList": nn.ModuleList},
        "mmcv.cnn.bricks.transformer": {"PatchEmbed": PatchEmbed},
        # The official file builds its CUDA operator as it is imported.
        "torch.utils.cpp_extension": {"load": lambda **ignored: None},
        "mmcls": {}, "mmcls.models": {}, "mmcls.models.backbones": {},
        "mmcls.models.builder": {"BACKBONES": Registry},
        "mmcls.models.utils": {"resize_pos_embed": resize_pos_embed},
        "mmcls.models.backbones.base_backbone": {"BaseBackbone": Base},
        # The real folders, without their __init__.py, which would load VRWKV6 too.
        "mmcls_custom": {"__path__": [classification + "/mmcls_custom"]},
        "mmcls_custom.models": {"__path__": [classification + "/mmcls_custom/models"]},
        "mmcls_custom.models.backbones": {
            "__path__": [classification + "/mmcls_custom/models/backbones"]},
    }
    for name, members in contents.items():
        module = types.ModuleType(name)
        module.__path__ = []
        for key, value in members.items():
            setattr(module, key, value)
        sys.modules[name] = module


def official_vrwkv(repo):
    """VRWKV-T with its head, from the official source file."""
    stand_ins(os.path.join(repo, "classification"))
    file = importlib.import_module("mmcls_custom.models.backbones.vrwkv")
    scripted = torch.jit.script(bi_wkv)

    def operator(w, u, k, v):  # in float32 for every type, as the CUDA one
        y = scripted(w.float(), u.float(), k.float(), v.float())
        return y.to(k.dtype)

    file.RUN_CUDA = operator

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = file.VRWKV(img_size=224, patch_size=PATCH, embed_dims=WIDTH,
                                       depth=DEPTH)
            self.head = nn.Module()
            self.head.fc = nn.Linear(WIDTH, CLASSES)

        def forward(self, x):
            return self.head.fc(self.backbone(x)[-1].mean((2, 3)))

    model = Classifier()
    nn.init.normal_(model.backbone.pos_embed, std=0.02)
    return model


# ---- A plain ViT-T -------------------------------------------------------------------------------

def plain_vit(size):
    """ViT-T for one size: no class token, the mean of all tokens classifies, as in VRWKV."""
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
            self.out = nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            B, T, C = x.shape
            qkv = self.qkv(x).reshape(B, T, 3, HEADS, C // HEADS).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
            a = (q * (C // HEADS) ** -0.5) @ k.transpose(-2, -1)
            a = a.softmax(-1)
            return self.out((a @ v).transpose(1, 2).reshape(B, T, C))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1 = nn.LayerNorm(WIDTH, eps=1e-6)
            self.attention = Attention()
            self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)
            self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(),
                                     nn.Linear(4 * WIDTH, WIDTH))

        def forward(self, x):
            x = x + self.attention(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class ViT(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
            self.position = nn.Parameter(torch.randn(1, (size // PATCH) ** 2, WIDTH) * 0.02)
            self.blocks = nn.Sequential(*[Block() for _ in range(DEPTH)])
            self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
            self.head = nn.Linear(WIDTH, CLASSES)

        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2) + self.position
            return self.head(self.norm(self.blocks(x)).mean(1))

    return ViT()


def vit_needs_bytes(size, batch):
    """At least this much memory: scores before and after softmax, and the process itself."""
    tokens = (size // PATCH) ** 2
    return 2 * 4 * batch * HEADS * tokens ** 2 + 32 * batch * tokens * WIDTH + (400 << 20)


# ---- Measuring -----------------------------------------------------------------------------------

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def available_bytes():
    with open("/proc/meminfo") as f:
        for line in f:
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return 0


def blas(threads):
    """The file that multiplies matrices, and how fast on one core: billions of products a second.

    One core, and the best of many, so that a busy machine is not taken for a slow library."""
    torch.set_num_threads(1)
    a = torch.randn(256, 256)
    b = torch.randn(256, 256)
    least = min(timed(lambda: a @ b)[0] for _ in range(30))
    torch.set_num_threads(threads)
    with open("/proc/self/maps") as f:
        files = {line.split()[-1] for line in f if "blas" in line.lower()}
    files = sorted(file for file in files if "/libblas" in file or "/libopenblas" in file)
    return (files or ["built in"])[-1], 256 ** 3 / least / 1e9


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def one_round(work, seconds):
    """Seconds per call, over as many calls as fill that time; at least one."""
    calls, total = 0, 0.0
    while calls == 0 or total < seconds:
        total += timed(work)[0]
        calls += 1
    return total / calls


def measure(model, o):
    """Seconds per batch, one figure for each round."""
    model = model.eval()
    image = torch.randn(o.batch, 3, o.size, o.size)
    if o.type == "bf16":
        model, image = model.bfloat16(), image.bfloat16()
    elif o.type == "int8":
        torch.backends.quantized.engine = o.engine
        model = torch.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    with torch.inference_mode():
        one_round(lambda: model(image), 0.3)
        return [one_round(lambda: model(image), o.seconds) for _ in range(o.rounds)]


# ---- The published reference ---------------------------------------------------------------------

def read_safetensors(path):
    """Name -> float32 tensor."""
    import numpy
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    kinds = {"F32": "<f4", "F16": "<f2"}
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        array = numpy.frombuffer(data[begin:end], kinds[entry["dtype"]])
        tensors[name] = torch.from_numpy(array.astype("f4").reshape(entry["shape"]))
    return tensors


def check(model, folder):
    """Largest error of the scores at 224, over the largest score."""
    weights = read_safetensors(os.path.join(folder, "vrwkv_t_f16.weights.safetensors"))
    golden = read_safetensors(os.path.join(folder, "vrwkv_t_f16.io.safetensors"))
    model.load_state_dict(weights, strict=True)
    with torch.inference_mode():
        scores = model.eval()(golden["224.image"])[0]
    return float((scores - golden["224.logits"]).abs().max() / golden["224.logits"].abs().max())


# ---- The command ---------------------------------------------------------------------------------

def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model", choices=("vrwkv", "vit"))
    p.add_argument("--repo", help="checkout of OpenGVLab/Vision-RWKV (vrwkv)")
    p.add_argument("--check", metavar="FOLDER", help="compare with the golden data; no timing")
    p.add_argument("--size", type=int, default=224, help="side of the image, a multiple of 16")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=0.5, help="least time of a round")
    p.add_argument("--type", choices=("f32", "bf16", "int8"), default="f32",
                   help="int8: PyTorch's dynamic quantization of the linear layers")
    p.add_argument("--engine", default="onednn", help="of int8: onednn, qnnpack")
    p.add_argument("--memory", type=int, default=0, help="bytes that may be used; 0: what is free")
    p.add_argument("--any-blas", action="store_true",
                   help="measure with a slow library for matrices as well")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    o = p.parse_args()
    if o.model == "vrwkv" and not o.repo:
        p.error("vrwkv needs --repo, a checkout of OpenGVLab/Vision-RWKV")
    if o.size < PATCH or o.size % PATCH or min(o.batch, o.threads, o.rounds) < 1:
        p.error("--size is a multiple of 16; --batch, --threads and --rounds are at least 1")
    return o


def say(result, as_json):
    if as_json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:13} {value:.6g}" if isinstance(value, float) else f"{key:13} {value}")


def main():
    o = options()
    result = {"model": o.model + "-t", "type": o.type, "size": o.size,
              "tokens": (o.size // PATCH) ** 2, "batch": o.batch, "threads": o.threads}
    may_use = o.memory or available_bytes()
    if o.model == "vit" and not o.check and vit_needs_bytes(o.size, o.batch) > may_use:
        needs = vit_needs_bytes(o.size, o.batch)
        result["skipped"] = f"needs {needs / 1e9:.1f} GB of memory, {may_use / 1e9:.1f} are free"
        say(result, o.json)
        return 0
    start_torch(o.threads)
    library, gmac_per_s = blas(o.threads)
    if gmac_per_s < SLOW_GMAC_PER_S and not o.any_blas:
        sys.exit(f"vision_peers.py: torch multiplies matrices with {library}, at "
                 f"{gmac_per_s:.1f} GMAC/s a core: a peer that slow proves nothing. Install "
                 "libopenblas0-openmp, or put its folder into LD_LIBRARY_PATH, or say --any-blas.")
    start_bytes = peak_bytes()
    model = plain_vit(o.size) if o.model == "vit" else official_vrwkv(o.repo)
    if o.check:
        result = {"model": "vrwkv-t", "max_relative_error": check(model, o.check)}
        say(result, o.json)
        return 0 if result["max_relative_error"] < 2e-5 else 1
    seconds = measure(model, o)
    middle = statistics.median(seconds)
    result.update(images_per_s=o.batch / middle, ms=1e3 * middle,
                  ms_per_image=1e3 * middle / o.batch, ms_least=1e3 * min(seconds),
                  ms_most=1e3 * max(seconds), peak_bytes=peak_bytes(), start_bytes=start_bytes,
                  torch=torch.__version__, blas=os.path.basename(library), blas_gmac_per_s_core=gmac_per_s)
    say(result, o.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
