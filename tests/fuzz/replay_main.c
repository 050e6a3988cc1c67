/* replay_main.c - runs a fuzz target over saved inputs, where the build has no libFuzzer.
 *
 * Arguments are files, or folders whose files are all run, in the order of their names. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static size_t files_run;

/* Each input lies in a block of exactly its size, so that reading past it is found. */
static int run_file(const char *path, size_t size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = malloc(size ? size : 1);
    int failed = !file || !bytes || fread(bytes, 1, size, file) != size;
    if (failed) {
        fprintf(stderr, "%s: cannot be read\n", path);
    } else {
        printf("%s (%zu bytes)\n", path, size);
        fflush(stdout);
        failed = LLVMFuzzerTestOneInput(bytes, size) != 0;
        files_run++;
    }
    free(bytes);
    if (file) fclose(file);
    return failed;
}

static int run_path(const char *path);

static int run_folder(const char *folder)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, alphasort), failed = n < 0;
    for (int i = 0; i < n; i++) {
        char path[4096];
        int length = snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.') failed |= length >= (int)sizeof path || run_path(path);
        free(entries[i]);
    }
    if (n >= 0) free(entries);
    return failed;
}

static int run_path(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        fprintf(stderr, "%s: is not there\n", path);
        return 1;
    }
    return S_ISDIR(info.st_mode) ? run_folder(path) : run_file(path, (size_t)info.st_size);
}

int main(int argc, char **argv)
{
    int failed = 0;
    for (int i = 1; i < argc; i++)
        failed |= run_path(argv[i]);
    printf("%zu inputs\n", files_run);
    return failed || files_run == 0;
}
