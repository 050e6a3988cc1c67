/* pictures.c - gathers pictures from arguments, folders and lists, and frames them. */
#include "pictures.h"

#include <ctype.h>
#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "term.h"

/* ---- The list -------------------------------------------------------------------------------- */

static picture_entry *add_entry(picture_list *list, char *path)
{
    if (list->n == list->capacity) {
        list->capacity = 2 * list->capacity + 16;
        list->items = cli_realloc(list->items, list->capacity * sizeof *list->items);
    }
    picture_entry *entry = &list->items[list->n++];
    *entry = (picture_entry){ path, NULL, 0 };
    return entry;
}

static void remember(picture_list *list, int code)
{
    if (!list->code) list->code = code;
}

/* The length of a picture's extension at the end of n bytes, 0 when there is none. */
static size_t extension(const char *name, size_t n)
{
    static const char *const all[] = { ".jpg", ".jpeg", ".png", ".webp" };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        size_t length = strlen(all[i]);
        if (n > length && strncasecmp(name + n - length, all[i], length) == 0) return length;
    }
    return 0;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* What the walk through a folder came upon. */
static void take_found(picture_list *list, FTS *walk, FTSENT *found)
{
    bool hidden = found->fts_level > 0 && found->fts_name[0] == '.';
    switch (found->fts_info) {
    case FTS_D:
        if (hidden) fts_set(walk, found, FTS_SKIP);
        return;
    case FTS_F:
        if (!hidden && extension(found->fts_name, found->fts_namelen))
            add_entry(list, cli_copy(found->fts_path));
        return;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        remember(list, fail(CORVID_E_FILE, "%s: cannot be read: %s", found->fts_path,
                            strerror(found->fts_errno)));
        return;
    default: return; /* a folder once more on the way back, a circle, a link to nothing */
    }
}

static int add_folder(picture_list *list, const char *path)
{
    char *root = cli_copy(path);
    char *const roots[] = { root, NULL };
    size_t before = list->n;
    int had = list->code;
    FTS *walk = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, by_name);
    if (!walk) {
        free(root);
        return fail(CORVID_E_FILE, "%s: cannot be read: %s", path, strerror(errno));
    }
    for (FTSENT *found; !term_signal() && (found = fts_read(walk)) != NULL;)
        take_found(list, walk, found);
    fts_close(walk);
    free(root);
    if (term_signal()) return term_signal_code();
    if (list->n == before && list->code == had)
        remember(list, fail(CORVID_E_FILE, "%s: no pictures (.jpg .jpeg .png .webp) in this folder",
                            path));
    return 0;
}

static int add_input(picture_list *list)
{
    if (list->took_input) return fail(EXIT_USAGE, "standard input can be read only once");
    list->took_input = true;
    int code = cli_read("-", &list->standard_input);
    if (!code) add_entry(list, cli_copy("-"));
    return code;
}

int pictures_add(picture_list *list, const char *argument)
{
    struct stat about;
    if (strcmp(argument, "-") == 0) return add_input(list);
    if (stat(argument, &about) != 0) {
        remember(list, fail(CORVID_E_FILE, "%s: cannot be opened: %s", argument, strerror(errno)));
        return 0;
    }
    if (S_ISDIR(about.st_mode)) return add_folder(list, argument);
    add_entry(list, cli_copy(argument));
    return 0;
}

/* ---- Lists ----------------------------------------------------------------------------------- */

/* Cuts a line into path and label: at the first tab, else at the first space behind the extension
 * of a picture. */
static char *cut_label(char *line)
{
    char *cut = strchr(line, '\t');
    for (char *at = line; !cut && (at = strchr(at, ' ')) != NULL; at++)
        if (extension(line, (size_t)(at - line))) cut = at;
    if (!cut) return NULL;
    *cut++ = 0;
    while (isspace((unsigned char)*cut))
        cut++;
    for (size_t n = strlen(cut); n && isspace((unsigned char)cut[n - 1]);)
        cut[--n] = 0;
    return *cut ? cut : NULL;
}

/* The path as it stands, or, where there is no such file, beside the list. */
static char *list_path(const char *list, const char *path)
{
    const char *slash = strrchr(list, '/');
    if (path[0] == '/' || !slash || access(path, F_OK) == 0) return cli_copy(path);
    buffer beside = { 0 };
    buffer_add(&beside, list, (size_t)(slash + 1 - list));
    buffer_text(&beside, path);
    if (access(beside.bytes, F_OK) == 0) return beside.bytes;
    buffer_free(&beside);
    return cli_copy(path);
}

int pictures_add_list(picture_list *list, const char *path)
{
    buffer text = { 0 };
    bool standard = strcmp(path, "-") == 0;
    if (standard && list->took_input)
        return fail(EXIT_USAGE, "standard input can be read only once");
    list->took_input = list->took_input || standard;
    int code = cli_read(path, &text);
    size_t number = 0;
    for (char *line = text.bytes; !code && line && *line;) {
        char *end = strchr(line, '\n'), *next = end ? end + 1 : line + strlen(line);
        if (!end) end = next;
        if (end > line && end[-1] == '\r') end--;
        *end = 0;
        number++;
        if (*line) {
            char *label = cut_label(line);
            picture_entry *entry = add_entry(list, list_path(path, line));
            entry->label = label ? cli_copy(label) : NULL;
            entry->line = number;
        }
        line = next;
    }
    buffer_free(&text);
    return code;
}

int pictures_gather(picture_list *list, int n_args, char **args, const char *list_path_arg)
{
    int code = 0;
    if (!n_args && !list_path_arg)
        return fail(EXIT_USAGE, "give pictures: files, folders, - for standard input, or --list");
    for (int i = 0; i < n_args && !code; i++)
        code = pictures_add(list, args[i]);
    if (!code && list_path_arg) code = pictures_add_list(list, list_path_arg);
    if (!code && !list->n)
        code =
            list->code ? list->code : fail(CORVID_E_FILE, "%s: names no pictures", list_path_arg);
    return code;
}

void pictures_free(picture_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        free(list->items[i].path);
        free(list->items[i].label);
    }
    free(list->items);
    buffer_free(&list->standard_input);
    *list = (picture_list){ 0 };
}

/* ---- Framing --------------------------------------------------------------------------------- */

const cli_option picture_table[] = {
    { "size", 0, OPTION_TEXT, "model|N|WxH|native", "model",
      "What a picture is brought to: model is how the published models were evaluated; N makes the "
      "short side N and cuts N x N from the middle; WxH stretches; native leaves it as it is.",
      offsetof(picture_args, size), 0, 0 },
    { "orient", 0, OPTION_CHOICE, "model|yes|no", "model",
      "Turn a picture first as its camera says (EXIF).", offsetof(picture_args, orient), 0, 0 },
    { "max-pixels", 0, OPTION_COUNT, "N", "268435456", "Refuse larger pictures before unpacking.",
      offsetof(picture_args, max_pixels), 1, 1e12 },
    { "batch", 0, OPTION_COUNT, "N", "8",
      "Pictures shown at once: more are faster and take more memory. Results do not depend on it.",
      offsetof(picture_args, batch), 1, 4096 },
    { 0 }
};

/* "N" or "WxH", nothing more, in pixels a side can have. */
static bool parse_size(const char *text, size_t *width, size_t *height)
{
    enum { SIDE_MOST = 1 << 20 };
    unsigned long side[2];
    char *end = NULL;
    for (int i = 0; i < 2; i++) {
        if (!isdigit((unsigned char)*text)) return false;
        errno = 0;
        side[i] = strtoul(text, &end, 10);
        if (errno || side[i] == 0 || side[i] > SIDE_MOST) return false;
        if (i == 0 && *end == 0) side[1] = 0;
        if (i == 0 && *end == 0) break;
        if (i == 0 && *end != 'x') return false;
        text = end + 1;
    }
    *width = side[0];
    *height = side[1];
    return *end == 0;
}

int picture_args_framing(const picture_args *args, const corvid_model *model,
                         corvid_framing *framing)
{
    size_t width = 0, height = 0;
    *framing = (corvid_framing){ .struct_size = sizeof *framing };
    corvid_framing_defaults(model, framing);
    if (strcmp(args->orient, "model") != 0) framing->orient = strcmp(args->orient, "yes") == 0;
    if (strcmp(args->size, "model") == 0) return 0;
    if (strcmp(args->size, "native") != 0 && !parse_size(args->size, &width, &height))
        return fail(EXIT_USAGE,
                    "--size: \"%s\" is no size; write model, 224, 320x224 (width x height) or "
                    "native",
                    args->size);
    bool square = width && !height;
    framing->resize = square ? width : 0;
    framing->crop_width = framing->crop_height = framing->resize;
    framing->width = square ? 0 : width;
    framing->height = square ? 0 : height;
    return 0;
}

bool framing_is_fixed(const corvid_framing *f)
{
    return (f->crop_width && f->crop_height) || (!f->resize && f->width && f->height);
}

corvid_status pictures_load(const picture_list *list, size_t i, const corvid_framing *framing,
                            uint64_t max_pixels, corvid_picture **picture, corvid_error *err)
{
    const char *path = list->items[i].path;
    const buffer *input = &list->standard_input;
    corvid_picture *whole = NULL;
    *picture = NULL;
    corvid_status status = strcmp(path, "-") == 0
                               ? corvid_picture_decode(input->bytes, input->n, "standard input",
                                                       max_pixels, &whole, err)
                               : corvid_picture_open(path, max_pixels, &whole, err);
    if (!status) status = corvid_picture_frame(whole, framing, picture, err);
    corvid_picture_close(whole);
    return status;
}
