/* Importance matrices: what is read in both forms, what is refused, and which model they belong to. */
#include <string.h>
#include <sys/mman.h>

#include "kernels/core/io.h"
#include "quant/importance.h"
#include "tests/data/bad/bad_files.h"
#include "tests/test.h"

enum { BUDGET_BYTES = 1 << 20 };

static struct importance *read_bytes(struct bytes content, size_t budget_bytes, int *ret_code, struct qd_error *err)
{
    CLEANUP(source_free) struct source *s = NULL;
    struct importance *i = NULL;
    int fd = memfd_create("imatrix", MFD_CLOEXEC);
    assert_true(fd >= 0 && write_whole(fd, content.data, content.n) == 0);
    assert_int_equal(source_from_fd(fd, "x.imatrix", &s, err), 0);
    *ret_code = importance_read(s, 0, budget_bytes, &i, err);
    return i;
}

static struct importance *read_good(void (*make)(struct buffer *dst))
{
    CLEANUP(buffer_clear) struct buffer file = {0};
    struct qd_error err = {0};
    int r;
    make(&file);
    struct importance *i = read_bytes(buffer_span(&file), BUDGET_BYTES, &r, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(r, 0);
    return i;
}

static void assert_values(const struct importance *i, const char *tensor, const float *want, size_t n)
{
    size_t is;
    const float *values = importance_of(i, tensor, &is);
    assert_non_null(values);
    assert_int_equal(is, n);
    assert_memory_equal(values, want, n * sizeof *want);
}

/* ---- reading -------------------------------------------------------------------------------- */

static void importance_read__gguf__sums_by_counts_and_ones_where_nothing_was_seen(void **state)
{
    (void)state;
    CLEANUP(importance_free) struct importance *i = read_good(good_imatrix_gguf);
    size_t n;
    assert_values(i, "blk.0.attn_q.weight", (const float[]){1.0f / 3, 2.0f / 3, 1, 0}, 4);
    assert_values(i, "blk.0.ffn_up_exps.weight", (const float[]){1, 2, 1, 1, 2.5f, 3}, 6);
    assert_null(importance_of(i, "blk.0.attn_k.weight", &n));
    assert_string_equal(i->form, "gguf");
    assert_string_equal(i->dataset, "texts/calibration.txt");
    assert_int_equal(i->n_chunks, 7);
    assert_int_equal(i->n_entries, 2);
}

static void importance_read__older_form__sums_by_calls_and_as_they_are_without(void **state)
{
    (void)state;
    CLEANUP(importance_free) struct importance *i = read_good(good_imatrix_dat);
    assert_values(i, "a.w", (const float[]){1.0f / 3, 2.0f / 3}, 2);
    assert_values(i, "b.w", (const float[]){4}, 1);
    assert_string_equal(i->form, "dat");
    assert_string_equal(i->dataset, "text");
    assert_int_equal(i->n_chunks, 5);
}

static void importance_read__older_form_of_early_2024__has_no_tail(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer file = {0};
    struct qd_error err;
    int r;
    good_imatrix_dat(&file);
    for (size_t n = 46; n <= 50; n += 4) {
        CLEANUP(importance_free)
        struct importance *i = read_bytes((struct bytes){file.data, n}, BUDGET_BYTES, &r, &err);
        assert_int_equal(r, 0);
        assert_null(i->dataset);
        assert_int_equal(i->n_chunks, n == 46 ? 0 : 5);
    }
}

static void importance_read__digest__is_that_of_the_content(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer file = {0};
    struct digest want;
    good_imatrix_dat(&file);
    assert_int_equal(digest_of_bytes(buffer_span(&file), &want, NULL), 0);
    CLEANUP(importance_free) struct importance *i = read_good(good_imatrix_dat);
    assert_true(digest_equal(&i->digest, &want));
}

static void importance_read__small_budget__is_a_limit(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer file = {0};
    struct qd_error err;
    int r;
    good_imatrix_dat(&file);
    file.data[0] = 1; /* one entry of 25,000 values */
    file.n = 15;
    buffer_put_u32(&file, 25000);
    buffer_put_zeros(&file, 100000);
    assert_null(read_bytes(buffer_span(&file), 50000, &r, &err));
    assert_int_equal(r, QD_E_LIMIT);
    assert_non_null(strstr(err.message, "more memory than the job may give it"));
    assert_non_null(strstr(err.hint, "--max-memory"));
}

struct verdicts {
    size_t n, n_wrong;
};

static void try_file(const struct bad_file *f, void *data)
{
    struct verdicts *v = data;
    struct qd_error err = {0};
    int r;
    CLEANUP(importance_free) struct importance *i = read_bytes(f->content, BUDGET_BYTES, &r, &err);
    v->n++;
    if (r == f->code && strstr(err.message, f->says) && err.hint[0] && strstr(err.message, f->file_name))
        return;
    v->n_wrong++;
    print_error("%s: %d (wanted %d '%s') '%s' [%s]\n", f->name, r, f->code, f->says, err.message, err.hint);
}

static void importance_read__every_bad_file__is_refused_with_its_own_error(void **state)
{
    (void)state;
    struct verdicts v = {0};
    bad_imatrix_files(try_file, &v);
    print_message("# %zu bad files\n", v.n);
    assert_true(v.n >= 150);
    assert_int_equal(v.n_wrong, 0);
}

/* ---- the model it belongs to --------------------------------------------------------------------- */

static struct tensor tensor_of(const char *name, uint64_t columns, uint64_t rows, uint64_t experts)
{
    return (struct tensor){.name = name,
                           .type = QD_TYPE_F32,
                           .n_dims = experts > 1 ? 3 : 2,
                           .shape = {columns, rows, experts, 1},
                           .n_elements = columns * rows * experts};
}

static int check(struct tensor a, struct tensor b, struct qd_error *err)
{
    CLEANUP(importance_free) struct importance *i = read_good(good_imatrix_gguf);
    struct tensor tensors[] = {a, b};
    const struct model m = {.tensors = tensors, .n_tensors = 2};
    return importance_check(i, &m, err);
}

static void importance_check__sizes_and_experts_of_the_model__fit(void **state)
{
    (void)state;
    struct qd_error err;
    assert_int_equal(
        check(tensor_of("blk.0.attn_q.weight", 4, 8, 1), tensor_of("blk.0.ffn_up_exps.weight", 2, 8, 3), &err), 0);
    assert_int_equal(check(tensor_of("blk.0.attn_q.weight", 4, 8, 1), tensor_of("other.weight", 2, 8, 3), &err), 0);
}

static void importance_check__another_size__names_the_tensor_and_both(void **state)
{
    (void)state;
    struct qd_error err;
    struct tensor up = tensor_of("blk.0.ffn_up_exps.weight", 2, 8, 3);
    assert_int_equal(check(tensor_of("blk.0.attn_q.weight", 5, 8, 1), up, &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, "'blk.0.attn_q.weight' has 5 columns and 1 experts"));
    assert_non_null(strstr(err.message, "4 values"));
    assert_non_null(strstr(err.hint, "llama-imatrix"));
    assert_int_equal(check(tensor_of("blk.0.attn_q.weight", UINT64_C(1) << 62, 8, 8), up, &err), QD_E_INVALID);
}

static void importance_check__another_number_of_experts__is_refused(void **state)
{
    (void)state;
    struct qd_error err;
    struct tensor q = tensor_of("blk.0.attn_q.weight", 4, 8, 1);
    assert_int_equal(check(q, tensor_of("blk.0.ffn_up_exps.weight", 3, 8, 2), &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, "has 2 experts, the importance matrix counts for 3"));
    assert_int_equal(check(q, tensor_of("blk.0.ffn_up_exps.weight", 2, 8, 4), &err), QD_E_INVALID);
}

static void importance_check__nothing_fits__is_refused(void **state)
{
    (void)state;
    struct qd_error err;
    assert_int_equal(check(tensor_of("model.a.weight", 4, 8, 1), tensor_of("model.b.weight", 2, 8, 1), &err),
                     QD_E_INVALID);
    assert_non_null(strstr(err.message, "fits no tensor"));
    assert_non_null(strstr(err.message, "'blk.0.attn_q.weight'"));
}

/* As in the field: it always differs in imatrix files of old, and only it may. */
static void importance_check__token_embedding_of_another_size__is_not_used(void **state)
{
    (void)state;
    const float one[1] = {1}, four[4] = {1, 1, 1, 1};
    struct importance_entry entries[] = {{.name = "a.weight", .values = four, .n = 4},
                                         {.name = "token_embd.weight", .values = one, .n = 1}};
    const struct importance i = {.entries = entries, .n_entries = 2};
    struct tensor tensors[] = {tensor_of("a.weight", 4, 8, 1), tensor_of("token_embd.weight", 4, 8, 1)};
    const struct model m = {.tensors = tensors, .n_tensors = 2};
    struct qd_error err;
    assert_int_equal(importance_check(&i, &m, &err), 0);
    assert_ptr_equal(importance_for(&i, &tensors[0], QD_TYPE_Q4_K), four);
    assert_null(importance_for(&i, &tensors[1], QD_TYPE_Q4_K));
    assert_null(importance_for(&i, &tensors[0], QD_TYPE_Q8_0)); /* its encoder looks at none */
    assert_null(importance_for(&i, &tensors[0], QD_TYPE_F32));  /* a copy */
    assert_null(importance_for(NULL, &tensors[0], QD_TYPE_Q4_K));
}

static void importance_required__types_that_are_garbage_without__but_never_embedding_and_output(void **state)
{
    (void)state;
    const uint32_t q2_k = 10, q2_k_s = 21;
    assert_true(importance_required("blk.0.attn_q.weight", QD_TYPE_IQ2_XS, q2_k));
    assert_true(importance_required("blk.0.attn_q.weight", QD_TYPE_IQ1_M, q2_k));
    assert_true(importance_required("blk.0.attn_q.weight", QD_TYPE_Q2_K, q2_k_s));
    assert_false(importance_required("blk.0.attn_q.weight", QD_TYPE_Q2_K, q2_k));
    assert_false(importance_required("blk.0.attn_q.weight", QD_TYPE_IQ3_S, q2_k));
    assert_false(importance_required("output.weight", QD_TYPE_IQ2_XS, q2_k));
    assert_false(importance_required("token_embd.weight", QD_TYPE_IQ2_XS, q2_k));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(importance_read__gguf__sums_by_counts_and_ones_where_nothing_was_seen),
        cmocka_unit_test(importance_read__older_form__sums_by_calls_and_as_they_are_without),
        cmocka_unit_test(importance_read__older_form_of_early_2024__has_no_tail),
        cmocka_unit_test(importance_read__digest__is_that_of_the_content),
        cmocka_unit_test(importance_read__small_budget__is_a_limit),
        cmocka_unit_test(importance_read__every_bad_file__is_refused_with_its_own_error),
        cmocka_unit_test(importance_check__sizes_and_experts_of_the_model__fit),
        cmocka_unit_test(importance_check__another_size__names_the_tensor_and_both),
        cmocka_unit_test(importance_check__another_number_of_experts__is_refused),
        cmocka_unit_test(importance_check__nothing_fits__is_refused),
        cmocka_unit_test(importance_check__token_embedding_of_another_size__is_not_used),
        cmocka_unit_test(importance_required__types_that_are_garbage_without__but_never_embedding_and_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
