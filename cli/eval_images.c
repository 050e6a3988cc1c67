/* eval_images.c - `corvid eval images`: how often a vision model finds the right class. */
#include "eval.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ranking.h"
#include "showing.h"
#include "term.h"
#include "textio.h"

typedef struct tally {
    uint64_t n, top1, top5;
} tally;

typedef struct image_eval {
    const eval_options *o;
    corvid_model *model;
    size_t n_classes;
    char **wnids; /* [n_classes], NULL: none found */
    picture_list list;
    size_t *truth; /* [list.n] */
    float *logits; /* [batch][n_classes] */
    tally all, *classes;
    uint64_t n_failed;
    double seconds;
} image_eval;

/* ---- WordNet ids ----------------------------------------------------------------------------- */

/* The n-th column of a line of length bytes, to be freed; NULL when there are not so many. */
static char *column(const char *line, size_t length, size_t n)
{
    const char *end = line + length;
    for (; n; n--) {
        line = memchr(line, '\t', (size_t)(end - line));
        if (!line++) return NULL;
    }
    const char *tab = memchr(line, '\t', (size_t)(end - line));
    buffer text = { 0 };
    buffer_add(&text, line, (size_t)((tab ? tab : end) - line));
    return text.bytes;
}

/* Which column of the first line is called "wnid"; *found says whether there is one. */
static size_t wnid_column(const char *line, size_t length, bool *found)
{
    char *name;
    size_t n = 0;
    *found = false;
    for (; !*found && (name = column(line, length, n)) != NULL; n++) {
        *found = strcmp(name, "wnid") == 0;
        free(name);
        if (*found) break;
    }
    return n;
}

static void free_wnids(image_eval *e)
{
    for (size_t i = 0; e->wnids && i < e->n_classes; i++)
        free(e->wnids[i]);
    free(e->wnids);
    e->wnids = NULL;
}

/* Takes the ids of all classes from a table, if it is one that has them. */
static void read_wnids(image_eval *e, const char *path)
{
    buffer text = { 0 };
    struct stat about;
    bool found = false;
    if (e->wnids || stat(path, &about) != 0 || !S_ISREG(about.st_mode) || cli_read(path, &text))
        return;
    size_t n = strcspn(text.bytes, "\r\n"), at = wnid_column(text.bytes, n, &found), i = 0;
    const char *line = strchr(text.bytes, '\n');
    if (found) e->wnids = cli_array(e->n_classes, sizeof *e->wnids);
    for (; found && line && *++line && i < e->n_classes; i++) {
        e->wnids[i] = column(line, strcspn(line, "\r\n"), at);
        if (!e->wnids[i]) break;
        line = strchr(line, '\n');
    }
    if (found && i < e->n_classes) free_wnids(e);
    buffer_free(&text);
}

/* Looks where the library looks for names: where --classes says, else beside the model, else in the
 * data folder. */
static void find_wnids(image_eval *e)
{
    const char *given = e->o->model.classes, *model = e->o->model.model;
    if (given) {
        read_wnids(e, given);
        return;
    }
    const char *slash = strrchr(model, '/');
    buffer beside = { 0 };
    if (slash) buffer_add(&beside, model, (size_t)(slash + 1 - model));
    buffer_text(&beside, "classes.tsv");
    read_wnids(e, beside.bytes);
    buffer_free(&beside);
    char *shared = cli_user_path("XDG_DATA_HOME", ".local/share", "classes.tsv");
    if (shared) read_wnids(e, shared);
    free(shared);
}

/* ---- From a word to a class ------------------------------------------------------------------ */

/* Equal, but for "_" that stands for a space. */
static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if ((*a == '_' ? ' ' : *a) != (*b == '_' ? ' ' : *b)) return false;
    return *a == *b;
}

/* Each of these gives n_classes when a word is no class, or could be several. */

static size_t by_name(const image_eval *e, const char *word)
{
    size_t found = e->n_classes;
    for (size_t i = 0; i < e->n_classes; i++) {
        const char *name = corvid_class_name(e->model, i);
        if (!name || !same_name(name, word)) continue;
        if (found < e->n_classes) return e->n_classes;
        found = i;
    }
    return found;
}

static size_t by_wnid(const image_eval *e, const char *word)
{
    for (size_t i = 0; e->wnids && i < e->n_classes; i++)
        if (strcmp(e->wnids[i], word) == 0) return i;
    return e->n_classes;
}

static size_t by_number(const image_eval *e, const char *word)
{
    char *end;
    if (!isdigit((unsigned char)*word)) return e->n_classes;
    unsigned long long i = strtoull(word, &end, 10);
    return *end == 0 && i < e->n_classes ? (size_t)i : e->n_classes;
}

typedef size_t (*class_rule)(const image_eval *e, const char *word);

/* ---- Folders --------------------------------------------------------------------------------- */

/* The folders of the data in the order of their pictures, which is that of their names. */
typedef struct folders {
    char **names;
    size_t n;
    size_t *of; /* [list.n] the folder of a picture */
} folders;

static void free_folders(folders *f)
{
    for (size_t i = 0; i < f->n; i++)
        free(f->names[i]);
    free(f->names);
    free(f->of);
}

static int list_folders(const image_eval *e, folders *f)
{
    size_t root = strlen(e->o->data);
    f->of = cli_array(e->list.n, sizeof *f->of);
    for (size_t i = 0; i < e->list.n; i++) {
        const char *path = e->list.items[i].path;
        const char *name = path + root + strspn(path + root, "/"), *end = strchr(name, '/');
        if (!end)
            return fail(CORVID_E_FORMAT,
                        "%s: lies in no folder of a class; expected %s/CLASS/PICTURE, or a list",
                        path, e->o->data);
        size_t n = (size_t)(end - name);
        if (!f->n || strncmp(f->names[f->n - 1], name, n) != 0 || f->names[f->n - 1][n]) {
            buffer copy = { 0 };
            buffer_add(&copy, name, n);
            f->names = cli_realloc(f->names, (f->n + 1) * sizeof *f->names);
            f->names[f->n++] = copy.bytes;
        }
        f->of[i] = f->n - 1;
    }
    return 0;
}

/* The first folder that a rule does not know; n when it knows all. */
static size_t first_unknown(const image_eval *e, const folders *f, class_rule rule)
{
    size_t i = 0;
    while (i < f->n && rule(e, f->names[i]) < e->n_classes)
        i++;
    return i;
}

/* The first rule that all folders obey says what class each is. */
static int classes_of_folders(image_eval *e, const folders *f)
{
    static const struct {
        class_rule find;
        const char *what;
    } rules[] = { { by_name, "names of classes" },
                  { by_wnid, "WordNet ids" },
                  { by_number, "numbers of classes" } };
    size_t furthest = 0;
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++) {
        size_t unknown = first_unknown(e, f, rules[r].find);
        if (unknown > furthest) furthest = unknown;
        if (unknown < f->n) continue;
        for (size_t i = 0; i < e->list.n; i++)
            e->truth[i] = rules[r].find(e, f->names[f->of[i]]);
        note("%zu folders, taken as %s", f->n, rules[r].what);
        return 0;
    }
    if (f->n != e->n_classes)
        return fail(CORVID_E_FORMAT,
                    "%s/%s: the folder's name is no class of the model: neither a name, nor a "
                    "WordNet id, nor a number below %zu; and %zu folders are not one per class",
                    e->o->data, f->names[furthest], e->n_classes, f->n);
    memcpy(e->truth, f->of, e->list.n * sizeof *e->truth);
    note("%zu folders, taken as the classes in the order of their names", f->n);
    return 0;
}

/* ---- The data -------------------------------------------------------------------------------- */

static int classes_of_lines(image_eval *e)
{
    for (size_t i = 0; i < e->list.n; i++) {
        const picture_entry *entry = &e->list.items[i];
        if (!entry->label)
            return fail(CORVID_E_FORMAT,
                        "%s:%zu: no class behind the path; write PATH, a tab, CLASS", e->o->data,
                        entry->line);
        size_t class = by_number(e, entry->label);
        if (class == e->n_classes) class = by_name(e, entry->label);
        if (class == e->n_classes) class = by_wnid(e, entry->label);
        if (class == e->n_classes)
            return fail(CORVID_E_FORMAT,
                        "%s:%zu: \"%s\" is no class of the model: neither a number below %zu, nor "
                        "a name that only one class has, nor a WordNet id",
                        e->o->data, entry->line, entry->label, e->n_classes);
        e->truth[i] = class;
    }
    return 0;
}

/* Keeps --limit pictures, spread evenly. */
static void apply_limit(image_eval *e)
{
    size_t n = e->list.n, kept = (size_t)e->o->limit;
    if (!kept || kept >= n) return;
    for (size_t k = 0; k < kept; k++) {
        size_t i = (size_t)((double)k * (double)n / (double)kept); /* never below k */
        picture_entry moved = e->list.items[i];
        e->list.items[i] = e->list.items[k];
        e->list.items[k] = moved;
        size_t class = e->truth[i];
        e->truth[i] = e->truth[k];
        e->truth[k] = class;
    }
    for (size_t i = kept; i < n; i++) {
        free(e->list.items[i].path);
        free(e->list.items[i].label);
    }
    e->list.n = kept;
}

static bool is_folder(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

static int gather(image_eval *e)
{
    const char *data = e->o->data;
    int code = is_folder(data) ? pictures_add(&e->list, data) : pictures_add_list(&e->list, data);
    if (code) return code;
    if (e->list.n) return 0;
    return e->list.code ? e->list.code : fail(CORVID_E_FORMAT, "%s: names no pictures", data);
}

static int find_classes(image_eval *e)
{
    folders f = { 0 };
    int code = 0;
    e->truth = cli_array(e->list.n, sizeof *e->truth);
    find_wnids(e);
    if (is_folder(e->o->data)) {
        code = list_folders(e, &f);
        if (!code) code = classes_of_folders(e, &f);
    } else {
        code = classes_of_lines(e);
    }
    free_folders(&f);
    if (!code) apply_limit(e);
    return code;
}

/* ---- Measuring ------------------------------------------------------------------------------- */

static void want_logits(void *ctx, size_t slot, size_t height, size_t width, corvid_view *view)
{
    image_eval *e = ctx;
    (void)height;
    (void)width;
    view->logits = e->logits + slot * e->n_classes;
}

static void count(tally *t, size_t rank)
{
    t->n++;
    t->top1 += rank < 1;
    t->top5 += rank < 5;
}

static int take_logits(void *ctx, size_t slot, size_t i)
{
    image_eval *e = ctx;
    size_t class = e->truth[i];
    const float *row = e->logits + slot * e->n_classes;
    size_t rank = isnan(row[class]) ? SIZE_MAX : rank_of(row, e->n_classes, class);
    count(&e->all, rank);
    count(&e->classes[class], rank);
    return 0;
}

/* Share of the pictures that were counted. */
static double share(uint64_t right, uint64_t n)
{
    return n ? (double)right / (double)n : 0;
}

/* ---- Reporting ------------------------------------------------------------------------------- */

/* Classes that have pictures, the worst first; n of them. */
static size_t *worst_first(const image_eval *e, size_t *n)
{
    size_t *order = cli_array(e->n_classes, sizeof *order);
    *n = 0;
    for (size_t i = 0; i < e->n_classes; i++) {
        if (!e->classes[i].n) continue;
        double mine = share(e->classes[i].top1, e->classes[i].n);
        size_t at = (*n)++;
        for (; at; at--) { /* insertion keeps equals in order */
            const tally *before = &e->classes[order[at - 1]];
            if (share(before->top1, before->n) <= mine) break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    return order;
}

static json_t *classes_json(const image_eval *e)
{
    size_t n;
    size_t *order = worst_first(e, &n);
    json_t *list = json_array();
    for (size_t k = 0; k < n; k++) {
        const tally *t = &e->classes[order[k]];
        const char *name = corvid_class_name(e->model, order[k]);
        json_array_append_new(
            list, json_pack("{s:I, s:o, s:I, s:f, s:f}", "class", (json_int_t)order[k], "name",
                            name ? cli_json_text(name, strlen(name)) : json_null(), "pictures",
                            (json_int_t)t->n, "top1", share(t->top1, t->n), "top5",
                            share(t->top5, t->n)));
    }
    free(order);
    return list;
}

static double per_second(const image_eval *e)
{
    return e->seconds > 0 ? (double)e->all.n / e->seconds : 0;
}

static int print_json(const image_eval *e)
{
    json_t *o = json_pack("{s:s, s:I, s:I, s:f, s:f, s:f, s:f}", "task", "images", "pictures",
                          (json_int_t)e->all.n, "failures", (json_int_t)e->n_failed, "top1",
                          share(e->all.top1, e->all.n), "top5", share(e->all.top5, e->all.n),
                          "seconds", e->seconds, "pictures_per_s", per_second(e));
    if (e->o->per_class) json_object_set_new(o, "classes", classes_json(e));
    return cli_print_json(o);
}

static void print_classes_table(const image_eval *e)
{
    char room[CLASS_TEXT];
    size_t n;
    size_t *order = worst_first(e, &n);
    puts("\n class  pictures     top-1     top-5  name");
    for (size_t k = 0; k < n; k++) {
        const tally *t = &e->classes[order[k]];
        printf("%6zu %9llu  %6.2f %%  %6.2f %%  %s\n", order[k], (unsigned long long)t->n,
               100 * share(t->top1, t->n), 100 * share(t->top5, t->n),
               class_label(e->model, order[k], room));
    }
    free(order);
}

static int print_all(const image_eval *e)
{
    if (e->o->json) return print_json(e);
    printf("pictures    %llu\nfailures    %llu\ntop-1       %.4f %%\ntop-5       %.4f %%\n"
           "speed       %.2f pictures/s\n",
           (unsigned long long)e->all.n, (unsigned long long)e->n_failed,
           100 * share(e->all.top1, e->all.n), 100 * share(e->all.top5, e->all.n), per_second(e));
    if (e->o->per_class) print_classes_table(e);
    note("%.1f s", e->seconds);
    return 0;
}

/* ---- Running --------------------------------------------------------------------------------- */

static int measure(image_eval *e)
{
    corvid_framing framing;
    int code = picture_args_framing(&e->o->pictures, e->model, &framing);
    if (code) return code;
    e->logits = cli_array((size_t)e->o->pictures.batch * e->n_classes, sizeof *e->logits);
    e->classes = cli_array(e->n_classes, sizeof *e->classes);
    showing s = { .model = e->model,
                  .label = "images",
                  .want = want_logits,
                  .take = take_logits,
                  .ctx = e,
                  .code = e->list.code };
    double started = term_seconds();
    code = show_pictures(&s, &e->list, &e->o->pictures, &framing);
    e->seconds = term_seconds() - started;
    e->n_failed = s.n_failed;
    if (!code && e->all.n) code = print_all(e);
    return code ? code : s.code;
}

static int open_and_measure(image_eval *e)
{
    int code = model_args_open_vision(&e->o->model, &e->model);
    if (code) return code;
    e->n_classes = model_args_info(e->model).n_classes;
    if (!e->n_classes)
        return fail(EXIT_USAGE, "%s: this model has no head, so it knows no classes",
                    e->o->model.model);
    code = find_classes(e);
    return code ? code : measure(e);
}

int eval_images(const eval_options *o)
{
    image_eval e = { .o = o };
    corvid_framing framing;
    int code = picture_args_framing(&o->pictures, NULL, &framing);
    if (!code) code = gather(&e);
    if (!code) code = open_and_measure(&e);
    free(e.logits);
    free(e.classes);
    free(e.truth);
    free_wnids(&e);
    pictures_free(&e.list);
    corvid_model_close(e.model);
    return code;
}
