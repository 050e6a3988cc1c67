/* test_hostile_safetensors.c - malformed safetensors files, one per rule, each refused.
 *
 * `test_hostile_safetensors --write FOLDER` writes the small ones as a corpus for the fuzzer. */
#include "refusal.h"

/* A header with its size (it may hold zeros), and how many bytes of data follow. */
#define JSON(text) text, sizeof(text) - 1

#define U8_2(begin, end) "{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[" begin "," end "]}"

typedef struct hostile {
    const char *name, *json;
    size_t n, data;
    const char *needle;
    uint64_t claimed; /* the header's length; 0: the true one */
} hostile;

static const hostile CASES[] = {
    /* The length. */
    { "length_over_100_million", JSON("{}"), 0, "at most 100000000", 100000001 },
    { "length_past_the_end", JSON("{}"), 0, "the file has 10", 3 },
    { "length_of_all_ones", JSON("{}"), 0, "at most 100000000", UINT64_MAX },
    { "length_whose_sum_wraps", JSON("{}"), 0, "at most 100000000", UINT64_MAX - 7 },
    { "length_cuts_the_json", JSON("{\"a\":" U8_2("0", "2") "}"), 2, "offset 17", 9 },
    { "length_of_one", JSON("{}"), 0, "offset 9", 1 },
    /* The JSON. */
    { "space_before_the_brace", JSON(" {}"), 0, "known formats", 0 },
    { "a_list_instead_of_an_object", JSON("[]"), 0, "known formats", 0 },
    { "not_utf8", JSON("{\"\xff\xfe\":" U8_2("0", "2") "}"), 2, "offset 10", 0 },
    { "overlong_utf8", JSON("{\"\xc0\x80\":" U8_2("0", "2") "}"), 2, "offset 10", 0 },
    { "zero_in_a_name", JSON("{\"a\\u0000b\":" U8_2("0", "2") "}"), 2, "not valid JSON", 0 },
    { "raw_zero_in_the_json", JSON("{\"a\0b\":" U8_2("0", "2") "}"), 2, "offset 11", 0 },
    { "lone_surrogate", JSON("{\"\\ud800\":" U8_2("0", "2") "}"), 2, "not valid JSON", 0 },
    { "no_closing_brace", JSON("{\"a\":" U8_2("0", "2")), 2, "',' or '}'", 0 },
    { "comma_before_the_brace", JSON("{\"a\":" U8_2("0", "2") ",}"), 2, "a name in quotes", 0 },
    { "no_colon", JSON("{\"a\" " U8_2("0", "2") "}"), 2, "':'", 0 },
    { "name_without_quotes", JSON("{a:" U8_2("0", "2") "}"), 2, "a name in quotes", 0 },
    { "second_object", JSON("{}{}"), 0, "only spaces", 0 },
    { "zeros_as_padding", JSON("{}\0\0"), 0, "only spaces", 0 },
    /* Duplicates. */
    { "same_tensor_twice", JSON("{\"a\":" U8_2("0", "2") ",\"a\":" U8_2("2", "4") "}"), 4,
      "tensor \"a\" is there twice", 0 },
    { "same_tensor_in_two_spellings",
      JSON("{\"a\":" U8_2("0", "2") ",\"\\u0061\":" U8_2("2", "4") "}"), 4, "there twice", 0 },
    { "same_key_twice_in_an_entry",
      JSON("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}"), 2,
      "duplicate", 0 },
    { "same_metadata_key_twice", JSON("{\"__metadata__\":{\"k\":\"1\",\"l\":\"\",\"k\":\"2\"}}"), 0,
      "\"k\" is there twice", 0 },
    { "metadata_twice", JSON("{\"__metadata__\":{},\"__metadata__\":{}}"), 0, "only once", 0 },
    { "metadata_number", JSON("{\"__metadata__\":{\"k\":1}}"), 0, "a text as the value", 0 },
    { "metadata_object", JSON("{\"__metadata__\":{\"k\":{}}}"), 0, "a text as the value", 0 },
    { "metadata_is_a_text", JSON("{\"__metadata__\":\"k\"}"), 0, "an object of texts", 0 },
    /* An entry. */
    { "entry_is_a_number", JSON("{\"a\":1}"), 0, "tensor \"a\": its entry is no object", 0 },
    { "no_dtype", JSON("{\"a\":{\"shape\":[2],\"data_offsets\":[0,2]}}"), 2, "no dtype", 0 },
    { "no_shape", JSON("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,2]}}"), 2, "no shape", 0 },
    { "no_offsets", JSON("{\"a\":{\"dtype\":\"U8\",\"shape\":[2]}}"), 2, "no data_offsets", 0 },
    { "one_offset", JSON("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2]}}"), 2,
      "no data_offsets", 0 },
    { "unknown_dtype", JSON("{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[0,2]}}"),
      2, "dtype \"F8_E4M3\" is not supported", 0 },
    { "dtype_in_small_letters",
      JSON("{\"a\":{\"dtype\":\"u8\",\"shape\":[2],\"data_offsets\":[0,2]}}"), 2,
      "dtype \"u8\" is not supported", 0 },
    { "negative_dim", JSON("{\"a\":{\"dtype\":\"U8\",\"shape\":[-2],\"data_offsets\":[0,2]}}"), 2,
      "dim 0 of its shape", 0 },
    { "real_dim", JSON("{\"a\":{\"dtype\":\"U8\",\"shape\":[2.0],\"data_offsets\":[0,2]}}"), 2,
      "dim 0 of its shape", 0 },
    { "dim_as_text", JSON("{\"a\":{\"dtype\":\"U8\",\"shape\":[\"2\"],\"data_offsets\":[0,2]}}"), 2,
      "dim 0 of its shape", 0 },
    { "dim_beyond_64_bits",
      JSON("{\"a\":{\"dtype\":\"U8\",\"shape\":[18446744073709551618],\"data_offsets\":[0,2]}}"), 2,
      "too big", 0 },
    { "nine_dims",
      JSON("{\"a\":{\"dtype\":\"U8\",\"shape\":[2,1,1,1,1,1,1,1,1],\"data_offsets\":[0,2]}}"), 2,
      "at most 8", 0 },
    { "product_overflows_to_the_right_size", /* 2^62 * 4 + 2 would wrap to 0 */
      JSON("{\"a\":{\"dtype\":\"U8\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}"),
      0, "product of its 2 dims overflows", 0 },
    { "product_overflows_in_bytes", /* 2^61 elements of 8 bytes */
      JSON("{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}"), 0,
      "expected the size of 2305843009213693952 elements", 0 },
    { "overflow_hidden_by_a_zero",
      JSON("{\"a\":{\"dtype\":\"U8\",\"shape\":[4611686018427387904,4,0],\"data_offsets\":[0,0]}}"),
      0, "overflows", 0 },
    /* The data. */
    { "size_too_small", JSON("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,2]}}"), 2,
      "hold 2 bytes", 0 },
    { "size_too_large", JSON("{\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,4]}}"), 4,
      "hold 4 bytes", 0 },
    { "offsets_descend", JSON("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,0]}}"), 2,
      "[2, 0], expected an ascending pair", 0 },
    { "offset_negative", JSON("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[-2,0]}}"),
      2, "no data_offsets", 0 },
    { "offsets_past_the_data", JSON("{\"a\":" U8_2("1", "3") "}"), 2, "within the 2 bytes", 0 },
    { "offsets_near_2_63", JSON("{\"a\":" U8_2("9223372036854775805", "9223372036854775807") "}"),
      2, "within the 2 bytes", 0 },
    { "hole_in_front", JSON("{\"a\":" U8_2("1", "3") "}"), 3, "a hole", 0 },
    { "hole_between", JSON("{\"a\":" U8_2("0", "2") ",\"b\":" U8_2("3", "5") "}"), 5,
      "tensor \"b\": its data begins", 0 },
    { "overlap", JSON("{\"a\":" U8_2("0", "2") ",\"b\":" U8_2("1", "3") "}"), 3,
      "overlapping tensors", 0 },
    { "same_data_for_two", JSON("{\"a\":" U8_2("0", "2") ",\"b\":" U8_2("0", "2") "}"), 2,
      "overlapping tensors", 0 },
    { "empty_tensor_inside_another",
      JSON("{\"a\":" U8_2("0",
                          "2") ",\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,1]}}"),
      2, "overlapping tensors", 0 },
    { "trailing_byte", JSON("{\"a\":" U8_2("0", "2") "}"), 3, "1 bytes more", 0 },
    { "data_without_tensors", JSON("{}"), 5, "5 bytes more", 0 },
    { "data_cut_short", JSON("{\"a\":" U8_2("0", "2") "}"), 1, "within the 1 bytes", 0 },
};

static const hostile ALLOWED[] = {
    { "allowed_nothing", JSON("{}"), 0, "", 0 },
    { "allowed_padding", JSON("{\"a\":" U8_2("0", "2") "} \n\t\r  "), 2, "", 0 },
    { "allowed_scalar", JSON("{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}"), 4,
      "", 0 },
    { "allowed_empty", JSON("{\"a\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[0,0]}}"),
      0, "", 0 },
    { "allowed_empty_name", JSON("{\"\":" U8_2("0", "2") "}"), 2, "", 0 },
    { "allowed_any_order_and_spaces",
      JSON("{ \"b\" : { \"data_offsets\" : [ 0 , 4 ] , \"shape\" : [ 1 , 2 ] , \"dtype\" : \"BF16\""
           " } ,\n\"__metadata__\" : { \"k\" : \"v\\u0000w\" , \"\xc3\xa4\":\"\" } }"),
      4, "", 0 },
};

/* ---- files in memory ------------------------------------------------------------------------ */

typedef struct file {
    unsigned char *bytes;
    size_t n;
} file;

static file make_file(const char *json, size_t n, size_t data, uint64_t claimed)
{
    file f = { calloc(1, 8 + n + data), 8 + n + data };
    if (!f.bytes) abort();
    uint64_t length = claimed ? claimed : n;
    for (int i = 0; i < 8; i++)
        f.bytes[i] = (unsigned char)(length >> (8 * i));
    memcpy(f.bytes + 8, json, n);
    for (size_t i = 0; i < data; i++)
        f.bytes[8 + n + i] = (unsigned char)(i + 1);
    return f;
}

static file make_case(const hostile *c)
{
    return make_file(c->json, c->n, c->data, c->claimed);
}

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void test_each_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(CASES); i++) {
        file f = make_case(&CASES[i]);
        check_refused(CASES[i].name, f.bytes, f.n, CASES[i].needle);
        free(f.bytes);
    }
}

static void test_allowed(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ALLOWED); i++) {
        file f = make_case(&ALLOWED[i]);
        check_accepted(ALLOWED[i].name, f.bytes, f.n, i == 0 ? 0 : 1);
        free(f.bytes);
    }
}

/* A valid file, cut after each of its bytes. */
static void test_cut_anywhere(void **state)
{
    (void)state;
    static const char json[] = "{\"__metadata__\":{\"k\":\"v\"},\"a\":" U8_2(
        "0", "2") ",\"b\":"
                  "{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[2,6]}}";
    file f = make_file(json, sizeof json - 1, 6, 0);
    check_accepted("whole", f.bytes, f.n, 2);
    for (size_t n = 0; n < f.n; n++) {
        char name[64];
        snprintf(name, sizeof name, "cut after %zu bytes", n);
        check_refused(name, f.bytes, n, n < 9 ? "offset 0" : "");
    }
    free(f.bytes);
}

/* The same file with one bit wrong: any verdict, but no crash, no leak, and no read past the end. */
static void test_every_bit(void **state)
{
    (void)state;
    static const char json[] = "{\"__metadata__\":{\"k\":\"v\"},\"a\":" U8_2("0", "2") "}";
    file f = make_file(json, sizeof json - 1, 2, 0);
    size_t refused = 0;
    for (size_t bit = 0; bit < 8 * f.n; bit++) {
        f.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        verdict v = parse_watched(f.bytes, f.n, 0, 0);
        refused += v.status == CORVID_E_FORMAT;
        assert_true(v.status == CORVID_E_FORMAT || v.status == CORVID_OK);
        check_memory("bit flip", f.n, &v);
        f.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    assert_true(refused > 4 * f.n); /* those in names, texts and data go unseen */
    free(f.bytes);
}

/* ---- big ones: memory in proportion --------------------------------------------------------- */

static file repeat(const char *head, const char *unit, size_t times, const char *tail)
{
    size_t a = strlen(head), b = strlen(unit), c = strlen(tail), n = a + b * times + c;
    char *json = malloc(n);
    if (!json) abort();
    memcpy(json, head, a);
    for (size_t i = 0; i < times; i++)
        memcpy(json + a + i * b, unit, b);
    memcpy(json + a + b * times, tail, c);
    file f = make_file(json, n, 0, 0);
    free(json);
    return f;
}

static void check_big(const char *name, file f, const char *needle)
{
    check_refused(name, f.bytes, f.n, needle);
    free(f.bytes);
}

static void test_nesting_bombs(void **state)
{
    (void)state;
    check_big("lists in lists", repeat("{\"a\":", "[", 30000, ""), "offset ");
    check_big("objects in objects", repeat("{", "\"a\":{", 10000, ""), "offset ");
    check_big("a list of a million lists", repeat("{\"a\":[", "[],", 1000000, "0]}"),
              "entry is longer than 65536 bytes");
    check_big("a list of a million numbers", repeat("{\"a\":[", "0,", 1000000, "0]}"),
              "entry is longer than 65536 bytes");
    check_big("half a million braces", repeat("{\"a\":", "{", 500000, "}"), "offset ");
    check_big("a megabyte of spaces", repeat("{", " ", 1000000, ""), "expected");
}

/* Many of the smallest members there are: the worst ratio of memory to bytes. */
static file many_members(const char *head, const char *format, size_t times, const char *tail)
{
    size_t room = strlen(head) + times * 64 + strlen(tail) + 1;
    char *json = malloc(room);
    if (!json) abort();
    size_t n = (size_t)snprintf(json, room, "%s", head);
    for (size_t i = 0; i < times; i++) {
        json[n] = ',';
        n += i > 0;
        json[n++] = '"';
        for (size_t k = i; k > 0; k /= 64)
            json[n++] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[k % 64];
        n += (size_t)snprintf(json + n, room - n, "\"%s", format);
    }
    n += (size_t)snprintf(json + n, room - n, "%s", tail);
    file f = make_file(json, n, 0, 0);
    free(json);
    return f;
}

static void test_many_members(void **state)
{
    (void)state;
    file tensors =
        many_members("{", ":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}", 60000, "}");
    verdict v = parse_watched(tensors.bytes, tensors.n, 0, 0);
    assert_int_equal(v.status, CORVID_E_FORMAT); /* no data is there */
    free(tensors.bytes);

    tensors =
        many_members("{", ":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", 60000, "}");
    v = parse_watched(tensors.bytes, tensors.n, 0, 0);
    assert_int_equal(v.status, CORVID_OK);
    check_memory("many empty tensors", tensors.n, &v);
    free(tensors.bytes);

    file metas = many_members("{\"__metadata__\":{", ":\"\"", 200000, "}}");
    v = parse_watched(metas.bytes, metas.n, 0, 0);
    assert_int_equal(v.status, CORVID_OK);
    check_memory("many metadata texts", metas.n, &v);
    free(metas.bytes);
}

/* ---- the corpus ----------------------------------------------------------------------------- */

static void write_corpus(const char *folder)
{
    for (size_t i = 0; i < COUNT(CASES) + COUNT(ALLOWED); i++) {
        const hostile *c = i < COUNT(CASES) ? &CASES[i] : &ALLOWED[i - COUNT(CASES)];
        file f = make_case(c);
        write_case(folder, c->name, f.bytes, f.n);
        free(f.bytes);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        write_corpus(argv[2]);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_rule),     cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_cut_anywhere),  cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_nesting_bombs), cmocka_unit_test(test_many_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
