/* test_output.c - a save is all or nothing: every system call fails once, and kill -9 strikes. */
#include "support.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/output.h"
#include "base/rng.h"

/* Three full buffers and a bit, in pieces that straddle them. */
enum { SIZE = (3 << 16) + 777, PIECE = 5000 };

static void fill(unsigned char *bytes, size_t n, uint64_t seed)
{
    cv_rng rng;
    cv_rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(cv_rng_next(&rng) >> 56);
}

static corvid_status save(const char *path, const unsigned char *bytes, size_t n, corvid_error *err)
{
    static cv_output out;
    corvid_status status = cv_output_create(&out, path, err);
    for (size_t at = 0; status == CORVID_OK && at < n; at += PIECE)
        status = cv_output_write(&out, bytes + at, n - at < PIECE ? n - at : PIECE, err);
    if (status == CORVID_OK) return cv_output_commit(&out, err);
    cv_output_discard(&out);
    return status;
}

/* A fresh folder below the scratch folder, so that its entries can be counted. */
static void new_folder(char path[512], const char *name)
{
    snprintf(path, 512, "%s", test_scratch(name));
    assert_int_equal(mkdir(path, 0700), 0);
}

static size_t count_entries(const char *folder)
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    size_t n = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return n;
}

static bool holds(const char *path, const unsigned char *bytes, size_t n)
{
    size_t got;
    char *text = test_read_file(path, &got);
    bool same = got == n && memcmp(text, bytes, n) == 0;
    free(text);
    return same;
}

static void writes_what_it_is_given(void **state)
{
    (void)state;
    static unsigned char bytes[SIZE];
    static cv_output out;
    char folder[512], path[600];
    corvid_error err;
    new_folder(folder, "plain");
    snprintf(path, sizeof path, "%s/file", folder);
    fill(bytes, SIZE, 1);
    cv_rng rng;
    cv_rng_seed(&rng, 2);
    for (int round = 0; round < 20; round++) { /* pieces of every kind of length */
        ASSERT_OK(cv_output_create(&out, path, &err), &err);
        for (size_t at = 0; at < SIZE;) {
            size_t n = (size_t)(cv_rng_next(&rng) % (round % 2 ? 200000 : 700));
            if (n > SIZE - at) n = SIZE - at;
            ASSERT_OK(cv_output_write(&out, bytes + at, n, &err), &err);
            at += n;
        }
        assert_int_equal(out.written, SIZE);
        assert_true(cv_output_checksum(&out) == XXH3_64bits(bytes, SIZE));
        assert_int_equal(count_entries(folder), round ? 2 : 1);
        ASSERT_OK(cv_output_commit(&out, &err), &err);
        cv_output_discard(&out); /* harmless after commit */
        assert_true(holds(path, bytes, SIZE));
        assert_int_equal(count_entries(folder), 1);
    }
    memset(&out, 0, sizeof out);
    cv_output_discard(&out); /* and on a zeroed one: descriptor 0 stays open */
}

static void discard_leaves_the_old_file(void **state)
{
    (void)state;
    char folder[512], path[600];
    static cv_output out;
    corvid_error err;
    new_folder(folder, "discard");
    snprintf(path, sizeof path, "%s/file", folder);
    test_write_file(path, "old", 3);
    ASSERT_OK(cv_output_create(&out, path, &err), &err);
    ASSERT_OK(cv_output_write(&out, "new", 3, &err), &err);
    cv_output_discard(&out);
    cv_output_discard(&out);
    assert_true(holds(path, (const unsigned char *)"old", 3));
    assert_int_equal(count_entries(folder), 1);
}

static void every_call_may_fail(void **state)
{
    (void)state;
    static unsigned char old[1000], new[SIZE];
    char folder[512], path[600];
    corvid_error err;
    new_folder(folder, "faults");
    snprintf(path, sizeof path, "%s/file", folder);
    fill(old, sizeof old, 3);
    fill(new, SIZE, 4);

    cv_output_fail_at(0);
    ASSERT_OK(save(path, new, SIZE, &err), &err);
    int calls = cv_output_fail_at(0);
    assert_in_range(calls, 9, 100); /* create, 4 writes, flush, close, folder, rename, flush */
    for (int nth = 1; nth <= calls; nth++) {
        test_write_file(path, old, sizeof old);
        cv_output_fail_at(nth);
        assert_int_equal(save(path, new, SIZE, &err), CORVID_E_WRITE);
        cv_output_fail_at(0);
        assert_non_null(strstr(err.text, "No space left"));
        assert_int_equal(count_entries(folder), 1); /* no temporary stays */
        if (nth < calls)
            assert_true(holds(path, old, sizeof old));
        else /* the flush of the folder, after the rename: the new file is in place, whole */
            assert_true(holds(path, new, SIZE));
        unlink(path);
        cv_output_fail_at(nth);
        assert_int_equal(save(path, new, SIZE, &err), CORVID_E_WRITE);
        cv_output_fail_at(0);
        assert_int_equal(count_entries(folder), nth < calls ? 0 : 1);
    }
}

/* A child saves one of two contents over and over; it is killed at a random moment, 200 times. */
static void kill_leaves_old_or_new(void **state)
{
    (void)state;
    enum { KILLS = 200 };
    static unsigned char contents[2][SIZE];
    char folder[512], path[600];
    corvid_error err;
    new_folder(folder, "kills");
    snprintf(path, sizeof path, "%s/file", folder);
    fill(contents[0], SIZE, 5);
    fill(contents[1], SIZE, 6);
    ASSERT_OK(save(path, contents[0], SIZE, &err), &err);
    cv_rng rng;
    cv_rng_seed(&rng, 7);
    size_t seen[2] = { 0 };
    for (int i = 0; i < KILLS; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            for (int turn = 1;; turn = !turn)
                if (save(path, contents[turn], SIZE, &err) != CORVID_OK) _exit(1);
        struct timespec pause = { 0, (long)(cv_rng_next(&rng) % 8000000) };
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status)); /* it did not leave by itself with an error */
        bool first = holds(path, contents[0], SIZE);
        assert_true(first || holds(path, contents[1], SIZE));
        seen[first ? 0 : 1]++;
    }
    assert_true(seen[0] > 0 && seen[1] > 0); /* the kills did fall at different moments */
}

static void refuses_what_it_cannot_replace(void **state)
{
    (void)state;
    static cv_output out;
    corvid_error err;
    char path[600];
    snprintf(path, sizeof path, "%s/file", test_scratch("no-such-folder"));
    assert_int_equal(cv_output_create(&out, path, &err), CORVID_E_WRITE);
    assert_non_null(strstr(err.text, "make the folder first"));
    assert_int_equal(cv_output_create(&out, "/dev/null", &err), CORVID_E_WRITE);
    assert_int_equal(cv_output_create(&out, test_scratch("."), &err), CORVID_E_WRITE);
    assert_int_equal(cv_output_create(&out, "", &err), CORVID_E_ARGUMENT);
    char *longest = calloc(1, 6000);
    assert_non_null(longest);
    memset(longest, 'x', 5999);
    assert_int_equal(cv_output_create(&out, longest, &err), CORVID_E_WRITE);
    assert_non_null(strstr(err.text, "..."));
    free(longest);
    cv_output_discard(&out);
}

static void permissions_and_links(void **state)
{
    (void)state;
    char folder[512], path[800], link_path[600];
    corvid_error err;
    struct stat info;
    new_folder(folder, "modes");
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(link_path, sizeof link_path, "%s/link", folder);
    mode_t before = umask(027);
    ASSERT_OK(save(path, (const unsigned char *)"a", 1, &err), &err);
    umask(before);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640); /* the umask holds for a new file */
    assert_int_equal(chmod(path, 0604), 0);
    assert_int_equal(symlink(path, link_path), 0);
    ASSERT_OK(save(link_path, (const unsigned char *)"b", 1, &err), &err);
    assert_int_equal(lstat(link_path, &info), 0);
    assert_true(S_ISLNK(info.st_mode)); /* what the link names was replaced, not the link */
    assert_true(holds(path, (const unsigned char *)"b", 1));
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0604); /* and it kept its permissions */

    char longest[256] = "";
    memset(longest, 'n', 255); /* as long as a name may be: the temporary's is shorter */
    snprintf(path, sizeof path, "%s/%.255s", folder, longest);
    ASSERT_OK(save(path, (const unsigned char *)"c", 1, &err), &err);
    assert_true(holds(path, (const unsigned char *)"c", 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_what_it_is_given),
        cmocka_unit_test(discard_leaves_the_old_file),
        cmocka_unit_test(every_call_may_fail),
        cmocka_unit_test(kill_leaves_old_or_new),
        cmocka_unit_test(refuses_what_it_cannot_replace),
        cmocka_unit_test(permissions_and_links),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
