/* shipped.c - where the models that come with the command lie; see shipped.h.
 *
 * It only looks whether a file is there, and opens none. */
#include "shipped.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_ROOM 4096

typedef struct folder_list {
    char **paths;
    size_t n;
} folder_list;

/* Adds the first n bytes of root with what is below it, unless it is there already. */
static void add(folder_list *list, const char *root, size_t n, const char *below)
{
    buffer path = { 0 };
    buffer_add(&path, root, n);
    buffer_text(&path, below);
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->paths[i], path.bytes) == 0) {
            buffer_free(&path);
            return;
        }
    list->paths = cli_realloc(list->paths, (list->n + 1) * sizeof *list->paths);
    list->paths[list->n++] = path.bytes;
}

/* The length of the folder that the first n bytes of an absolute path lie in; 0: the root. */
static size_t parent(const char *path, size_t n)
{
    while (n && path[n - 1] != '/')
        n--;
    return n ? n - 1 : 0;
}

/* bin/corvid has share/ beside bin/; build/release/corvid has models/ beside build/. */
static void add_relative(folder_list *list)
{
    char exe[PATH_ROOM];
    const ssize_t length = readlink("/proc/self/exe", exe, sizeof exe);
    if (length <= 0 || (size_t)length == sizeof exe) return; /* may be cut off */
    const size_t folder = parent(exe, (size_t)length), above = parent(exe, folder);
    add(list, exe, above, "/share/corvid/models");
    const char *name = exe + above + 1;
    const bool installed = folder == above + 4 && memcmp(name, "bin", 3) == 0;
    if (above && !installed) add(list, exe, parent(exe, above), "/models");
}

static void add_shared(folder_list *list)
{
    const char *dirs = getenv("XDG_DATA_DIRS");
    if (!dirs || !*dirs) dirs = "/usr/local/share:/usr/share";
    while (*dirs) {
        size_t n = strcspn(dirs, ":");
        const char *next = dirs + n + (dirs[n] == ':');
        while (n && dirs[n - 1] == '/')
            n--;
        if (*dirs == '/') add(list, dirs, n, "/corvid/models"); /* the rules ignore relative ones */
        dirs = next;
    }
}

static folder_list find_folders(void)
{
    folder_list list = { 0 };
    const char *own = getenv("CORVID_MODELS");
    if (own && *own) add(&list, own, strlen(own), "");
    add_relative(&list);
    char *home = cli_user_path("XDG_DATA_HOME", ".local/share", "models");
    if (home) add(&list, home, strlen(home), "");
    free(home);
    add_shared(&list);
    return list;
}

static void free_folders(folder_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->paths[i]);
    free(list->paths);
}

char *shipped_find(const char *name)
{
    folder_list list = find_folders();
    char *found = NULL;
    for (size_t i = 0; i < list.n && !found; i++) {
        struct stat about;
        buffer path = { 0 };
        buffer_text(&path, list.paths[i]);
        buffer_text(&path, "/");
        buffer_text(&path, name);
        buffer_text(&path, ".gguf");
        if (stat(path.bytes, &about) == 0 && S_ISREG(about.st_mode))
            found = path.bytes;
        else
            buffer_free(&path);
    }
    free_folders(&list);
    return found;
}

void shipped_folders(buffer *out)
{
    folder_list list = find_folders();
    for (size_t i = 0; i < list.n; i++) {
        buffer_text(out, "\n  ");
        buffer_text(out, list.paths[i]);
    }
    free_folders(&list);
}
