/* showing.c - pictures from files or numbers, in batches, to a vision model. */
#include "showing.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "term.h"

/* ---- Reading ahead --------------------------------------------------------------------------- */

typedef struct loaded {
    corvid_picture *picture; /* NULL: err says why */
    corvid_error err;
} loaded;

/* A queue of pictures, filled by a thread of its own in the order of the list. */
typedef struct feed {
    const picture_list *list;
    const corvid_framing *framing;
    uint64_t max_pixels;
    pthread_t thread;
    bool threaded; /* false: there was no thread to be had, everything happens in feed_next */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop;
    size_t capacity, first, n; /* of the queue */
    loaded *queue;
} feed;

static void load(const feed *f, size_t i, loaded *out)
{
    if (pictures_load(f->list, i, f->framing, f->max_pixels, &out->picture, &out->err))
        out->picture = NULL;
}

static void *load_all(void *ctx)
{
    feed *f = ctx;
    bool stop = false;
    for (size_t i = 0; i < f->list->n && !stop; i++) {
        loaded item;
        load(f, i, &item);
        pthread_mutex_lock(&f->lock);
        while (f->n == f->capacity && !f->stop)
            pthread_cond_wait(&f->changed, &f->lock);
        stop = f->stop;
        if (!stop) f->queue[(f->first + f->n++) % f->capacity] = item;
        pthread_cond_broadcast(&f->changed);
        pthread_mutex_unlock(&f->lock);
        if (stop) corvid_picture_close(item.picture);
    }
    return NULL;
}

static void feed_open(feed *f, const picture_list *list, const picture_args *args,
                      const corvid_framing *framing)
{
    *f = (feed){ .list = list, .framing = framing, .max_pixels = args->max_pixels };
    f->capacity = (size_t)args->batch;
    if (list->n < 2) return; /* nothing to read ahead */
    f->queue = cli_array(f->capacity, sizeof *f->queue);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    f->threaded = pthread_create(&f->thread, NULL, load_all, f) == 0;
}

/* The i-th picture; i counts up from 0. */
static void feed_next(feed *f, size_t i, loaded *out)
{
    if (!f->threaded) {
        load(f, i, out);
        return;
    }
    pthread_mutex_lock(&f->lock);
    while (f->n == 0)
        pthread_cond_wait(&f->changed, &f->lock);
    *out = f->queue[f->first];
    f->first = (f->first + 1) % f->capacity;
    f->n--;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void feed_close(feed *f)
{
    if (f->threaded) {
        pthread_mutex_lock(&f->lock);
        f->stop = true;
        pthread_cond_broadcast(&f->changed);
        pthread_mutex_unlock(&f->lock);
        pthread_join(f->thread, NULL);
    }
    for (; f->n; f->n--, f->first = (f->first + 1) % f->capacity)
        corvid_picture_close(f->queue[f->first].picture);
    if (f->queue) {
        pthread_cond_destroy(&f->changed);
        pthread_mutex_destroy(&f->lock);
    }
    free(f->queue);
}

/* ---- Batches --------------------------------------------------------------------------------- */

/* Pictures waiting to be shown together. */
typedef struct batch {
    showing *s;
    const picture_list *list; /* NULL: they are rows of a tensor */
    const char *name;         /* of that */
    corvid_view *views;
    corvid_picture **pictures;
    size_t *indices;
    size_t n;
    progress bar;
} batch;

static void batch_open(batch *b, showing *s, size_t n_pictures)
{
    *b = (batch){ .s = s };
    b->views = cli_array(s->batch, sizeof *b->views);
    b->pictures = cli_array(s->batch, sizeof(corvid_picture *));
    b->indices = cli_array(s->batch, sizeof *b->indices);
    progress_begin(&b->bar, s->label);
    if (n_pictures < 2 || (s->prints && isatty(STDOUT_FILENO) == 1)) b->bar.on = false;
}

static void batch_empty(batch *b)
{
    for (size_t i = 0; i < b->n; i++)
        corvid_picture_close(b->pictures[i]);
    b->n = 0;
}

static void batch_close(batch *b)
{
    progress_end(&b->bar);
    batch_empty(b);
    free(b->views);
    free(b->pictures);
    free(b->indices);
}

/* Says why a picture gives nothing, with its name, on a line without the bar. */
static void leave_out(batch *b, size_t i, const corvid_error *err)
{
    const char *name = b->list ? b->list->items[i].path : b->name;
    if (b->bar.visible) fputs("\r\033[K", stderr);
    if (strcmp(name, "-") == 0) name = "standard input";
    if (strstr(err->text, name))
        fail(0, "%s", err->text);
    else
        fail(0, "%s: %s", name, err->text);
    if (!b->s->code) b->s->code = (int)err->status;
    b->s->n_failed++;
}

static void batch_add(batch *b, size_t i, corvid_picture *picture, const float *values,
                      size_t height, size_t width)
{
    corvid_view *view = &b->views[b->n];
    *view = (corvid_view){ .picture = picture, .values = values };
    if (picture) {
        corvid_picture_pixels(picture, &width, &height);
    } else {
        view->height = height;
        view->width = width;
    }
    b->s->want(b->s->ctx, b->n, height, width, view);
    b->pictures[b->n] = picture;
    b->indices[b->n++] = i;
}

/* Shows n of the waiting pictures.  Those that do not fit into memory together are shown in halves,
 * and the one that does not even fit alone is left out. */
static int batch_part(batch *b, size_t first, size_t n)
{
    showing *s = b->s;
    corvid_error err;
    corvid_status status = corvid_see(s->model, b->views + first, n, s->wanted, s->n_wanted, &err);
    if (status == CORVID_E_MEMORY && n > 1) {
        int code = batch_part(b, first, n / 2);
        return code ? code : batch_part(b, first + n / 2, n - n / 2);
    }
    if (status == CORVID_E_MEMORY) {
        leave_out(b, b->indices[first], &err);
        return 0;
    }
    if (status) return fail_with(&err);
    int code = 0;
    for (size_t i = first; i < first + n && !code; i++)
        code = s->take(s->ctx, i, b->indices[i]);
    return code;
}

static int batch_show(batch *b, size_t done, size_t of)
{
    if (term_signal()) return fail_with(&(corvid_error){ CORVID_E_CANCELLED, "" });
    int code = b->n ? batch_part(b, 0, b->n) : 0;
    batch_empty(b);
    progress_show(&b->bar, done, of);
    return code;
}

int show_pictures(showing *s, const picture_list *list, const picture_args *args,
                  const corvid_framing *framing)
{
    batch b;
    feed f;
    int code = 0;
    s->batch = (size_t)args->batch < list->n ? (size_t)args->batch : list->n;
    batch_open(&b, s, list->n);
    b.list = list;
    feed_open(&f, list, args, framing);
    for (size_t i = 0; i < list->n && !code; i++) {
        loaded item;
        feed_next(&f, i, &item);
        if (item.picture)
            batch_add(&b, i, item.picture, NULL, 0, 0);
        else
            leave_out(&b, i, &item.err);
        if (b.n == s->batch || i + 1 == list->n) code = batch_show(&b, i + 1, list->n);
    }
    feed_close(&f);
    batch_close(&b);
    return code;
}

int show_tensor(showing *s, tensor_in *tensor)
{
    size_t n = 0, height = 0, width = 0;
    int code = tensor_in_pictures(tensor, &n, &height, &width);
    if (code) return code;
    if (s->batch > n) s->batch = n;
    batch b;
    size_t size = 3 * height * width;
    float *values = cli_array(s->batch * size, sizeof *values);
    batch_open(&b, s, n);
    b.name = tensor->path;
    for (size_t i = 0; i < n && !code; i += s->batch) {
        size_t m = n - i < s->batch ? n - i : s->batch;
        code = tensor_in_read(tensor, i * size, m * size, values);
        for (size_t k = 0; k < m && !code; k++)
            batch_add(&b, i + k, NULL, values + k * size, height, width);
        if (!code) code = batch_show(&b, i + m, n);
    }
    batch_close(&b);
    free(values);
    return code;
}
