#include "artifact/manifest.h"

#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "artifact/envelope.h"
#include "kernels/core/io.h"
#include "tests/test.h"

static struct manifest sample(void)
{
    static struct manifest_file files[4];
    struct manifest m = {
        .format = MANIFEST_FORMAT,
        .model = "llama/tiny",
        .scheme = "q8_0",
        .recipe = "scheme=q8_0 pure=0",
        .layout = "portable",
        .features = "",
        .encoder_revision = 1,
        .files = files,
        .n_files = 4,
        .created = 1700000000,
        .quality = {.n_tensors = 12,
                    .sqnr_db = 46.5,
                    .rel_rmse = 0.0047,
                    .max_abs = 0.01,
                    .worst = "blk.0.ffn_down.weight",
                    .worst_sqnr_db = INFINITY},
    };
    static const char *const names[] = {"model.gguf", "tensors", "metadata", "shards"};
    memset(m.key.bytes, 0x11, DIGEST_BYTES);
    memset(m.source.bytes, 0x22, DIGEST_BYTES);
    for (size_t i = 0; i < 4; i++) {
        m.files[i] =
            (struct manifest_file){.role = (enum manifest_role)i, .name = names[i], .bytes = UINT64_C(1000) << (8 * i)};
        memset(m.files[i].digest.bytes, (int)(0x30 + i), DIGEST_BYTES);
    }
    m.files[0].has_verity = true;
    memset(m.files[0].verity.bytes, 0x77, DIGEST_BYTES);
    return m;
}

static void manifest__encode_decode_encode__gives_the_same_bytes(void **state)
{
    (void)state;
    struct manifest m = sample(), back;
    CLEANUP(buffer_clear) struct buffer first = {0};
    CLEANUP(buffer_clear) struct buffer second = {0};
    CLEANUP(arena_free) struct arena *arena = arena_new(1 << 16);
    assert_int_equal(manifest_encode(&m, &first, NULL), 0);
    assert_int_equal(manifest_decode(buffer_span(&first), arena, &back, NULL), 0);
    assert_int_equal(manifest_encode(&back, &second, NULL), 0);
    assert_int_equal(first.n, second.n);
    assert_memory_equal(first.data, second.data, first.n);
    assert_string_equal(back.recipe, m.recipe);
    assert_true(isinf(back.quality.worst_sqnr_db));
    assert_int_equal(manifest_file(&back, MANIFEST_SHARDS)->bytes, m.files[3].bytes);
    assert_true(back.files[0].has_verity && !back.files[1].has_verity);
}

/* A changed byte may still be a manifest, of other content; what it must never be is another spelling. */
static void manifest__any_byte_changed__is_refused_or_canonical(void **state)
{
    (void)state;
    struct manifest m = sample();
    CLEANUP(buffer_clear) struct buffer raw = {0};
    assert_int_equal(manifest_encode(&m, &raw, NULL), 0);
    for (size_t at = 0; at < raw.n; at++) {
        for (unsigned flip = 1; flip < 256; flip++) {
            raw.data[at] ^= (uint8_t)flip;
            CLEANUP(arena_free) struct arena *arena = arena_new(1 << 16);
            struct manifest back;
            if (manifest_decode(buffer_span(&raw), arena, &back, NULL) == 0) {
                CLEANUP(buffer_clear) struct buffer again = {0};
                assert_int_equal(manifest_encode(&back, &again, NULL), 0);
                assert_int_equal(again.n, raw.n);
                assert_memory_equal(again.data, raw.data, raw.n);
            }
            raw.data[at] ^= (uint8_t)flip;
        }
    }
}

static void manifest__any_prefix_or_one_byte_more__is_refused(void **state)
{
    (void)state;
    struct manifest m = sample(), back;
    CLEANUP(buffer_clear) struct buffer raw = {0};
    assert_int_equal(manifest_encode(&m, &raw, NULL), 0);
    for (size_t n = 0; n < raw.n; n++) {
        CLEANUP(arena_free) struct arena *arena = arena_new(1 << 16);
        CLEANUP(free) uint8_t *cut = malloc(n ? n : 1); /* its own allocation: a read past the end is seen */
        memcpy(cut, raw.data, n);
        assert_true(manifest_decode((struct bytes){cut, n}, arena, &back, NULL) < 0);
    }
    CLEANUP(arena_free) struct arena *arena = arena_new(1 << 16);
    struct qd_error err;
    buffer_put_u8(&raw, 0);
    assert_int_equal(manifest_decode(buffer_span(&raw), arena, &back, &err), QD_E_CORRUPT);
    assert_non_null(strstr(err.message, "too many"));
}

static void manifest_encode__what_decode_would_refuse__is_refused(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer raw = {0};
    struct manifest m = sample();
    m.quality.sqnr_db = NAN;
    assert_int_equal(manifest_encode(&m, &raw, NULL), QD_E_INVALID);
    static const char *const names[] = {"", ".", "..", "a/b", "/etc/passwd", "a\nb"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        m = sample();
        m.files[0].name = names[i];
        assert_int_equal(manifest_encode(&m, &raw, NULL), QD_E_CORRUPT);
    }
    m = sample();
    m.n_files = 0;
    assert_int_equal(manifest_encode(&m, &raw, NULL), QD_E_LIMIT);
    m = sample();
    m.files[0].role = MANIFEST_TENSORS; /* two tensor tables, no payload */
    assert_int_equal(manifest_encode(&m, &raw, NULL), QD_E_CORRUPT);
    m = sample();
    m.format = 2;
    assert_int_equal(manifest_encode(&m, &raw, NULL), QD_E_UNSUPPORTED);
}

static void manifest_decode__a_newer_format__says_so(void **state)
{
    (void)state;
    struct manifest m = sample(), back;
    CLEANUP(buffer_clear) struct buffer raw = {0};
    CLEANUP(arena_free) struct arena *arena = arena_new(1 << 16);
    struct qd_error err;
    assert_int_equal(manifest_encode(&m, &raw, NULL), 0);
    assert_int_equal(raw.data[8], 1); /* map head, "format", 1 */
    raw.data[8] = 2;
    assert_int_equal(manifest_decode(buffer_span(&raw), arena, &back, &err), QD_E_UNSUPPORTED);
}

/* --- Envelopes --- */

struct signer {
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    struct public_key public;
};

/* From the first secret key of RFC 8032, section 7.1, so that signatures here never change. */
static struct signer fixed_signer(uint8_t variant)
{
    struct signer s;
    uint8_t seed[32];
    assert_int_equal(sodium_hex2bin(seed, sizeof seed,
                                    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", 64, NULL, NULL,
                                    NULL),
                     0);
    seed[31] ^= variant;
    assert_int_equal(crypto_sign_seed_keypair(s.public.bytes, s.secret, seed), 0);
    return s;
}

static void seal(const struct signer *s, struct bytes manifest, struct buffer *dst)
{
    struct envelope e = {.manifest = manifest};
    CLEANUP(buffer_clear) struct buffer message = {0};
    assert_int_equal(key_id_of(&s->public, &e.key_id), 0);
    envelope_signed_message(manifest, &message);
    assert_int_equal(crypto_sign_detached(e.signature, NULL, message.data, message.n, s->secret), 0);
    assert_int_equal(envelope_encode(&e, dst, NULL), 0);
}

static int open_and_verify(struct bytes raw, const struct keyring *k, struct qd_error *err)
{
    struct envelope e;
    int r = envelope_decode(raw, &e, err);
    return r < 0 ? r : envelope_verify(&e, k, err);
}

static void sealed_sample(const struct signer *s, struct buffer *dst)
{
    struct manifest m = sample();
    CLEANUP(buffer_clear) struct buffer raw = {0};
    assert_int_equal(manifest_encode(&m, &raw, NULL), 0);
    seal(s, buffer_span(&raw), dst);
}

static void envelope__every_bit_flipped__is_refused(void **state)
{
    (void)state;
    struct signer s = fixed_signer(0);
    CLEANUP(buffer_clear) struct buffer raw = {0};
    sealed_sample(&s, &raw);
    CLEANUP(keyring_free) struct keyring *k = keyring_new();
    assert_int_equal(keyring_trust(k, &s.public, NULL), 0);
    assert_int_equal(open_and_verify(buffer_span(&raw), k, NULL), 0);
    for (size_t bit = 0; bit < 8 * raw.n; bit++) {
        raw.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_true(open_and_verify(buffer_span(&raw), k, NULL) < 0);
        raw.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t n = 0; n < raw.n; n++)
        assert_true(open_and_verify((struct bytes){raw.data, n}, k, NULL) < 0);
    assert_int_equal(open_and_verify(buffer_span(&raw), k, NULL), 0);
}

static void envelope_verify__unknown_or_revoked_key__is_untrusted_and_revoked_wins(void **state)
{
    (void)state;
    struct signer s = fixed_signer(0), other = fixed_signer(1);
    CLEANUP(buffer_clear) struct buffer raw = {0};
    sealed_sample(&s, &raw);
    CLEANUP(keyring_free) struct keyring *k = keyring_new();
    struct qd_error err;
    assert_int_equal(open_and_verify(buffer_span(&raw), k, &err), QD_E_UNTRUSTED);
    assert_int_equal(keyring_trust(k, &other.public, NULL), 0);
    assert_int_equal(open_and_verify(buffer_span(&raw), k, &err), QD_E_UNTRUSTED);
    assert_int_equal(keyring_trust(k, &s.public, NULL), 0);
    assert_int_equal(open_and_verify(buffer_span(&raw), k, &err), 0);
    assert_int_equal(keyring_revoke(k, &s.public, NULL), 0);
    assert_int_equal(keyring_trust(k, &s.public, NULL), 0);
    assert_int_equal(open_and_verify(buffer_span(&raw), k, &err), QD_E_UNTRUSTED);
    assert_non_null(strstr(err.message, "revoked"));
}

static void envelope_verify__signature_under_another_tag__is_refused(void **state)
{
    (void)state;
    struct signer s = fixed_signer(0);
    struct manifest m = sample();
    CLEANUP(buffer_clear) struct buffer manifest = {0};
    assert_int_equal(manifest_encode(&m, &manifest, NULL), 0);
    struct envelope e = {.manifest = buffer_span(&manifest)};
    assert_int_equal(key_id_of(&s.public, &e.key_id), 0);
    assert_int_equal(crypto_sign_detached(e.signature, NULL, manifest.data, manifest.n, s.secret), 0); /* no tag */
    CLEANUP(keyring_free) struct keyring *k = keyring_new();
    assert_int_equal(keyring_trust(k, &s.public, NULL), 0);
    assert_int_equal(envelope_verify(&e, k, NULL), QD_E_UNTRUSTED);
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void keyring__folders__trust_skips_bad_files_and_revoke_fails_closed(void **state)
{
    (void)state;
    struct signer s = fixed_signer(0);
    char folder[] = "/tmp/quantd-keys-XXXXXX", command[600];
    assert_non_null(mkdtemp(folder));
    CLEANUP(buffer_clear) struct buffer text = {0};
    assert_int_equal(public_key_format(&s.public, "of this machine", &text), 0);
    buffer_put_u8(&text, 0);
    write_file(folder, "a.pub", (const char *)text.data);
    write_file(folder, "b.pub", "quantd-ed25519 0123\n");
    write_file(folder, "c.txt", "not looked at");

    CLEANUP(keyring_free) struct keyring *k = keyring_new();
    struct qd_error err;
    assert_int_equal(keyring_trust_folder(k, folder, &err), 1);
    assert_non_null(strstr(err.message, "b.pub"));
    CLEANUP(buffer_clear) struct buffer raw = {0};
    sealed_sample(&s, &raw);
    assert_int_equal(open_and_verify(buffer_span(&raw), k, &err), 0);
    assert_int_equal(keyring_revoke_folder(k, folder, &err), QD_E_CORRUPT);
    assert_int_equal(keyring_trust_folder(k, "/nonexistent/folder", &err), 0);

    (void)snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

static void public_key_read__anything_but_one_key_line__is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "\n",
        "quantd-ed25519\n",
        "quantd-ed25519 d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "quantd-ed25519 d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a0\n",
        "quantd-ed25519 D75A980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\n",
        "ssh-ed25519 d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\n",
        "quantd-ed25519 d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\nmore\n",
    };
    char folder[] = "/tmp/quantd-keys-XXXXXX", path[512];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/k.pub", folder);
    struct public_key key;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_file(folder, "k.pub", bad[i]);
        assert_int_equal(public_key_read(path, &key, NULL), QD_E_CORRUPT);
    }
    write_file(folder, "k.pub", "quantd-ed25519 d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a me\n");
    assert_int_equal(public_key_read(path, &key, NULL), 0);
    assert_int_equal(key.bytes[0], 0xd7);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not block */
    assert_int_equal(public_key_read(path, &key, NULL), QD_E_CORRUPT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(manifest__encode_decode_encode__gives_the_same_bytes),
        cmocka_unit_test(manifest__any_byte_changed__is_refused_or_canonical),
        cmocka_unit_test(manifest__any_prefix_or_one_byte_more__is_refused),
        cmocka_unit_test(manifest_encode__what_decode_would_refuse__is_refused),
        cmocka_unit_test(manifest_decode__a_newer_format__says_so),
        cmocka_unit_test(envelope__every_bit_flipped__is_refused),
        cmocka_unit_test(envelope_verify__unknown_or_revoked_key__is_untrusted_and_revoked_wins),
        cmocka_unit_test(envelope_verify__signature_under_another_tag__is_refused),
        cmocka_unit_test(keyring__folders__trust_skips_bad_files_and_revoke_fails_closed),
        cmocka_unit_test(public_key_read__anything_but_one_key_line__is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
