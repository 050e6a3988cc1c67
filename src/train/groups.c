/* groups.c - parameter groups by name and shape; see groups.h. */
#include "train/groups.h"

#include <string.h>

static bool has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

static bool ends_with(const char *name, const char *suffix)
{
    const size_t n = strlen(name), m = strlen(suffix);
    return n >= m && memcmp(name + n - m, suffix, m) == 0;
}

/* A weight with two dimensions or more, ones not counted: [1, 1, C] is a vector. */
static bool is_matrix_weight(const char *name, const size_t *dims, int n_dims)
{
    int n = 0;
    for (int i = 0; i < n_dims; i++)
        n += dims[i] != 1;
    return n >= 2 && has(name, ".weight");
}

/* The order counts: time_decay_w1 is a low-rank matrix, not a decay. */
static cv_group group_rwkv(const char *name, const size_t *dims, int n_dims)
{
    if (has(name, "_w1") || has(name, "_w2")) return (cv_group){ 1.0, false };
    if (has(name, "time_mix") || has(name, "time_maa")) return (cv_group){ 1.0, false };
    if (has(name, "time_decay") || has(name, "att.w0")) return (cv_group){ 2.0, false };
    if (has(name, "time_faaaa")) return (cv_group){ 1.0, false };
    if (has(name, "time_first")) return (cv_group){ 3.0, false };
    if (has(name, "time_state")) return (cv_group){ 1.0, true };
    return (cv_group){ 1.0, is_matrix_weight(name, dims, n_dims) };
}

static cv_group group_rwkv7(const char *name, const size_t *dims, int n_dims)
{
    if (has(name, "att.w0")) return (cv_group){ 2.0, false };
    return (cv_group){ 1.0, is_matrix_weight(name, dims, n_dims) };
}

/* Layer norms, and the group norm ln_x of VRWKV6, which that trainer counts among norms. */
static bool is_norm(const char *name)
{
    static const char *const norms[] = { "ln0.", "ln1.", "ln2.", "ln_x.", "key_norm." };
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        if (has(name, norms[i])) return true;
    return false;
}

static cv_group group_vrwkv(const char *name)
{
    return (cv_group){ 1.0, !is_norm(name) && !ends_with(name, "bias") };
}

/* Ones count here: mixes are [1, 1, C] and decay. */
static cv_group group_vrwkv_l(const char *name, int n_dims)
{
    const bool kept = has(name, "spatial_decay") || has(name, "spatial_first");
    return (cv_group){ 1.0, kept || (n_dims > 1 && !ends_with(name, ".bias")) };
}

cv_grouping cv_grouping_of(const cv_source *source)
{
    if (source->arch->stack->vision)
        return source->traits.mlp ? CV_GROUPS_VRWKV_L : CV_GROUPS_VRWKV;
    return source->arch == &cv_rwkv7 ? CV_GROUPS_RWKV7 : CV_GROUPS_RWKV;
}

/* [train.groups] */
cv_group cv_group_by_name(cv_grouping grouping, const char *name, const size_t *dims, int n_dims)
{
    switch (grouping) {
    case CV_GROUPS_RWKV: return group_rwkv(name, dims, n_dims);
    case CV_GROUPS_RWKV7: return group_rwkv7(name, dims, n_dims);
    case CV_GROUPS_VRWKV: return group_vrwkv(name);
    case CV_GROUPS_VRWKV_L: return group_vrwkv_l(name, n_dims);
    }
    return (cv_group){ 1.0, false };
}

cv_group cv_group_of(cv_grouping grouping, const cv_source *source, const cv_view *view)
{
    char name[96];
    size_t dims[CV_MAX_DIMS];
    cv_field_name(source->arch, view->field, CV_OFFICIAL, view->layer, name, sizeof name);
    const int n_dims = cv_field_dims(source, view->field, CV_OFFICIAL, dims);
    return cv_group_by_name(grouping, name, dims, n_dims);
}
