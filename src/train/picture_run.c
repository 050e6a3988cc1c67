/* picture_run.c - a run of training of a vision model; see picture_run.h.
 *
 * Batches are made in the background by picture_feed.h and cut into the parts of a step here.  The
 * numbers that pictures become are those that the engine gives a model of this kind, so the file
 * that comes out needs no other word on it than the names of its classes. */
#include <math.h>
#include <string.h>
#include <xxhash.h>

#include "base/output.h"
#include "train/picture_feed.h"
#include "train/picture_lesson.h"
#include "train/picture_run.h"

/* All that a run holds beside what the loop does. */
typedef struct session {
    const corvid_allocator *mem;
    const cv_picture_run *run;
    cv_picture_data data;
    cv_picture_feed *feed;     /* opened when the first step is known */
    const cv_picture_set *set; /* the pictures of step next_step - 1 */
    uint64_t next_step;
    cv_picture_set shown; /* validation pictures, [most] */
    size_t most;          /* pictures of the largest part of a step */
    cv_recipe recipe;     /* the run's, with steps and warm-up as numbers */
    cv_source shape;
    cv_learner learner;
    char classes[CV_RUN_PATH];
} session;

/* ---- Opening --------------------------------------------------------------------------------- */

/* The L models, told by their head, have rules of their own. */
static corvid_status open_data(session *s, corvid_error *err)
{
    const cv_picture_run *r = s->run;
    const bool large = s->shape.traits.mlp;
    const cv_picture_options options = { .paths = r->data,
                                         .n_paths = r->n_data,
                                         .side = r->shape.image,
                                         .validation = r->validation,
                                         .seed = r->recipe.seed,
                                         .normalise =
                                             large ? &cv_normalise_unit : &cv_normalise_255,
                                         .as_stored = large,
                                         .team = r->recipe.team,
                                         .progress = r->recipe.progress,
                                         .cancel = r->recipe.cancel,
                                         .ctx = r->recipe.ctx };
    CV_TRY(cv_picture_data_open(s->mem, &options, &s->data, err));
    if (s->data.list.n_classes < 2)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s: has pictures of %zu class, expected at least 2; make a folder for each "
                       "class",
                       r->data[0], s->data.list.n_classes);
    return CORVID_OK;
}

/* A line each, where conversion.h finds them.  A line end in a name would be two names. */
static corvid_status write_classes(session *s, corvid_error *err)
{
    const cv_picture_list *list = &s->data.list;
    cv_output *out = NULL;
    CV_TRY(cv_alloc_or_fail(s->mem, 1, sizeof *out, "saving", (void **)&out, err));
    memset(out, 0, sizeof *out);
    corvid_status status = cv_output_create(out, s->classes, err);
    for (size_t i = 0; i < list->n_classes && status == CORVID_OK; i++) {
        const char *name = list->classes[i];
        for (; *name && status == CORVID_OK; name++)
            status = cv_output_write(out, *name == '\n' || *name == '\t' ? " " : name, 1, err);
        if (status == CORVID_OK) status = cv_output_write(out, "\n", 1, err);
    }
    if (status == CORVID_OK) status = cv_output_commit(out, err);
    cv_output_discard(out);
    cv_free(s->mem, out);
    return status;
}

/* Steps and warm-up, which may depend on how many pictures there are. */
static corvid_status settle_recipe(session *s, corvid_error *err)
{
    cv_recipe *c = &s->recipe;
    const double epochs = s->run->epochs;
    if (epochs > 0.0) {
        const double steps = rint(epochs * (double)s->data.n_train / (double)s->run->batch);
        if (!(steps < 0x1p53))
            return cv_fail(err, CORVID_E_ARGUMENT, "%g epochs are too many", epochs);
        c->steps = steps < 1.0 ? 1 : (uint64_t)steps;
    }
    if (c->warmup == CV_WARMUP_OFFICIAL) c->warmup = c->steps / 15;
    return CORVID_OK;
}

static corvid_status open_learner(session *s, corvid_error *err)
{
    CV_TRY(cv_loop_learner(s->mem, &s->recipe, &s->shape, NULL, &s->learner, err));
    CV_TRY(cv_learner_picture_room(&s->learner, s->most, s->data.side, err));
    return cv_picture_set_new(s->mem, s->most, s->data.side, &s->shown, err);
}

/* The shape is asked for twice: what can be wrong with it is told before pictures are read, and then
 * their classes are known. */
static corvid_status open_session(session *s, corvid_error *err)
{
    cv_shape_wish wish = s->run->shape;
    s->most = cv_loop_most(&s->recipe, s->run->batch);
    CV_TRY(cv_shape_for(&wish, &s->shape, err));
    CV_TRY(cv_loop_folder(&s->recipe, err));
    cv_loop_path(&s->recipe, "classes.txt", s->classes);
    CV_TRY(open_data(s, err));
    CV_TRY(settle_recipe(s, err));
    wish.classes = s->data.list.n_classes;
    CV_TRY(cv_shape_for(&wish, &s->shape, err));
    return open_learner(s, err);
}

static void close_session(session *s)
{
    cv_picture_feed_close(s->feed);
    cv_learner_close(&s->learner);
    cv_picture_set_free(&s->shown);
    cv_picture_data_close(&s->data);
}

/* ---- Settings -------------------------------------------------------------------------------- */

static uint64_t hash_augment(const cv_augment *a, uint64_t hash)
{
    const double numbers[] = { (double)a->crop,
                               a->area[0],
                               a->area[1],
                               a->ratio[0],
                               a->ratio[1],
                               (double)a->tries,
                               (double)a->padding,
                               (double)a->reflect,
                               a->flip,
                               (double)a->ops,
                               a->op,
                               a->level,
                               a->level_spread,
                               (double)a->mask,
                               (double)a->fill[0],
                               (double)a->fill[1],
                               (double)a->fill[2],
                               a->erase,
                               a->erase_area[0],
                               a->erase_area[1],
                               a->erase_ratio[0],
                               a->erase_ratio[1],
                               (double)a->erase_noise,
                               a->mixup,
                               a->cutmix,
                               a->mixup_alpha,
                               a->cutmix_alpha };
    return XXH3_64bits_withSeed(numbers, sizeof numbers, hash);
}

/* Which pictures there are, by names below their folders, sizes and classes. */
static uint64_t hash_pictures(const cv_picture_data *data, uint64_t hash)
{
    for (size_t i = 0; i < data->list.n_classes; i++)
        hash = XXH3_64bits_withSeed(data->list.classes[i], strlen(data->list.classes[i]), hash);
    for (size_t i = 0; i < data->list.n; i++) {
        const cv_picture_sample *p = &data->list.of[i];
        const uint64_t facts[] = { p->n, (uint64_t)(int64_t)p->target, p->part };
        hash = XXH3_64bits_withSeed(p->path, strlen(p->path), hash);
        hash = XXH3_64bits_withSeed(facts, sizeof facts, hash);
    }
    return hash;
}

/* All that decides the numbers of a run, beside its seed. */
static uint64_t hash_settings(const session *s)
{
    const cv_picture_run *r = s->run;
    const cv_recipe *c = &s->recipe;
    const cv_sizes *z = &s->shape.sizes;
    const double numbers[] = { (double)z->L,
                               (double)z->C,
                               (double)z->F,
                               (double)z->N,
                               (double)z->G,
                               (double)z->p,
                               (double)z->K,
                               (double)s->shape.traits.post_norm,
                               (double)s->shape.traits.keyed,
                               (double)s->shape.traits.mlp,
                               (double)c->steps,
                               (double)r->batch,
                               c->learning_rate,
                               c->final_learning_rate,
                               (double)c->warmup,
                               c->beta1,
                               c->beta2,
                               c->eps,
                               c->weight_decay,
                               c->clip,
                               r->smoothing,
                               r->drop_path,
                               r->validation };
    const char *arch = s->shape.arch->name;
    uint64_t hash = XXH3_64bits(arch, strlen(arch));
    hash = XXH3_64bits_withSeed(numbers, sizeof numbers, hash);
    hash = hash_pictures(&s->data, hash_augment(&r->augment, hash));
    return cv_loop_settings(c, hash);
}

/* The official way into any of the curves. */
static cv_schedule schedule_of(const cv_recipe *c)
{
    cv_schedule schedule = cv_schedule_vrwkv(c->learning_rate, c->steps, c->warmup);
    schedule.last = c->final_learning_rate;
    schedule.curve = c->curve;
    return schedule;
}

/* ---- Steps ----------------------------------------------------------------------------------- */

/* Before the first step, when the loop has found nothing wrong with the folder. */
static corvid_status begin(session *s, uint64_t step, corvid_error *err)
{
    const cv_feed_options options = { .batch = s->run->batch,
                                      .step = step,
                                      .augment = &s->run->augment,
                                      .threads = (cv_team_size(s->recipe.team) + 3) / 4 };
    CV_TRY(write_classes(s, err));
    return cv_picture_feed_open(&s->data, &options, &s->feed, err);
}

/* The pictures of a step, all of its parts. */
static corvid_status take_set(session *s, uint64_t step, corvid_error *err)
{
    if (s->feed && s->next_step == step + 1) return CORVID_OK; /* they are there */
    if (!s->feed) CV_TRY(begin(s, step, err));
    s->next_step = step + 1;
    return cv_picture_feed_next(s->feed, &s->set, err);
}

static corvid_status learn_part(void *ctx, uint64_t step, size_t part, double *loss,
                                corvid_error *err)
{
    session *s = ctx;
    const cv_picture_run *r = s->run;
    const size_t side = s->data.side;
    size_t lo, hi;
    CV_TRY(take_set(s, step, err));
    cv_loop_part(&s->recipe, r->batch, part, &lo, &hi);
    const cv_picture_batch batch = { .values = s->set->values + lo * 3 * side * side,
                                     .n = hi - lo,
                                     .side = side,
                                     .targets = s->set->targets + lo,
                                     .others = s->set->mixed ? s->set->others + lo : NULL,
                                     .share = s->set->share + lo,
                                     .weight = 1.0 / (double)r->batch,
                                     .smoothing = r->smoothing,
                                     .drop_path = r->drop_path,
                                     .key = cv_augment_key(~s->recipe.seed, step, part) };
    CV_TRY(cv_learner_pictures(&s->learner, &batch, loss, err));
    *loss *= (double)(hi - lo) / (double)r->batch;
    return CORVID_OK;
}

/* ---- Scoring --------------------------------------------------------------------------------- */

/* Some of the `count` pictures that are looked at, taken evenly from all that were kept aside, read
 * by the members of the team. */
typedef struct looking {
    session *s;
    size_t first, count;
    corvid_status status[CV_TEAM_MAX];
    corvid_error errors[CV_TEAM_MAX];
} looking;

static void read_shown(const cv_member *me, void *arg)
{
    looking *w = arg;
    session *s = w->s;
    size_t lo, hi, n_bad;
    cv_share(me, s->shown.n, &lo, &hi);
    w->status[me->id] = CORVID_OK;
    for (size_t j = lo; j < hi && w->status[me->id] == CORVID_OK; j++) {
        const size_t number =
            (size_t)((double)(w->first + j) * (double)s->data.n_validation / (double)w->count);
        w->status[me->id] = cv_picture_validation_one(&s->data, number - j, j, &s->shown, &n_bad,
                                                      &w->errors[me->id]);
    }
}

static corvid_status take_shown(looking *w, corvid_error *err)
{
    session *s = w->s;
    const size_t left = w->count - w->first;
    s->shown.n = left < s->most ? left : s->most;
    cv_team_run(s->recipe.team, read_shown, w);
    for (size_t i = 0; i < cv_team_size(s->recipe.team); i++)
        if (w->status[i] != CORVID_OK) return cv_fail(err, w->status[i], "%s", w->errors[i].text);
    w->first += s->shown.n;
    cv_picture_validation_finish(&s->data, &s->shown);
    return CORVID_OK;
}

static corvid_status look_at_all(looking *w, cv_run_score *score, corvid_error *err)
{
    session *s = w->s;
    double sum = 0.0;
    size_t n = 0, right = 0;
    while (w->first < w->count) {
        CV_TRY(take_shown(w, err));
        const cv_picture_batch batch = { .values = s->shown.values,
                                         .n = s->shown.n,
                                         .side = s->data.side,
                                         .targets = s->shown.targets };
        double loss;
        size_t of_batch;
        if (batch.n == 0) continue;
        CV_TRY(cv_learner_look(&s->learner, &batch, &loss, &of_batch, err));
        sum += loss * (double)batch.n;
        right += of_batch;
        n += batch.n;
    }
    if (n) *score = (cv_run_score){ sum / (double)n, (double)right / (double)n };
    return CORVID_OK;
}

static corvid_status score_validation(void *ctx, cv_run_score *score, corvid_error *err)
{
    session *s = ctx;
    const uint64_t limit = s->run->evaluate_pictures;
    looking *w;
    CV_TRY(cv_alloc_or_fail(s->mem, 1, sizeof *w, "an evaluation", (void **)&w, err));
    w->s = s;
    w->first = 0;
    w->count = s->data.n_validation;
    if (limit && limit < w->count) w->count = (size_t)limit;
    const corvid_status status = look_at_all(w, score, err);
    cv_free(s->mem, w);
    return status;
}

corvid_status cv_train_pictures(const corvid_allocator *mem, const cv_picture_run *run,
                                corvid_error *err)
{
    session s = { .mem = mem, .run = run, .recipe = run->recipe };
    corvid_status status = open_session(&s, err);
    if (status == CORVID_OK) {
        const cv_task task = { .learner = &s.learner,
                               .schedule = schedule_of(&s.recipe),
                               .steps = s.recipe.steps,
                               .step_rows = run->batch,
                               .settings = hash_settings(&s),
                               .memory_bytes = cv_learner_bytes(&s.learner),
                               .classes = s.classes,
                               .ctx = &s,
                               .batch = learn_part,
                               .score = s.data.n_validation ? score_validation : NULL };
        status = cv_loop_run(mem, &s.recipe, &task, err);
    }
    close_session(&s);
    return status;
}
