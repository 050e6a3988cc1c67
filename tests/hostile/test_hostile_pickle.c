/* test_hostile_pickle.c - PyTorch checkpoints whose pickle is malformed or malicious, each refused.
 *
 * Pickles given byte by byte, tensors given by their numbers, and pickles that a function builds,
 * all in archives that are whole; the archives' own failures are in test_hostile_pth.c.
 * `test_hostile_pickle --write FOLDER` writes them as a corpus for the fuzzer. */
#include "pth_files.h"

/* ---- pickles byte by byte ------------------------------------------------------------------- */

typedef struct raw_pickle {
    const char *name, *bytes;
    size_t n;
    const char *needle;
} raw_pickle;

#define PID(inside) "\x80\x02(" inside "tQ."
#define FLOATS      "ctorch\nFloatStorage\n"
#define STORAGE     "X\x07\0\0\0storage"

static const raw_pickle RAW_PICKLES[] = {
    /* Globals. */
    { "os_system", RAW(P2 "cos\nsystem\n(X\x02\0\0\0idtR."),
      "os.system is not something a checkpoint needs; refused" },
    { "builtins_eval",
      RAW(P2 "c__builtin__\neval\n(X\x01\0\0\0"
             "1tR."),
      "__builtin__.eval" },
    { "getattr_through_the_stack",
      RAW("\x80\x04\x8c\x08"
          "builtins\x8c\x07getattr\x93)R."),
      "builtins.getattr is not" },
    { "torch_load_in_torch_load", RAW(P2 "ctorch.storage\n_load_from_bytes\n)R."),
      "torch.storage._load_from_bytes" },
    { "dotted_name",
      RAW("\x80\x04\x8c\x0b"
          "collections\x8c\x10OrderedDict.copy\x93)R."),
      "collections.OrderedDict.copy" },
    { "global_with_control_characters", RAW(P2 "co\x1b[s\n\x07\n)R."), "o?[s.?" },
    { "global_without_end", RAW(P2 "ctorch"), "does not end" },
    { "global_name_is_a_number", RAW("\x80\x04K\x01K\x02\x93."), "not a text" },
    { "complex_storage", RAW(P2 "ctorch\nComplexFloatStorage\n."), "complex tensors" },
    { "quantized_tensor", RAW(P2 "ctorch._utils\n_rebuild_qtensor\n)R."), "quantized" },
    { "sparse_tensor", RAW(P2 "ctorch._utils\n_rebuild_sparse_tensor\n)R."), "sparse" },
    { "untyped_storage", RAW(P2 "ctorch.storage\nUntypedStorage\n."), "element type" },
    { "storage_class_is_called", RAW("\x80\x02" FLOATS ")R."), "is not called" },
    { "call_of_no_global", RAW("\x80\x02K\x01)R."), "no global" },
    { "arguments_are_no_tuple", RAW(P2 "ccollections\nOrderedDict\nK\x01R."), "not a tuple" },
    { "ordered_dict_of_a_number", RAW(P2 "ccollections\nOrderedDict\nK\x01\x85R."),
      "list of pairs" },
    { "ordered_dict_of_no_pairs",
      RAW(P2 "ccollections\nOrderedDict\n](K\x01K\x02"
             "e\x85R."),
      "not a pair" },
    { "parameter_of_nothing", RAW(P2 "ctorch._utils\n_rebuild_parameter\n)R."), "takes a tensor" },
    { "tensor_of_nothing", RAW(P2 "ctorch._utils\n_rebuild_tensor_v2\n)R."), "a tensor takes" },
    /* Opcodes. */
    { "unknown_opcode", RAW("\x80\x02\xff."), "0xff is no opcode" },
    { "zero_opcode", RAW("\0\0\0\0"), "0x00 is no opcode" },
    { "inst", RAW("\x80\x02(ios\nsystem\n."), "opcode INST" },
    { "obj", RAW("\x80\x02(cos\nsystem\no."), "os.system" },
    { "dup", RAW("\x80\x02N2."), "opcode DUP" },
    { "pop", RAW("\x80\x02N0."), "opcode POP" },
    { "extension", RAW("\x80\x02\x82\x01."), "opcode EXT1" },
    { "newobj_ex", RAW("\x80\x04\x92."), "opcode NEWOBJ_EX" },
    { "long4", RAW("\x80\x02\x8b\xff\xff\xff\x7f."), "opcode LONG4" },
    { "text_persistent_id", RAW("\x80\x02P1\n."), "opcode PERSID" },
    { "next_buffer", RAW("\x80\x05\x97."), "opcode NEXT_BUFFER" },
    { "protocol_9", RAW("\x80\x09}."), "protocol 9" },
    { "protocol_0_text", RAW("(dp0\nS'a'\nI1\ns."), "opcode DICT" },
    /* Lengths. */
    { "empty_pickle", RAW(""), "0 bytes" },
    { "no_stop", RAW("\x80\x02}"), "the pickle ends" },
    { "text_of_4_gib",
      RAW("\x80\x02X\xff\xff\xff\xff"
          "abc."),
      "wanted 4294967295" },
    { "bytes_of_2_gib",
      RAW("\x80\x03"
          "B\xff\xff\xff\x7f"
          "abc."),
      "wanted 2147483647" },
    { "short_text_past_the_end",
      RAW("\x80\x04\x8c\xff"
          "abc."),
      "wanted 255" },
    { "integer_of_255_bytes", RAW("\x80\x02\x8a\xff."), "an integer of 255 bytes" },
    { "float_cut", RAW("\x80\x02G\x3f\xf0"), "wanted 8" },
    /* Stack and memo. */
    { "stop_on_an_empty_stack", RAW("\x80\x02."), "finds 0" },
    { "reduce_on_an_empty_stack", RAW("\x80\x02R."), "finds 0" },
    { "tuple3_of_two", RAW("\x80\x02NN\x87."), "needs 3" },
    { "tuple_across_a_mark", RAW("\x80\x02N(\x85."), "finds 0" },
    { "setitem_across_a_mark", RAW("\x80\x02}(NNs."), "finds 0" },
    { "tuple_without_mark", RAW("\x80\x02Nt."), "no mark" },
    { "setitems_without_dict", RAW("\x80\x02(NNu."), "finds 0" },
    { "setitems_on_a_list", RAW("\x80\x02](NNu."), "expects a dict" },
    { "appends_on_a_dict", RAW("\x80\x02}(Ne."), "expects a list" },
    { "append_on_a_tuple", RAW("\x80\x02)Na."), "expects a list" },
    { "key_without_value", RAW("\x80\x02}(NNNu."), "without a value" },
    { "values_left_over", RAW("\x80\x02NN."), "left over" },
    { "mark_as_the_root", RAW("\x80\x02(."), "finds 0" },
    { "build_on_a_number", RAW("\x80\x02K\x01}b."), "has none" },
    { "memo_index_of_4_billion", RAW("\x80\x02Nr\xff\xff\xff\xff."), "memo index 4294967295" },
    { "memo_never_written", RAW("\x80\x02h\x05."), "memo entry 5" },
    { "memo_of_nothing", RAW("\x80\x02q\x00."), "finds 0" },
    { "memo_of_a_mark", RAW("\x80\x02(q\x00."), "finds 0" },
    /* Persistent ids. */
    { "persistent_id_no_tuple", RAW("\x80\x02NQ."), "not a tuple" },
    { "persistent_id_of_two", RAW(PID("NN")), "5 or 6" },
    { "persistent_id_module", RAW(PID("X\x06\0\0\0moduleNNNN")), "does not begin" },
    { "storage_without_class", RAW(PID(STORAGE "N" KEY0 "NK\x04")), "no storage class" },
    { "storage_class_is_a_dict", RAW(PID(STORAGE "ccollections\nOrderedDict\n" KEY0 "NK\x04")),
      "no storage class" },
    { "storage_key_is_a_number", RAW(PID(STORAGE FLOATS "K\x00NK\x04")), "not a text" },
    { "storage_count_is_negative", RAW(PID(STORAGE FLOATS KEY0 "NJ\xff\xff\xff\xff")),
      "number >= 0" },
    { "storage_count_is_a_text", RAW(PID(STORAGE FLOATS KEY0 "NX\0\0\0\0")), "number >= 0" },
    { "storage_bytes_overflow", RAW(PID(STORAGE FLOATS KEY0 "N\x8a\x08\0\0\0\0\0\0\0\x40")),
      "claims" },
    { "storage_is_a_view", RAW(PID(STORAGE FLOATS KEY0 "NK\x04)")), "view of another" },
    { "one_storage_of_two_sizes",
      RAW("\x80\x02(" STORAGE FLOATS KEY0 "NK\x04tQ(" STORAGE FLOATS KEY0 "NK\x05tQ\x86."),
      "was 4 x f32 before" },
    { "one_storage_of_two_types",
      RAW("\x80\x02(" STORAGE FLOATS KEY0 "NK\x04tQ(" STORAGE "ctorch\nIntStorage\n" KEY0
          "NK\x04tQ\x86."),
      "was 4 x f32 before" },
    /* Roots. */
    { "root_is_a_list", RAW("\x80\x02]."), "the root is a list" },
    { "root_is_a_number", RAW("\x80\x02K\x07."), "the root is an int" },
    { "root_is_none", RAW("\x80\x02N."), "the root is None" },
    { "root_is_a_storage", RAW(PID(STORAGE FLOATS KEY0 "NK\x04")), "an object" },
    { "root_is_a_configuration", RAW(P2 "cyacs.config\nCfgNode\n)\x81}b."), "an object" },
    { "no_tensors", RAW("\x80\x02}."), "no tensors" },
    { "only_numbers", RAW("\x80\x02}X\x05\0\0\0epochK\x03s."), "no tensors" },
    { "chatrwkv_strategy", RAW("\x80\x02}X\x09\0\0\0_strategyX\x08\0\0\0cpu fp32s."),
      "ChatRWKV has converted" },
    { "chatrwkv_rescale", RAW("\x80\x02}X\x0e\0\0\0_rescale_layerK\x06s."), "use the original" },
    { "dict_in_itself", RAW("\x80\x02}q\0X\x01\0\0\0ah\0s."), "contains itself" },
    { "state_dict_in_itself", RAW("\x80\x02}q\0X\x0a\0\0\0state_dicth\0s."), "contains itself" },
};

/* ---- one tensor each ------------------------------------------------------------------------ */

typedef struct hostile_tensor {
    const char *name, *key;
    int64_t count, first;
    size_t n_dims, n_strides;
    int64_t dims[10], strides[10];
    const char *needle;
} hostile_tensor;

#define HUGE_DIM ((int64_t)1 << 62)

static const hostile_tensor TENSORS[] = {
    { "storage_beyond_its_entry", "0", 5, 0, 1, 1, { 4 }, { 1 }, "data/0 has 16 bytes" },
    { "storage_far_beyond_its_entry",
      "0",
      (int64_t)1 << 60,
      0,
      1,
      1,
      { 4 },
      { 1 },
      "has 16 bytes" },
    { "entry_is_missing", "7", 4, 0, 1, 1, { 4 }, { 1 }, "no entry data/7" },
    { "key_leaves_the_folder", "../../../etc/passwd", 4, 0, 1, 1, { 4 }, { 1 }, "no entry data/" },
    { "key_is_empty", "", 4, 0, 1, 1, { 4 }, { 1 }, "no entry data/" },
    { "offset_beyond_the_storage", "0", 4, 1, 1, 1, { 4 }, { 1 }, "reaches element 4" },
    { "offset_is_huge", "0", 4, INT64_MAX, 1, 1, { 4 }, { 1 }, "reaches element" },
    { "offset_of_a_scalar", "0", 4, 4, 0, 0, { 0 }, { 0 }, "reaches element 4" },
    { "offset_is_negative", "0", 4, -1, 1, 1, { 4 }, { 1 }, "offset is -1" },
    { "stride_beyond_the_storage", "0", 4, 0, 1, 1, { 3 }, { 2 }, "reaches element 4" },
    { "strides_overflow", "0", 4, 0, 1, 1, { 5 }, { HUGE_DIM }, "strides overflow" },
    { "sum_of_strides_overflows",
      "0",
      4,
      0,
      3,
      3,
      { 2, 2, 2 },
      { INT64_MAX, INT64_MAX, INT64_MAX },
      "strides overflow" },
    { "size_is_negative", "0", 4, 0, 1, 1, { -4 }, { 1 }, "size 0 is -4" },
    { "stride_is_negative", "0", 4, 3, 1, 1, { 4 }, { -1 }, "stride 0 is -1" },
    { "product_overflows",
      "0",
      4,
      0,
      3,
      3,
      { HUGE_DIM, HUGE_DIM, 16 },
      { 0, 0, 0 },
      "product of the tensor's sizes overflows" },
    { "product_overflows_beside_a_zero",
      "0",
      4,
      0,
      3,
      3,
      { HUGE_DIM, HUGE_DIM, 0 },
      { 0, 0, 0 },
      "overflows" },
    { "expanded_beyond_reason",
      "0",
      4,
      0,
      2,
      2,
      { (int64_t)1 << 40, 4 },
      { 0, 1 },
      "past the end of the file" },
    { "overlapping_rows",
      "0",
      4,
      0,
      8,
      8,
      { 2, 2, 2, 2, 2, 2, 2, 128 },
      { 0, 0, 0, 0, 0, 0, 0, 0 },
      "past the end of the file" },
    { "fewer_strides_than_sizes", "0", 4, 0, 2, 1, { 2, 2 }, { 1 }, "2 sizes and 1 strides" },
    { "nine_dims",
      "0",
      4,
      0,
      9,
      9,
      { 1, 1, 1, 1, 1, 1, 1, 1, 1 },
      { 1, 1, 1, 1, 1, 1, 1, 1, 1 },
      "9 dimensions" },
};

static file tensor_file(const hostile_tensor *t)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02}");
    pth_text(&b, "w");
    pth_global(&b, "torch._utils", "_rebuild_tensor_v2");
    pth_op(&b, "(");
    pth_storage(&b, "FloatStorage", t->key, t->count, false);
    pth_int(&b, t->first);
    pth_sizes(&b, t->dims, t->n_dims);
    pth_sizes(&b, t->strides, t->n_strides);
    pth_op(&b, "\x89NtRs.");
    return archive_of(&b);
}

/* ---- pickles that a function builds --------------------------------------------------------- */

static void repeat(pth_bytes *b, const char *ops, size_t n)
{
    for (size_t i = 0; i < n; i++)
        pth_op(b, ops);
}

/* {name: tensor} */
static file named(const char *name)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02}");
    pth_text(&b, name);
    put_four(&b, false);
    pth_op(&b, "s.");
    return archive_of(&b);
}

static file same_name_twice(void)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02}(");
    for (int i = 0; i < 2; i++) {
        pth_text(&b, "w");
        put_four(&b, false);
    }
    pth_op(&b, "u.");
    return archive_of(&b);
}

/* "a.b" and {"a": {"b"}} come to the same. */
static file same_name_through_a_dict(void)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02}(");
    pth_text(&b, "a.b");
    put_four(&b, false);
    pth_text(&b, "a");
    pth_op(&b, "}");
    pth_text(&b, "b");
    put_four(&b, false);
    pth_op(&b, "su.");
    return archive_of(&b);
}

static file long_name(void)
{
    char name[601];
    memset(name, 'n', 600);
    name[600] = '\0';
    return named(name);
}

static file name_with_newline(void)
{
    return named("a\nb");
}

static file name_not_utf8(void)
{
    return named("a\xc3(");
}

static file name_with_zero(void)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02}");
    pth_put(&b, RAW("X\x03\0\0\0a\0b"));
    put_four(&b, false);
    pth_op(&b, "s.");
    return archive_of(&b);
}

static file key_with_zero(void)
{
    const int64_t sizes[] = { 4 }, strides[] = { 1 };
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02}");
    pth_text(&b, "w");
    pth_tensor(&b, "FloatStorage", "0#1", 4, 0, sizes, strides, 1, false);
    pth_op(&b, "s.");
    *(char *)memchr(b.at, '#', b.n) = '\0';
    return archive_of(&b);
}

static file lists_in_lists(void)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02");
    repeat(&b, "]", 5000);
    repeat(&b, "a", 4999);
    pth_op(&b, ".");
    return archive_of(&b);
}

static file tuples_in_tuples(void)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02N");
    repeat(&b, "\x85", 10000);
    pth_op(&b, ".");
    return archive_of(&b);
}

static file marks(void)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02");
    repeat(&b, "(", 10000);
    return archive_of(&b);
}

static file values_without_end(void)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02");
    repeat(&b, "N", 70000);
    return archive_of(&b);
}

/* Two bytes make a dict, and room for it in the list. */
static file empty_dicts(void)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02]");
    repeat(&b, "}a", 100000);
    pth_op(&b, ".");
    return archive_of(&b);
}

/* One byte of MEMOIZE makes an entry of sixteen. */
static file memo_without_end(void)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x04N");
    repeat(&b, "\x94", 500000);
    pth_op(&b, ".");
    return archive_of(&b);
}

/* Each dict holds the one before it twice: 2^15 names of one tensor in the last. */
static file dicts_that_multiply(void)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02}");
    pth_text(&b, "d0");
    pth_op(&b, "}");
    pth_text(&b, "w");
    put_four(&b, false);
    pth_op(&b, "sq\x01s");
    for (int level = 1; level <= 15; level++) {
        char name[2] = "";
        name[0] = (char)('a' + level);
        pth_text(&b, name);
        pth_op(&b, "}(");
        pth_text(&b, "a");
        pth_op(&b, "h\x01");
        pth_text(&b, "b");
        pth_op(&b, "h\x01uq\x01s");
    }
    pth_op(&b, ".");
    return archive_of(&b);
}

/* Seven bytes name the tensor once more, and an entry of the list takes some two hundred. */
static file one_tensor_of_many_names(void)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02}");
    pth_text(&b, "w");
    put_four(&b, false);
    pth_op(&b, "q\x01s");
    for (unsigned i = 0; i < 60000; i++) {
        const char key[4] = { (char)('0' + i / 4096), (char)('0' + i / 64 % 64),
                              (char)('0' + i % 64), '\0' };
        pth_op(&b, "\x8c\x03");
        pth_op(&b, key);
        pth_op(&b, "h\x01s");
    }
    pth_op(&b, ".");
    return archive_of(&b);
}

static file dicts_too_deep(void)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02");
    for (int level = 0; level < 40; level++) {
        pth_op(&b, "}");
        pth_text(&b, "d");
    }
    put_four(&b, false);
    repeat(&b, "s", 40);
    pth_op(&b, ".");
    return archive_of(&b);
}

static const built_file BUILT[] = {
    { "same_name_twice", same_name_twice, "tensor \"w\" is there twice" },
    { "same_name_through_a_dict", same_name_through_a_dict, "tensor \"a.b\" is there twice" },
    { "long_name", long_name, "more than 500 bytes" },
    { "name_with_newline", name_with_newline, "tensor \"a?b\"" },
    { "name_not_utf8", name_not_utf8, "not printable" },
    { "name_with_zero", name_with_zero, "tensor \"a?b\"" },
    { "key_with_zero", key_with_zero, "no entry" },
    { "lists_in_lists", lists_in_lists, "nested more than" },
    { "tuples_in_tuples", tuples_in_tuples, "nested more than" },
    { "marks", marks, "open marks" },
    { "values_without_end", values_without_end, "values on the stack" },
    { "empty_dicts", empty_dicts, "out of all proportion" },
    { "memo_without_end", memo_without_end, "out of all proportion" },
    { "dicts_that_multiply", dicts_that_multiply, "repeated" },
    { "one_tensor_of_many_names", one_tensor_of_many_names, "out of all proportion" },
    { "dicts_too_deep", dicts_too_deep, "nested too deep" },
};

/* ---- tests ---------------------------------------------------------------------------------- */

static file raw_file(const raw_pickle *p)
{
    pth_bytes b = { 0 };
    pth_put(&b, p->bytes, p->n);
    return archive_of(&b);
}

static void test_raw_pickles(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(RAW_PICKLES); i++) {
        file f = raw_file(&RAW_PICKLES[i]);
        check_refused(RAW_PICKLES[i].name, f.bytes, f.n, RAW_PICKLES[i].needle);
        free(f.bytes);
    }
}

static void test_tensors(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(TENSORS); i++) {
        file f = tensor_file(&TENSORS[i]);
        check_refused(TENSORS[i].name, f.bytes, f.n, TENSORS[i].needle);
        free(f.bytes);
    }
}

static void test_built(void **state)
{
    (void)state;
    check_all_refused(BUILT, COUNT(BUILT));
}

/* The pickle cut at every byte, in an archive that is whole. */
static void test_truncated_pickle(void **state)
{
    (void)state;
    pth_bytes pickle = good_pickle(false);
    for (size_t n = 0; n < pickle.n; n++) {
        pth_bytes part = { 0 };
        pth_put(&part, pickle.at, n);
        file f = archive_of(&part);
        corvid_status status = parse_copy(f.bytes, f.n);
        if (status != CORVID_E_FORMAT) fail_msg("cut to %zu bytes: status %d", n, (int)status);
        free(f.bytes);
    }
    free(pickle.at);
}

/* ---- the fuzzer's corpus -------------------------------------------------------------------- */

/* A bare pickle is marked by the byte before it (fuzz_pth.c). */
static void write_corpus(const char *folder)
{
    pth_bytes b = { 0 }, good = good_pickle(false);
    pth_op(&b, "!");
    pth_put(&b, good.at, good.n);
    write_case(folder, "pickle_good", b.at, b.n);
    for (size_t i = 0; i < COUNT(RAW_PICKLES); i++) {
        char name[128];
        snprintf(name, sizeof name, "pickle_%s", RAW_PICKLES[i].name);
        b.n = 1;
        pth_put(&b, RAW_PICKLES[i].bytes, RAW_PICKLES[i].n);
        write_case(folder, name, b.at, b.n);
    }
    for (size_t i = 0; i < COUNT(TENSORS); i++) {
        file f = tensor_file(&TENSORS[i]);
        write_case(folder, TENSORS[i].name, f.bytes, f.n);
        free(f.bytes);
    }
    write_all(folder, BUILT, COUNT(BUILT));
    free(good.at);
    free(b.at);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        write_corpus(argv[2]);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw_pickles),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_built),
        cmocka_unit_test(test_truncated_pickle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
