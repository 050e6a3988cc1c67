/* picture_sources.c - finding the pictures of folders and archives, their classes and their parts.
 *
 * A source is first a list of paths; what their folders mean is told from all of them together, the
 * same way for folders and archives.  Nothing is decoded here. */
#include "train/picture_sources.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "train/picture_archive.h"
#include "train/picture_raw.h"

#define DEEPEST     16 /* folders in folders */
#define PATH_BYTES  4096
#define MOST_LISTED INT32_MAX

/* ---- the list -------------------------------------------------------------------------------- */

bool cv_name_ends(const char *name, const char *end)
{
    const size_t n = strlen(name), m = strlen(end);
    return n > m && strcasecmp(name + n - m, end) == 0;
}

bool cv_picture_named(const char *name)
{
    return cv_name_ends(name, ".jpg") || cv_name_ends(name, ".jpeg") ||
           cv_name_ends(name, ".png") || cv_name_ends(name, ".webp");
}

static corvid_status out_of_memory(corvid_error *err)
{
    return cv_fail(err, CORVID_E_MEMORY, "out of memory: the list of pictures");
}

static corvid_status fail_file(const char *path, int error, corvid_error *err)
{
    return cv_fail(err, CORVID_E_FILE,
                   "%.512s: cannot be read: %s; check the spelling and the permissions", path,
                   strerror(error));
}

corvid_status cv_picture_list_cancelled(const cv_picture_list *list, corvid_error *err)
{
    if (!list->cancel || list->cancel(list->ctx) == 0) return CORVID_OK;
    return cv_fail(err, CORVID_E_CANCELLED, "looking for pictures was cancelled");
}

/* Twice the room for things of `size` bytes; what was before stays in the arena. */
static corvid_status widen(cv_arena *arena, void **of, size_t n, size_t size, size_t *capacity,
                           corvid_error *err)
{
    if (n < *capacity) return CORVID_OK;
    const size_t wanted = *capacity > 0 ? 2 * *capacity : 256;
    void *wider = cv_arena_alloc(arena, wanted, size);
    if (!wider || n >= MOST_LISTED) return out_of_memory(err);
    if (n > 0) memcpy(wider, *of, n * size);
    *of = wider;
    *capacity = wanted;
    return CORVID_OK;
}

corvid_status cv_picture_list_add(cv_picture_list *list, cv_picture_sample sample,
                                  corvid_error *err)
{
    void *of = list->of;
    CV_TRY(widen(&list->arena, &of, list->n, sizeof sample, &list->capacity, err));
    list->of = of;
    list->of[list->n++] = sample;
    if (sample.form == CV_FORM_FILE || sample.form == CV_FORM_ENCODED) list->n_encoded += sample.n;
    return CORVID_OK;
}

/* A class at the end of the list, even where its name is there already. */
static corvid_status add_class(cv_picture_list *list, const char *name, size_t n, corvid_error *err)
{
    void *of = (void *)list->classes;
    CV_TRY(widen(&list->arena, &of, list->n_classes, sizeof *list->classes, &list->class_capacity,
                 err));
    list->classes = of;
    list->classes[list->n_classes] = cv_arena_text(&list->arena, name, n);
    if (!list->classes[list->n_classes]) return out_of_memory(err);
    list->n_classes++;
    return CORVID_OK;
}

corvid_status cv_picture_list_class(cv_picture_list *list, const char *name, int32_t *target,
                                    corvid_error *err)
{
    size_t i = 0;
    while (i < list->n_classes && strcmp(list->classes[i], name) != 0)
        i++;
    if (i == list->n_classes) CV_TRY(add_class(list, name, strlen(name), err));
    *target = (int32_t)i;
    return CORVID_OK;
}

corvid_status cv_picture_list_room(cv_picture_list *list, const char *path, uint64_t n,
                                   unsigned char **out, corvid_error *err)
{
    *out = NULL;
    if (n > list->limit || list->n_bytes > list->limit - (size_t)n)
        return cv_fail(err, CORVID_E_MEMORY,
                       "%.512s: its pictures take more than the %zu bytes of memory that are "
                       "allowed; allow more, or unpack it into a folder",
                       path, list->limit);
    *out = cv_arena_alloc(&list->bytes, (size_t)n, 1);
    list->n_bytes += (size_t)n;
    if (*out) return CORVID_OK;
    return cv_fail(err, CORVID_E_MEMORY, "out of memory: %llu bytes for pictures of %.512s",
                   (unsigned long long)n, path);
}

/* ---- folders --------------------------------------------------------------------------------- */

typedef struct walk {
    cv_picture_list *list;
    char path[PATH_BYTES];
    size_t root; /* characters of the source's path, with the slash behind it */
    corvid_error *err;
} walk;

static corvid_status walk_folder(walk *w, size_t length, size_t depth);

static corvid_status add_file(walk *w, const struct stat *info)
{
    const char *name = cv_arena_text(&w->list->arena, w->path, strlen(w->path));
    if (!name) return out_of_memory(w->err);
    return cv_picture_list_add(w->list,
                               (cv_picture_sample){ .name = name,
                                                    .path = name + w->root,
                                                    .n = (uint64_t)info->st_size,
                                                    .form = CV_FORM_FILE },
                               w->err);
}

/* w->path, of `length` characters: a picture, a folder, or something to leave out. */
static corvid_status walk_entry(walk *w, size_t length, size_t depth)
{
    struct stat link, info;
    if (lstat(w->path, &link) != 0) return fail_file(w->path, errno, w->err);
    if (S_ISDIR(link.st_mode)) return walk_folder(w, length, depth + 1);
    if (!cv_picture_named(w->path)) return CORVID_OK;
    if (stat(w->path, &info) != 0) return fail_file(w->path, errno, w->err);
    return S_ISREG(info.st_mode) ? add_file(w, &info) : CORVID_OK;
}

static corvid_status walk_entries(walk *w, DIR *dir, size_t length, size_t depth)
{
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry && errno != 0) return fail_file(w->path, errno, w->err);
        if (!entry) return CORVID_OK;
        if (entry->d_name[0] == '.') continue;
        const size_t n = strlen(entry->d_name);
        if (length + 1 + n >= sizeof w->path) return fail_file(w->path, ENAMETOOLONG, w->err);
        w->path[length] = '/';
        memcpy(w->path + length + 1, entry->d_name, n + 1);
        CV_TRY(walk_entry(w, length + 1 + n, depth));
        w->path[length] = '\0';
    }
}

static corvid_status walk_folder(walk *w, size_t length, size_t depth)
{
    if (depth > DEEPEST)
        return cv_fail(w->err, CORVID_E_FILE, "%.512s: lies more than %d folders deep", w->path,
                       DEEPEST);
    CV_TRY(cv_picture_list_cancelled(w->list, w->err));
    DIR *dir = opendir(length > 0 ? w->path : "/");
    if (!dir) return fail_file(w->path, errno, w->err);
    const corvid_status status = walk_entries(w, dir, length, depth);
    closedir(dir);
    return status;
}

static corvid_status find_in_folder(cv_picture_list *list, const char *folder, corvid_error *err)
{
    walk w = { .list = list, .err = err };
    size_t n = strlen(folder);
    while (n > 0 && folder[n - 1] == '/')
        n--;
    if (n + 1 >= sizeof w.path) return fail_file(folder, ENAMETOOLONG, err);
    memcpy(w.path, folder, n);
    w.root = n + 1;
    return walk_folder(&w, n, 0);
}

/* ---- what the folders mean ------------------------------------------------------------------- */

/* The sample's path from the folder of its class on, as far as that is known. */
static const char *rest_of(const cv_picture_sample *s)
{
    return s->path + s->skip;
}

/* Characters of the first folder of a path; 0 when there is only a file's name. */
static size_t first_folder(const char *path)
{
    const char *slash = strchr(path, '/');
    return slash ? (size_t)(slash - path) : 0;
}

/* Is there a folder in the first folder? */
static bool is_deep(const char *path)
{
    const size_t n = first_folder(path);
    return n > 0 && first_folder(path + n + 1) > 0;
}

static bool begins_with_folder(const char *path, const char *name)
{
    const size_t n = strlen(name);
    return strncasecmp(path, name, n) == 0 && path[n] == '/';
}

static void skip_folder(cv_picture_sample *s)
{
    s->skip = (uint16_t)(s->skip + first_folder(rest_of(s)) + 1);
}

/* Passes over folders around all of it. */
static void skip_common(cv_picture_sample *of, size_t n)
{
    for (;;) {
        const char *path = rest_of(&of[0]);
        const size_t length = first_folder(path) + 1;
        for (size_t i = 0; i < n; i++)
            if (!is_deep(rest_of(&of[i])) || strncmp(rest_of(&of[i]), path, length) != 0) return;
        for (size_t i = 0; i < n; i++)
            skip_folder(&of[i]);
    }
}

static const char *const TRAIN_NAMES[] = { "train", "training", NULL };
static const char *const VALIDATION_NAMES[] = { "val", "valid", "validation", NULL };
static const char *const TEST_NAMES[] = { "test", "testing", NULL };

static bool in_part(const char *path, const char *const *names)
{
    if (!is_deep(path)) return false;
    for (; *names; names++)
        if (begins_with_folder(path, *names)) return true;
    return false;
}

static bool any_in_part(const cv_picture_sample *of, size_t n, const char *const *names)
{
    for (size_t i = 0; i < n; i++)
        if (in_part(rest_of(&of[i]), names)) return true;
    return false;
}

/* Takes the samples at and behind `first` apart into train and validation, where the folders say
 * so.  What belongs to neither gets no class, and is dropped with what has none. */
static void tell_parts(cv_picture_list *list, size_t first)
{
    cv_picture_sample *of = list->of + first;
    const size_t n = list->n - first;
    const char *const *held_out = VALIDATION_NAMES;
    if (!any_in_part(of, n, TRAIN_NAMES)) return;
    if (!any_in_part(of, n, held_out)) held_out = TEST_NAMES;
    const bool split = any_in_part(of, n, held_out);
    for (size_t i = 0; i < n; i++) {
        const bool train = in_part(rest_of(&of[i]), TRAIN_NAMES);
        if (train || in_part(rest_of(&of[i]), held_out)) {
            skip_folder(&of[i]);
            if (split) of[i].part = train ? CV_PART_TRAIN : CV_PART_VALIDATION;
        } else {
            of[i].target = -1;
        }
    }
}

static void drop_left_out(cv_picture_list *list, size_t first)
{
    size_t kept = first;
    for (size_t i = first; i < list->n; i++)
        if (list->of[i].target >= 0 && first_folder(rest_of(&list->of[i])) > 0)
            list->of[kept++] = list->of[i];
    list->n_left_out += list->n - kept;
    list->n = kept;
}

static int by_path(const void *left, const void *right)
{
    const cv_picture_sample *a = left, *b = right;
    const int order = strcmp(rest_of(a), rest_of(b));
    if (order != 0) return order;
    return a->part != b->part ? (int)a->part - (int)b->part : strcmp(a->path, b->path);
}

/* Classes are numbered as they come, a name perhaps twice; number_classes mends that. */
static corvid_status tell_classes(cv_picture_list *list, size_t first, corvid_error *err)
{
    const char *last = NULL;
    for (size_t i = first; i < list->n; i++) {
        const char *path = rest_of(&list->of[i]);
        const size_t n = first_folder(path);
        if (!last || strncmp(path, last, n + 1) != 0) CV_TRY(add_class(list, path, n, err));
        list->of[i].target = (int32_t)(list->n_classes - 1);
        last = path;
    }
    return CORVID_OK;
}

static corvid_status interpret(cv_picture_list *list, size_t first, const char *source,
                               corvid_error *err)
{
    if (list->n > first) {
        skip_common(list->of + first, list->n - first);
        tell_parts(list, first);
        drop_left_out(list, first);
    }
    if (list->n == first)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%.512s: has no pictures in folders of classes; expected CLASS/NAME.jpg (or "
                       ".png, .webp), train/CLASS/NAME.jpg, or the files of MNIST or CIFAR",
                       source);
    qsort(list->of + first, list->n - first, sizeof *list->of, by_path);
    return tell_classes(list, first, err);
}

/* ---- all classes together -------------------------------------------------------------------- */

typedef struct numbered {
    const char *name;
    int32_t number;
} numbered;

static int by_name(const void *left, const void *right)
{
    return strcmp(((const numbered *)left)->name, ((const numbered *)right)->name);
}

/* Sorts the classes by name, each once. */
static corvid_status number_classes(cv_picture_list *list, corvid_error *err)
{
    const size_t n = list->n_classes;
    numbered *order = cv_arena_alloc(&list->arena, n, sizeof *order);
    int32_t *number = cv_arena_alloc(&list->arena, n, sizeof *number);
    if (!order || !number) return out_of_memory(err);
    for (size_t i = 0; i < n; i++)
        order[i] = (numbered){ list->classes[i], (int32_t)i };
    qsort(order, n, sizeof *order, by_name);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(order[i].name, list->classes[kept - 1]) != 0)
            list->classes[kept++] = order[i].name;
        number[order[i].number] = (int32_t)(kept - 1);
    }
    list->n_classes = kept;
    for (size_t i = 0; i < list->n; i++)
        list->of[i].target = number[list->of[i].target];
    return CORVID_OK;
}

/* Every class that is looked for in validation can be learned. */
static corvid_status check_classes(cv_picture_list *list, corvid_error *err)
{
    size_t *seen = cv_arena_alloc(&list->arena, list->n_classes, sizeof *seen);
    if (!seen) return out_of_memory(err);
    if (list->n_classes < 2)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%.512s: all pictures are of one class (%.200s), expected at least two: a "
                       "folder for each",
                       list->of[0].name, list->classes[0]);
    for (size_t i = 0; i < list->n; i++)
        if (list->of[i].part != CV_PART_VALIDATION) seen[list->of[i].target]++;
    for (size_t i = 0; i < list->n; i++)
        if (seen[list->of[i].target] == 0)
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "%.512s: is for validation, of the class \"%.200s\" that no picture for "
                           "training has; expected the same folders in both",
                           list->of[i].name, list->classes[list->of[i].target]);
    return CORVID_OK;
}

static corvid_status find_source(cv_picture_list *list, const char *path, corvid_error *err)
{
    struct stat info;
    const size_t before = list->n;
    bool raw = false;
    if (!path) return cv_fail(err, CORVID_E_ARGUMENT, "pictures without a path");
    if (stat(path, &info) != 0) return fail_file(path, errno, err);
    if (S_ISDIR(info.st_mode)) {
        CV_TRY(cv_raw_read_folder(list, path, &raw, err));
        if (raw) return CORVID_OK;
        CV_TRY(find_in_folder(list, path, err));
    } else if (S_ISREG(info.st_mode) && cv_archive_named(path)) {
        CV_TRY(cv_archive_read_pictures(list, path, err));
    } else {
        return cv_fail(err, CORVID_E_FORMAT,
                       "%.512s: is no source of pictures; expected a folder, or an archive named "
                       ".tar, .tar.gz, .tgz, .tar.bz2, .tar.xz or .zip",
                       path);
    }
    list->in_order = false;
    return interpret(list, before, path, err);
}

corvid_status cv_picture_list_find(const corvid_allocator *mem, const char *const *paths, size_t n,
                                   size_t limit, corvid_cancel_fn cancel, void *ctx,
                                   cv_picture_list *out, corvid_error *err)
{
    *out = (cv_picture_list){ .limit = limit, .in_order = true, .cancel = cancel, .ctx = ctx };
    cv_arena_init(&out->arena, mem);
    cv_arena_init(&out->bytes, mem);
    corvid_status status = CORVID_OK;
    if (n == 0) status = cv_fail(err, CORVID_E_ARGUMENT, "no pictures were given");
    for (size_t i = 0; status == CORVID_OK && i < n; i++)
        status = find_source(out, paths[i], err);
    if (status == CORVID_OK && out->n == 0)
        status = cv_fail(err, CORVID_E_FORMAT, "%.512s: has no pictures", paths[0]);
    if (status == CORVID_OK && !out->in_order) status = number_classes(out, err);
    if (status == CORVID_OK) status = check_classes(out, err);
    if (status != CORVID_OK) cv_picture_list_free(out);
    return status;
}

void cv_picture_list_free(cv_picture_list *list)
{
    if (list->arena.mem) cv_arena_free(&list->arena);
    if (list->bytes.mem) cv_arena_free(&list->bytes);
    *list = (cv_picture_list){ .n = 0 };
}
