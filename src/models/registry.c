/* registry.c - the list of architectures, and what a checkpoint is that is none of them. */
#include <string.h>

#include "models/model.h"

/* In the order of the test: later versions first, because earlier ones are told by what is absent. */
static const cv_arch *const archs[] = { &cv_vrwkv6,  &cv_vrwkv,    &cv_rwkv7,     &cv_rwkv6,
                                        &cv_rwkv5_2, &cv_rwkv5_1,  &cv_rwkv5_0,   &cv_rwkv4,
                                        &cv_gpt,     &cv_aft_full, &cv_aft_local, &cv_aft_simple,
                                        &cv_lstm };

const cv_arch *cv_registry_at(size_t i)
{
    return i < sizeof archs / sizeof *archs ? archs[i] : NULL;
}

bool cv_has_no_heads(const cv_arch *arch)
{
    static const cv_arch *const such[] = { &cv_rwkv4,    &cv_vrwkv,     &cv_lstm,
                                           &cv_aft_full, &cv_aft_local, &cv_aft_simple };
    for (size_t i = 0; i < sizeof such / sizeof *such; i++)
        if (arch == such[i]) return true;
    return false;
}

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n >= m && memcmp(name + n - m, suffix, m) == 0;
}

bool cv_has_suffix(const cv_checkpoint *ckpt, const char *suffix)
{
    for (size_t i = 0; i < ckpt->n_tensors; i++)
        if (ends_with(ckpt->tensors[i].name, suffix)) return true;
    return false;
}

static bool has_part(const cv_checkpoint *ckpt, const char *part)
{
    for (size_t i = 0; i < ckpt->n_tensors; i++)
        if (strstr(ckpt->tensors[i].name, part)) return true;
    return false;
}

/* Relatives of the supported models: the part of a tensor name that gives them away, and what to
 * say.  Variants first, then files that are no model. */
static const struct {
    const char *part, *is;
} relatives[] = {
    { "ffn.s_emb",
      "an experimental RWKV-7a (DeepEmbed) model; this version runs RWKV-4, 5, 6 and 7" },
    { ".qkv.", "an experimental RWKV-7b (DEA) model; this version runs RWKV-4, 5, 6 and 7" },
    { "ffn.enn.weight", "an RWKV-8 release candidate; this version runs RWKV-4, 5, 6 and 7" },
    { "rosa", "an RWKV-8 ROSA experiment; this version runs RWKV-4, 5, 6 and 7" },
    { "time_maa_rkvw_w1",
      "an experimental RWKV-6c model; this version runs x060, the released RWKV-6" },
    { "att.gate_w1", "an experimental RWKV-6a model; this version runs x060, the released RWKV-6" },
    { "tiny_q", "an RWKV-4a model (tiny attention), which is not supported" },
    { "att.qq.", "an RWKV-4b model (extra attention), which is not supported" },
    { "head_q", "an RWKV-4 model with a copy head (headQK), which is not supported" },
    { "ffnPre", "an RWKV-4 model with pre_ffn, which is not supported" },
    { "pos_emb_x", "an RWKV-4 model with a position embedding, which is not supported" },
    { "ffn.aa.", "an RWKV-4 model with MishGLU, which is not supported" },
    { "lora_A", "a LoRA adapter, not a model; give the checkpoint that it was trained on" },
    { ".disha", "a DiSHA adapter, not a model; give the checkpoint that it was trained on" },
};

static corvid_status refuse(const cv_checkpoint *ckpt, corvid_error *err)
{
    for (size_t i = 0; i < sizeof relatives / sizeof *relatives; i++)
        if (has_part(ckpt, relatives[i].part))
            return cv_fail(err, CORVID_E_FORMAT, "%s: this is %s", ckpt->in.path, relatives[i].is);
    if (cv_has_suffix(ckpt, "att.time_state"))
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: this is a tuned state, not a model; load it on top of the model it "
                       "was tuned for (--state)",
                       ckpt->in.path);
    const cv_meta *arch = cv_checkpoint_meta(ckpt, "general.architecture");
    if (arch && arch->type == CV_META_TEXT)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: architecture %.40s is not supported; expected rwkv6 or rwkv7",
                       ckpt->in.path, arch->text.bytes);
    return cv_fail(
        err, CORVID_E_FORMAT,
        "%s: no RWKV or Vision-RWKV model: among its %zu tensors%s%.80s%s there is neither "
        "att.r_k (v7), att.time_maa_w1 (v6), att.ln_x (v5), att.time_decay (v4) nor "
        "att.spatial_decay (vision)",
        ckpt->in.path, ckpt->n_tensors, ckpt->n_tensors ? " (the first is " : "",
        ckpt->n_tensors ? ckpt->tensors[0].name : "", ckpt->n_tensors ? ")" : "");
}

corvid_status cv_registry_detect(const cv_checkpoint *ckpt, const cv_arch **out, corvid_error *err)
{
    for (size_t i = 0; i < sizeof relatives / sizeof *relatives; i++)
        if (has_part(ckpt, relatives[i].part)) return refuse(ckpt, err);
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (archs[i]->detect(ckpt)) {
            *out = archs[i];
            return CORVID_OK;
        }
    return refuse(ckpt, err);
}
