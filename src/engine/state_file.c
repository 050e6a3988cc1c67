/* state_file.c - a stream's state as a file.
 *
 * Little-endian: a header of fixed size, the state's floats in the order of the reference files
 * [state.order], and the XXH3-64 of everything before.  The header names the architecture, its
 * sizes and the fingerprint of the weights: a state means nothing to another model.  Tuned states,
 * which are checkpoints, are read too (adapter_file.h). */
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/output.h"
#include "engine/adapter_file.h"
#include "engine/engine.h"

static const char MAGIC[8] = { 'C', 'R', 'V', 'S', 'T', 'A', 'T', 'E' };
enum { VERSION = 1 };

typedef struct header {
    char magic[8];
    uint32_t version, header_bytes;
    char arch[16];
    uint64_t fingerprint;
    uint64_t position;
    uint64_t L, C, H, N;
    uint64_t floats;
} header;

static header header_of(const cv_stream *stream)
{
    const cv_model *m = &stream->engine->model;
    header h = { .version = VERSION,
                 .header_bytes = sizeof h,
                 .fingerprint = m->fingerprint,
                 .position = stream->position,
                 .L = m->sizes.L,
                 .C = m->sizes.C,
                 .H = m->sizes.H,
                 .N = m->sizes.N,
                 .floats = cv_state_size(m) };
    memcpy(h.magic, MAGIC, sizeof h.magic);
    strncpy(h.arch, m->arch->name, sizeof h.arch - 1);
    return h;
}

corvid_status cv_state_save(const cv_stream *stream, const char *path, corvid_error *err)
{
    const header h = header_of(stream);
    const corvid_allocator *mem = stream->engine->mem;
    cv_output *out = NULL;
    float *values = NULL;
    corvid_status status = cv_alloc_or_fail(mem, 1, sizeof *out, "saving", (void **)&out, err);
    if (status != CORVID_OK) return status;
    memset(out, 0, sizeof *out);
    status =
        cv_alloc_or_fail(mem, h.floats, sizeof *values, "saving a state", (void **)&values, err);
    if (status != CORVID_OK) goto done;
    cv_state_export(stream, values);

    status = cv_output_create(out, path, err);
    if (status != CORVID_OK) goto done;
    status = cv_output_write(out, &h, sizeof h, err);
    if (status == CORVID_OK) status = cv_output_write(out, values, h.floats * sizeof *values, err);
    const uint64_t checksum = cv_output_checksum(out);
    if (status == CORVID_OK) status = cv_output_write(out, &checksum, sizeof checksum, err);
    if (status == CORVID_OK) status = cv_output_commit(out, err);

done:
    cv_output_discard(out);
    cv_free(mem, values);
    cv_free(mem, out);
    return status;
}

static corvid_status check_header(const cv_stream *stream, const header *h, const char *path,
                                  corvid_error *err)
{
    const header mine = header_of(stream);
    if (h->version != VERSION || h->header_bytes != sizeof *h)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: state file version %u, this program reads version %d", path, h->version,
                       VERSION);
    if (memcmp(h->arch, mine.arch, sizeof h->arch) != 0 || h->L != mine.L || h->C != mine.C ||
        h->H != mine.H || h->N != mine.N || h->floats != mine.floats)
        return cv_fail(err, CORVID_E_MISMATCH,
                       "%s: a state of %.15s with %llu layers, width %llu and %llu heads (%llu "
                       "numbers); this model is %s with %llu, %llu and %llu (%llu)",
                       path, h->arch, (unsigned long long)h->L, (unsigned long long)h->C,
                       (unsigned long long)h->H, (unsigned long long)h->floats, mine.arch,
                       (unsigned long long)mine.L, (unsigned long long)mine.C,
                       (unsigned long long)mine.H, (unsigned long long)mine.floats);
    if (h->fingerprint != mine.fingerprint)
        return cv_fail(
            err, CORVID_E_MISMATCH,
            "%s: a state of other weights (fingerprint %016llx, this model has %016llx); "
            "use the model and the type it was saved with",
            path, (unsigned long long)h->fingerprint, (unsigned long long)mine.fingerprint);
    return CORVID_OK;
}

/* The whole file is in `bytes`. */
static corvid_status parse(cv_stream *stream, const char *bytes, size_t n, const char *path,
                           corvid_error *err)
{
    header h;
    uint64_t checksum;
    if (n < sizeof h + sizeof checksum)
        return cv_fail(err, CORVID_E_FORMAT, "%s: %zu bytes are too few for a state file", path, n);
    memcpy(&h, bytes, sizeof h);
    if (memcmp(h.magic, MAGIC, sizeof MAGIC) != 0)
        return cv_fail(err, CORVID_E_FORMAT, "%s: not a state file (no CRVSTATE at offset 0)",
                       path);
    CV_TRY(check_header(stream, &h, path, err));
    const size_t expected = sizeof h + h.floats * sizeof(float) + sizeof checksum;
    if (n != expected)
        return cv_fail(err, CORVID_E_FORMAT, "%s: has %zu bytes, expected %zu; was it cut short?",
                       path, n, expected);
    memcpy(&checksum, bytes + n - sizeof checksum, sizeof checksum);
    if (checksum != XXH3_64bits(bytes, n - sizeof checksum))
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: damaged: the checksum at offset %zu does not fit what is before it",
                       path, n - sizeof checksum);
    cv_state_import(stream, (const float *)(const void *)(bytes + sizeof h));
    stream->position = h.position;
    return CORVID_OK;
}

/* The memory of every layer as a tuned state has it; the shift vectors start at 0. */
static corvid_status load_tuned(cv_stream *stream, const char *path, corvid_error *err)
{
    const cv_model *m = &stream->engine->model;
    const corvid_allocator *mem = stream->engine->mem;
    const size_t L = m->sizes.L, shifts = 2 * m->sizes.C;
    const size_t memory = m->sizes.H * m->sizes.N * m->sizes.N, size = shifts + memory;
    float *values = NULL, *tuned = NULL;
    cv_checkpoint ckpt;
    CV_TRY(cv_checkpoint_open(mem, path, &ckpt, err));
    corvid_status status =
        cv_alloc_or_fail(mem, L * memory, sizeof *tuned, "a tuned state", (void **)&tuned, err);
    if (status == CORVID_OK)
        status = cv_alloc_or_fail(mem, L * size, sizeof *values, "a state", (void **)&values, err);
    if (status == CORVID_OK)
        status = cv_tuned_state_read(mem, &ckpt, m->arch, &m->sizes, tuned, err);
    if (status == CORVID_OK) {
        memset(values, 0, L * size * sizeof *values);
        for (size_t l = 0; l < L; l++)
            memcpy(values + l * size + shifts, tuned + l * memory, memory * sizeof *values);
        cv_state_import(stream, values);
        stream->position = 0;
    }
    cv_free(mem, values);
    cv_free(mem, tuned);
    cv_checkpoint_close(&ckpt);
    return status;
}

/* Does a file begin like a checkpoint that may hold a tuned state: .pth in both forms, or safetensors,
 * whose header follows its length of eight bytes? */
static bool is_checkpoint(const char *magic)
{
    return memcmp(magic, "PK\3\4", 4) == 0 || memcmp(magic, "\x80\x02\x8a\x0a", 4) == 0 ||
           magic[sizeof MAGIC] == '{';
}

corvid_status cv_state_load(cv_stream *stream, const char *path, corvid_error *err)
{
    const corvid_allocator *mem = stream->engine->mem;
    cv_input in;
    char *bytes = NULL, magic[sizeof MAGIC + 1] = { 0 };
    size_t n = 0;
    CV_TRY(cv_input_open(&in, path, err));
    corvid_status status = CORVID_OK;
    if (in.size >= sizeof magic) status = cv_input_read(&in, 0, magic, sizeof magic, err);
    const bool ours = memcmp(magic, MAGIC, sizeof MAGIC) == 0;
    const bool tuned = !ours && is_checkpoint(magic);
    const size_t limit = cv_state_size(&stream->engine->model) * sizeof(float) + 4096;
    if (status == CORVID_OK && !tuned)
        status =
            ours && in.size > limit
                ? cv_fail(err, CORVID_E_MISMATCH, "%s: %llu bytes, more than a state of this model",
                          in.path, (unsigned long long)in.size)
                : cv_input_read_all(&in, mem, ours ? limit : 1 << 20, &bytes, &n, err);
    if (status == CORVID_OK)
        status = tuned ? load_tuned(stream, path, err) : parse(stream, bytes, n, in.path, err);
    cv_free(mem, bytes);
    cv_input_close(&in);
    return status;
}
