/* resume_file.c - what a run of training goes on from; see resume_file.h.
 *
 * Little-endian: a header of fixed size; for every parameter in the learner's order the hash of its
 * name, how many numbers it has, and its values, first and second moments and running mean (if
 * kept); the XXH3-64 of everything before. */
#include <string.h>
#include <xxhash.h>

#include "base/output.h"
#include "train/resume_file.h"

static const char MAGIC[8] = { 'C', 'R', 'V', 'T', 'R', 'A', 'I', 'N' };
enum { VERSION = 1 };

typedef struct header {
    char magic[8];
    uint32_t version, header_bytes;
    uint64_t step, seed, settings, params;
    double best;
} header;

typedef struct entry {
    uint64_t name, n, averaged;
} entry;

static entry entry_of(const cv_param *p, const cv_adam_tensor *t)
{
    return (entry){ XXH3_64bits(p->view.name, strlen(p->view.name)) + p->view.first, t->n,
                    t->average != NULL };
}

static corvid_status write_tensor(cv_output *out, const cv_param *p, const cv_adam_tensor *t,
                                  corvid_error *err)
{
    const entry e = entry_of(p, t);
    CV_TRY(cv_output_write(out, &e, sizeof e, err));
    CV_TRY(cv_output_write(out, t->value, t->n * sizeof *t->value, err));
    CV_TRY(cv_output_write(out, t->m, t->n * sizeof *t->m, err));
    CV_TRY(cv_output_write(out, t->v, t->n * sizeof *t->v, err));
    return t->average ? cv_output_write(out, t->average, t->n * sizeof *t->average, err)
                      : CORVID_OK;
}

corvid_status cv_resume_save(const cv_learner *learner, const cv_adam_tensor *tensors,
                             const cv_resume *at, const char *path, corvid_error *err)
{
    header h = { .version = VERSION,
                 .header_bytes = sizeof h,
                 .step = at->step,
                 .seed = at->seed,
                 .settings = at->settings,
                 .params = learner->n_params,
                 .best = at->best };
    memcpy(h.magic, MAGIC, sizeof h.magic);
    cv_output *out = NULL;
    CV_TRY(cv_alloc_or_fail(learner->mem, 1, sizeof *out, "saving", (void **)&out, err));
    memset(out, 0, sizeof *out);
    corvid_status status = cv_output_create(out, path, err);
    if (status == CORVID_OK) status = cv_output_write(out, &h, sizeof h, err);
    for (size_t i = 0; i < learner->n_params && status == CORVID_OK; i++)
        status = write_tensor(out, &learner->params[i], &tensors[i], err);
    const uint64_t checksum = cv_output_checksum(out);
    if (status == CORVID_OK) status = cv_output_write(out, &checksum, sizeof checksum, err);
    if (status == CORVID_OK) status = cv_output_commit(out, err);
    cv_output_discard(out);
    cv_free(learner->mem, out);
    return status;
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* A file read from the front, and the hash of what was read. */
typedef struct reading {
    cv_input in;
    uint64_t at;
    XXH3_state_t *hash;
} reading;

static corvid_status take(reading *r, void *to, size_t n, corvid_error *err)
{
    CV_TRY(cv_input_read(&r->in, r->at, to, n, err));
    if (r->hash) XXH3_64bits_update(r->hash, to, n);
    r->at += n;
    return CORVID_OK;
}

static corvid_status check_header(const header *h, const cv_learner *l, const cv_resume *at,
                                  const char *path, corvid_error *err)
{
    if (memcmp(h->magic, MAGIC, sizeof h->magic) != 0 || h->version != VERSION ||
        h->header_bytes != sizeof *h)
        return cv_fail(err, CORVID_E_FORMAT, "%s: no file of training to go on from (version %d)",
                       path, VERSION);
    if (h->params != l->n_params)
        return cv_fail(err, CORVID_E_MISMATCH,
                       "%s: has %llu tensors, the model %zu; it is another model's", path,
                       (unsigned long long)h->params, l->n_params);
    if (h->seed != at->seed || h->settings != at->settings)
        return cv_fail(err, CORVID_E_MISMATCH,
                       "%s: was made with other settings or another seed; give those, or begin "
                       "anew in another folder",
                       path);
    return CORVID_OK;
}

static corvid_status read_tensor(reading *r, const cv_param *p, const cv_adam_tensor *t,
                                 const char *path, corvid_error *err)
{
    const entry mine = entry_of(p, t);
    entry e;
    CV_TRY(take(r, &e, sizeof e, err));
    if (memcmp(&e, &mine, sizeof e) != 0)
        return cv_fail(err, CORVID_E_MISMATCH,
                       "%s: at offset %llu is not tensor %s of %zu numbers; it is another model's",
                       path, (unsigned long long)(r->at - sizeof e), p->view.name, t->n);
    CV_TRY(take(r, t->value, t->n * sizeof *t->value, err));
    CV_TRY(take(r, t->m, t->n * sizeof *t->m, err));
    CV_TRY(take(r, t->v, t->n * sizeof *t->v, err));
    return t->average ? take(r, t->average, t->n * sizeof *t->average, err) : CORVID_OK;
}

static corvid_status read_all(reading *r, cv_learner *l, const cv_adam_tensor *tensors,
                              cv_resume *at, const char *path, corvid_error *err)
{
    header h;
    uint64_t checksum;
    CV_TRY(take(r, &h, sizeof h, err));
    CV_TRY(check_header(&h, l, at, path, err));
    for (size_t i = 0; i < l->n_params; i++)
        CV_TRY(read_tensor(r, &l->params[i], &tensors[i], path, err));
    const uint64_t found = XXH3_64bits_digest(r->hash);
    CV_TRY(take(r, &checksum, sizeof checksum, err));
    if (checksum != found || r->at != r->in.size)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: its checksum is wrong; the file is damaged, use the model beside it",
                       path);
    at->step = h.step;
    at->best = h.best;
    return CORVID_OK;
}

corvid_status cv_resume_load(cv_learner *learner, const cv_adam_tensor *tensors, cv_resume *at,
                             const char *path, corvid_error *err)
{
    reading r = { .at = 0 };
    CV_TRY(cv_input_open(&r.in, path, err));
    r.hash = XXH3_createState();
    corvid_status status = CORVID_OK;
    if (r.hash) {
        XXH3_64bits_reset(r.hash);
        status = read_all(&r, learner, tensors, at, path, err);
    } else {
        status = cv_fail(err, CORVID_E_MEMORY, "out of memory: %s", path);
    }
    XXH3_freeState(r.hash);
    cv_input_close(&r.in);
    if (status == CORVID_OK) cv_learner_publish(learner);
    return status;
}
