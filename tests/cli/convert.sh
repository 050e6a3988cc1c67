# convert.sh - `corvid convert` keeps every bit, and `corvid inspect info` sees what was written.
. "$(dirname "$0")/check.inc"
need rwkv-tiny/tiny-rwkv-7v0-834K-FP32.bin
model=$data/rwkv-tiny/tiny-rwkv-7v0-834K-FP32.bin

exits 0 logits -m "$model" --tokens "34 105 110" --json && cp "$scratch/out" "$scratch/before"
for extension in safetensors gguf; do
    exits 0 convert "$model" "$scratch/m.$extension" || continue
    [ -s "$scratch/err" ] && bad "convert is not quiet: $(cat "$scratch/err")"
    exits 0 logits -m "$scratch/m.$extension" --tokens "34 105 110" --json
    cmp -s "$scratch/out" "$scratch/before" || bad "$extension: the logits changed"
    exits 0 inspect info "$scratch/m.$extension" --json
    prints "\"format\": \"$extension\""
    prints '"arch": "rwkv7"'
    same "layers" "$(number n_layers)" 12
    same "width" "$(number n_embd)" 64
    same "vocabulary" "$(number n_vocab)" 256
done
exits 0 convert "$scratch/m.gguf" "$scratch/again" --format safetensors
cmp -s "$scratch/again" "$scratch/m.safetensors" || bad "GGUF to safetensors is another file"

exits 0 inspect info "$model" -v
prints "rwkv7"
prints "[256, 64]"
exits 0 inspect info -m "$model"
grep -qF "[256, 64]" "$scratch/out" && bad "tensors are listed without -v"

exits 2 convert "$model" "$scratch/x.gguf" --type nonsense
exits 2 convert "$model" "$scratch/x.what" --type f32
[ -e "$scratch/x.gguf" ] && bad "a failed conversion left its target"
finish
