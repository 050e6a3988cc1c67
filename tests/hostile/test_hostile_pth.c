/* test_hostile_pth.c - PyTorch checkpoints whose container is malformed or malicious, each refused.
 *
 * Zip archives and legacy streams with a good pickle inside; hostile pickles are in
 * test_hostile_pickle.c.  `test_hostile_pth --write FOLDER` writes them, and a good one of each
 * kind, as a corpus for the fuzzer. */
#include "pth_files.h"

/* ---- archives ------------------------------------------------------------------------------- */

static file good_archive(void)
{
    pth_bytes b = good_pickle(false);
    return archive_of(&b);
}

/* The good pickle and its storage under given names, with one more entry. */
static file archive_with(const char *pickle_name, const char *data_name, pth_entry extra)
{
    pth_bytes b = good_pickle(false);
    const pth_entry entries[] = { { pickle_name, b.at, b.n, false },
                                  { data_name, four, sizeof four, false },
                                  extra };
    file f;
    f.bytes = pth_zip(entries, extra.name ? 3 : 2, &f.n);
    free(b.at);
    return f;
}

static file no_data_pkl(void)
{
    return archive_with("archive/data.json", "archive/data/0", (pth_entry){ 0 });
}

static file data_pkl_too_deep(void)
{
    return archive_with("a/b/data.pkl", "a/b/data/0", (pth_entry){ 0 });
}

static file two_data_pkl(void)
{
    return archive_with("a/data.pkl", "a/data/0", (pth_entry){ "b/data.pkl", "N.", 2, false });
}

static file torchscript(void)
{
    return archive_with("m/data.pkl", "m/data/0",
                        (pth_entry){ "m/code/__torch__.py", "pass", 4, false });
}

static file big_endian(void)
{
    return archive_with("m/data.pkl", "m/data/0", (pth_entry){ "m/byteorder", "big", 3, false });
}

static file odd_byteorder(void)
{
    return archive_with("m/data.pkl", "m/data/0",
                        (pth_entry){ "m/byteorder", "littlelittlelittle", 18, false });
}

static file compressed(bool pickle)
{
    static const char zeros[4096];
    pth_bytes b = good_pickle(false);
    const pth_entry entries[] = { { "m/data.pkl", pickle ? zeros : (char *)b.at,
                                    pickle ? sizeof zeros : b.n, pickle },
                                  { "m/data/0", zeros, sizeof zeros, !pickle } };
    file f;
    f.bytes = pth_zip(entries, 2, &f.n);
    free(b.at);
    return f;
}

static file compressed_pickle(void)
{
    return compressed(true);
}

static file compressed_storage(void)
{
    return compressed(false);
}

/* Where the k-th record with this signature begins. */
static unsigned char *record(const file *f, const char *signature, size_t k)
{
    for (size_t i = 0; i + 4 <= f->n; i++)
        if (memcmp(f->bytes + i, signature, 4) == 0 && k-- == 0) return f->bytes + i;
    fail_msg("no record in the archive");
    return NULL;
}

#define CENTRAL "PK\x01\x02"
#define LOCAL   "PK\x03\x04"
#define END     "PK\x05\x06"

/* A good archive with bytes changed in the k-th record (0: data.pkl, 3: data/0). */
static file patched(const char *signature, size_t k, size_t at, uint64_t value, size_t n)
{
    file f = good_archive();
    unsigned char *bytes = record(&f, signature, k) + at;
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(value >> (8 * i));
    return f;
}

static file storage_entry_of_4_gb(void)
{
    file f = patched(CENTRAL, 3, 20, 0xfffffff0, 4);
    memset(record(&f, CENTRAL, 3) + 24, 0xf0, 4);
    return f;
}

static file stored_bomb(void)
{
    return patched(CENTRAL, 3, 24, 0x7fffffff, 4);
}

static file pickle_entry_past_the_end(void)
{
    file f = patched(CENTRAL, 0, 20, 5000, 4);
    unsigned char *bytes = record(&f, CENTRAL, 0) + 24;
    bytes[0] = 5000 & 0xff, bytes[1] = 5000 >> 8;
    return f;
}

static file header_outside_the_file(void)
{
    return patched(CENTRAL, 3, 42, 0x7fffffff, 4);
}

static file header_in_another_entry(void)
{
    return patched(CENTRAL, 3, 42, 7, 4);
}

static file encrypted(void)
{
    file f = patched(CENTRAL, 3, 8, 1, 2);
    record(&f, LOCAL, 3)[6] |= 1;
    return f;
}

static file more_entries_than_there_are(void)
{
    file f = patched(END, 0, 8, 60000, 2);
    unsigned char *end = record(&f, END, 0);
    memcpy(end + 10, end + 8, 2);
    return f;
}

static file directory_outside_the_file(void)
{
    return patched(END, 0, 16, 0x7fffff00, 4);
}

static file same_entry_twice(void)
{
    file f = archive_with("m/data.pkl", "m/data/0", (pth_entry){ "m/data/1", four, 16, false });
    record(&f, LOCAL, 2)[30 + 7] = '0';
    record(&f, CENTRAL, 2)[46 + 7] = '0';
    return f;
}

/* A ZIP64 end record that claims n entries, in an otherwise good archive. */
static file claiming(uint64_t n)
{
    file good = good_archive();
    size_t end = (size_t)(record(&good, END, 0) - good.bytes);
    pth_bytes b = { 0 };
    pth_put(&b, good.bytes, end);
    pth_op(&b, "PK\x06\x06");
    pth_number(&b, 44, 8);
    pth_number(&b, 0x002d002d, 4);
    pth_number(&b, 0, 8);
    pth_number(&b, n, 8);
    pth_number(&b, n, 8);
    uint64_t at = 0, bytes = 0;
    memcpy(&bytes, good.bytes + end + 12, 4);
    memcpy(&at, good.bytes + end + 16, 4);
    pth_number(&b, bytes, 8);
    pth_number(&b, at, 8);
    pth_op(&b, "PK\x06\x07");
    pth_number(&b, 0, 4);
    pth_number(&b, end, 8);
    pth_number(&b, 1, 4);
    pth_op(&b, END);
    pth_number(&b, 0, 4);
    pth_number(&b, UINT32_MAX, 4);
    pth_number(&b, UINT64_MAX, 8);
    pth_number(&b, 0, 2);
    free(good.bytes);
    return (file){ b.at, b.n };
}

static file millions_of_entries(void)
{
    return claiming(50000000);
}

static file entries_overflow(void)
{
    return claiming(UINT64_MAX / 8);
}

static file end_records_without_end(void)
{
    file f = good_archive();
    pth_bytes b = { 0 };
    pth_put(&b, f.bytes, f.n);
    free(f.bytes);
    for (int i = 0; i < 2000; i++) {
        pth_op(&b, END);
        pth_number(&b, 0, 18);
    }
    return (file){ b.at, b.n };
}

static file no_directory(void)
{
    file f = good_archive();
    f.n = (size_t)(record(&f, CENTRAL, 0) - f.bytes);
    return f;
}

static file four_bytes(void)
{
    file f = good_archive();
    f.n = 4;
    return f;
}

static file zeros_behind_the_magic(void)
{
    file f = good_archive();
    memset(f.bytes + 4, 0, f.n - 4);
    return f;
}

/* ---- legacy streams ------------------------------------------------------------------------- */

/* The good stream: head, object, keys, one storage. */
static file legacy_of(const char *keys, size_t n_keys, uint64_t count, size_t n_data)
{
    pth_bytes b = { 0 }, object = good_pickle(true);
    pth_legacy_head(&b);
    pth_put(&b, object.at, object.n);
    free(object.at);
    pth_put(&b, keys, n_keys);
    pth_number(&b, count, 8);
    pth_put(&b, four, n_data);
    return (file){ b.at, b.n };
}

#define GOOD_KEYS               \
    RAW("\x80\x02](X\x01\0\0\0" \
        "0e.")

static file good_legacy(void)
{
    return legacy_of(GOOD_KEYS, 4, sizeof four);
}

/* Bytes `from` of the good stream become `to`, of the same length. */
static file legacy_with(const char *from, const char *to, size_t n)
{
    file f = good_legacy();
    for (size_t i = 0; i + n <= f.n; i++)
        if (memcmp(f.bytes + i, from, n) == 0) {
            memcpy(f.bytes + i, to, n);
            return f;
        }
    fail_msg("the stream has no such bytes");
    return f;
}

static file legacy_magic(void)
{
    return legacy_with("\x6c\xfc", "\x6c\xfd", 2);
}

static file legacy_protocol(void)
{
    return legacy_with("M\xe9\x03.", "M\xea\x03.", 4);
}

static file legacy_big_endian(void)
{
    return legacy_with("endian\x88", "endian\x89", 7);
}

static file legacy_without_endianness(void)
{
    return legacy_with("little_", "LITTLE_", 7);
}

static file legacy_count(void)
{
    return legacy_of(GOOD_KEYS, 5, sizeof four);
}

static file legacy_count_of_all_ones(void)
{
    return legacy_of(GOOD_KEYS, UINT64_MAX, sizeof four);
}

static file legacy_data_cut(void)
{
    return legacy_of(GOOD_KEYS, 4, sizeof four - 1);
}

static file legacy_keys_are_a_dict(void)
{
    return legacy_of(RAW("\x80\x02}."), 4, sizeof four);
}

static file legacy_key_is_a_number(void)
{
    return legacy_of(RAW("\x80\x02](K\x00"
                         "e."),
                     4, sizeof four);
}

static file legacy_key_unknown(void)
{
    return legacy_of(RAW("\x80\x02](X\x01\0\0\0"
                         "9e."),
                     4, sizeof four);
}

static file legacy_key_twice(void)
{
    return legacy_of(RAW("\x80\x02](" KEY0 KEY0 "e."), 4, sizeof four);
}

static file legacy_key_missing(void)
{
    return legacy_of(RAW("\x80\x02]."), 4, sizeof four);
}

static file legacy_global(void)
{
    pth_bytes b = { 0 };
    pth_legacy_head(&b);
    pth_op(&b, P2 "cposix\nsystem\n(");
    pth_text(&b, "id");
    pth_op(&b, "tR.");
    return (file){ b.at, b.n };
}

/* Megabytes without a STOP: the window grows, and ends at the file. */
static file legacy_without_end(void)
{
    pth_bytes b = { 0 };
    pth_legacy_head(&b);
    pth_op(&b, "\x80\x02X");
    pth_number(&b, 0x7fffffff, 4);
    for (int i = 0; i < 50000; i++)
        pth_number(&b, 0, 8);
    return (file){ b.at, b.n };
}

static const built_file BUILT[] = {
    { "no_data_pkl", no_data_pkl, "no data.pkl" },
    { "data_pkl_too_deep", data_pkl_too_deep, "no data.pkl" },
    { "two_data_pkl", two_data_pkl, "a second data.pkl" },
    { "torchscript", torchscript, "TorchScript" },
    { "big_endian", big_endian, "big-endian" },
    { "odd_byteorder", odd_byteorder, "neither little nor big" },
    { "compressed_pickle", compressed_pickle, "compressed (method 8)" },
    { "compressed_storage", compressed_storage, "compressed (method 8)" },
    { "storage_entry_of_4_gb", storage_entry_of_4_gb, "offset" },
    { "stored_bomb", stored_bomb, "offset" },
    { "pickle_entry_past_the_end", pickle_entry_past_the_end, "offset" },
    { "header_outside_the_file", header_outside_the_file, "offset" },
    { "header_in_another_entry", header_in_another_entry, "offset" },
    { "encrypted", encrypted, "encrypted" },
    { "more_entries_than_there_are", more_entries_than_there_are, "zip archive" },
    { "directory_outside_the_file", directory_outside_the_file, "zip archive" },
    { "same_entry_twice", same_entry_twice, "two entries" },
    { "millions_of_entries", millions_of_entries, "claims 50000000 entries" },
    { "entries_overflow", entries_overflow, "claims" },
    { "end_records_without_end", end_records_without_end, "end records" },
    { "no_directory", no_directory, "zip archive" },
    { "four_bytes", four_bytes, "zip archive" },
    { "zeros_behind_the_magic", zeros_behind_the_magic, "zip archive" },

    { "legacy_magic", legacy_magic, "magic number" },
    { "legacy_protocol", legacy_protocol, "not 1001" },
    { "legacy_big_endian", legacy_big_endian, "big-endian" },
    { "legacy_without_endianness", legacy_without_endianness, "little_endian" },
    { "legacy_count", legacy_count, "has 5 elements here, and 4 in the pickle" },
    { "legacy_count_of_all_ones", legacy_count_of_all_ones, "18446744073709551615" },
    { "legacy_data_cut", legacy_data_cut, "past the end" },
    { "legacy_keys_are_a_dict", legacy_keys_are_a_dict, "not a list" },
    { "legacy_key_is_a_number", legacy_key_is_a_number, "not a text" },
    { "legacy_key_unknown", legacy_key_unknown, "no tensor mentions" },
    { "legacy_key_twice", legacy_key_twice, "twice" },
    { "legacy_key_missing", legacy_key_missing, "not in the list" },
    { "legacy_global", legacy_global, "posix.system is not something" },
    { "legacy_without_end", legacy_without_end, "the pickle ends" },
};

/* ---- tests ---------------------------------------------------------------------------------- */

static void test_built(void **state)
{
    (void)state;
    check_all_refused(BUILT, COUNT(BUILT));
}

static void test_good(void **state)
{
    (void)state;
    file zip = good_archive(), legacy = good_legacy();
    check_accepted("zip", zip.bytes, zip.n, 1);
    check_accepted("legacy", legacy.bytes, legacy.n, 1);
    free(zip.bytes);
    free(legacy.bytes);
}

static void check_truncated(const file *f)
{
    for (size_t n = 0; n < f->n; n++) {
        corvid_status status = parse_copy(f->bytes, n);
        if (status != CORVID_E_FORMAT) fail_msg("cut to %zu bytes: status %d", n, (int)status);
    }
}

static void test_truncated_files(void **state)
{
    (void)state;
    file zip = good_archive(), legacy = good_legacy();
    check_truncated(&zip);
    check_truncated(&legacy);
    free(zip.bytes);
    free(legacy.bytes);
}

/* Any bit may flip: the file is refused, or opens with some other content; nothing else. */
static void check_bit_flips(file *f)
{
    for (size_t bit = 0; bit < 8 * f->n; bit++) {
        f->bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        corvid_status status = parse_copy(f->bytes, f->n);
        if (status != CORVID_OK && status != CORVID_E_FORMAT)
            fail_msg("bit %zu: status %d", bit, (int)status);
        f->bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}

static void test_bit_flips(void **state)
{
    (void)state;
    file zip = good_archive(), legacy = good_legacy();
    check_bit_flips(&zip);
    check_bit_flips(&legacy);
    free(zip.bytes);
    free(legacy.bytes);
}

/* ---- the fuzzer's corpus -------------------------------------------------------------------- */

static void write_corpus(const char *folder)
{
    file zip = good_archive(), legacy = good_legacy();
    write_case(folder, "good_zip", zip.bytes, zip.n);
    write_case(folder, "good_legacy", legacy.bytes, legacy.n);
    write_all(folder, BUILT, COUNT(BUILT));
    free(zip.bytes);
    free(legacy.bytes);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        write_corpus(argv[2]);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_built),
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_truncated_files),
        cmocka_unit_test(test_bit_flips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
