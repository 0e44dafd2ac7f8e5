#include "tests/unit/client/fake_peer.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "artifact/envelope.h"
#include "artifact/manifest.h"
#include "artifact/tables.h"
#include "ipc/codec.h"
#include "ipc/conn.h"
#include "kernels/core/io.h"
#include "tests/test.h"

enum { PAYLOAD_BYTES = SHARD_BYTES + FAKE_TAIL_BYTES, N_FILES = 4 };

struct fake_peer {
    char folder[64], socket[80];
    pthread_t thread;
    int listen_fd;
    _Atomic int lie;
    _Atomic unsigned n_requests, n_connections, n_informed;
    _Atomic bool stop;
    struct public_key key;
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    char artifact_key[DIGEST_HEX_BYTES];
    struct digest print; /* of the envelope */
};

static const char *const names[1 + N_FILES] = {"envelope", "model.gguf", "tensors", "metadata", "shards"};

static void path_of(const struct fake_peer *p, const char *name, char dst[160])
{
    (void)snprintf(dst, 160, "%s/%s", p->folder, name);
}

static void write_file(const struct fake_peer *p, const char *name, struct bytes content)
{
    char path[160];
    path_of(p, name, path);
    CLEANUP(fd_close) int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write_whole(fd, content.data, content.n), 0);
}

static void add_file(const struct fake_peer *p, struct manifest *m, enum manifest_role role, struct bytes content)
{
    struct manifest_file *f = &m->files[m->n_files++];
    *f = (struct manifest_file){.role = role, .name = names[m->n_files], .bytes = content.n};
    assert_int_equal(digest_of_bytes(content, &f->digest, NULL), 0);
    write_file(p, f->name, content);
}

static void add_tables(const struct fake_peer *p, struct manifest *m)
{
    CLEANUP(buffer_clear) struct buffer tensors = {0};
    CLEANUP(buffer_clear) struct buffer metadata = {0};
    struct tensor_entry entries[2] = {
        {.name = "first",
         .type = QD_TYPE_F32,
         .source_type = QD_TYPE_F32,
         .n_dims = 1,
         .shape = {1024},
         .offset = 4096,
         .bytes = 4096,
         .reason = "kept"},
        {.name = "second",
         .type = QD_TYPE_Q8_0,
         .source_type = QD_TYPE_F16,
         .n_dims = 2,
         .shape = {32, 4},
         .offset = SHARD_BYTES + 4096,
         .bytes = 136,
         .reason = "q8_0",
         .sqnr_db = 40},
    };
    struct tensor_table table = {.tensors = entries, .n = 2};
    static const uint32_t layers = 7;
    static const int32_t ids[3] = {-1, 0, 5};
    struct bytes name = {(const uint8_t *)"llama", 5},
                 words[2] = {{(const uint8_t *)"<s>", 3}, {(const uint8_t *)"a", 1}};
    struct meta_entry values[4] = {
        {.key = "general.architecture", .value = {.type = META_STRING, .n_items = 1, .data = &name}},
        {.key = "llama.block_count", .value = {.type = META_U32, .n_items = 1, .data = &layers}},
        {.key = "tokens", .value = {.type = META_ARRAY, .item = META_STRING, .n_items = 2, .data = words}},
        {.key = "ids", .value = {.type = META_ARRAY, .item = META_I32, .n_items = 3, .data = ids}},
    };
    assert_int_equal(tensor_table_encode(&table, &tensors, NULL), 0);
    assert_int_equal(meta_table_encode(&(struct meta_table){.entries = values, .n = 4}, &metadata, NULL), 0);
    add_file(p, m, MANIFEST_TENSORS, buffer_span(&tensors));
    add_file(p, m, MANIFEST_METADATA, buffer_span(&metadata));
}

static void add_payload(const struct fake_peer *p, struct manifest *m, struct digest leaves[FAKE_SHARDS])
{
    char path[160];
    CLEANUP(free) uint8_t *payload = calloc(1, PAYLOAD_BYTES);
    CLEANUP(free) struct digest *computed = NULL;
    struct digest whole;
    assert_non_null(payload);
    for (size_t i = 0; i < PAYLOAD_BYTES; i += 997)
        payload[i] = (uint8_t)(i / 997);
    add_file(p, m, MANIFEST_PAYLOAD, (struct bytes){payload, PAYLOAD_BYTES});
    path_of(p, "model.gguf", path);
    CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(digest_file(fd, PAYLOAD_BYTES, 1, &whole, &computed, NULL, NULL, NULL), 0);
    memcpy(leaves, computed, FAKE_SHARDS * sizeof *leaves);
}

static void make_artifact(struct fake_peer *p, const char *layout)
{
    struct manifest m;
    struct manifest_file files[MANIFEST_N_ROLES];
    struct digest leaves[FAKE_SHARDS];
    struct envelope e;
    CLEANUP(buffer_clear) struct buffer raw = {0};
    CLEANUP(buffer_clear) struct buffer message = {0};
    CLEANUP(buffer_clear) struct buffer sealed = {0};
    CLEANUP(buffer_clear) struct buffer pub = {0};
    m = (struct manifest){.format = MANIFEST_FORMAT,
                          .model = "tiny",
                          .scheme = "q8_0",
                          .recipe = "q8_0",
                          .layout = layout,
                          .features = "",
                          .files = files,
                          .encoder_revision = 1,
                          .created = 1700000000,
                          .quality = {.worst = ""}};
    memset(m.key.bytes, 0xab, DIGEST_BYTES);
    add_payload(p, &m, leaves);
    add_tables(p, &m);
    add_file(p, &m, MANIFEST_SHARDS, (struct bytes){(const uint8_t *)leaves, sizeof leaves});
    digest_hex(&m.key, p->artifact_key);
    assert_int_equal(manifest_encode(&m, &raw, NULL), 0);
    e.manifest = buffer_span(&raw);
    assert_int_equal(key_id_of(&p->key, &e.key_id), 0);
    envelope_signed_message(e.manifest, &message);
    assert_int_equal(crypto_sign_detached(e.signature, NULL, message.data, message.n, p->secret), 0);
    assert_int_equal(envelope_encode(&e, &sealed, NULL), 0);
    write_file(p, "envelope", buffer_span(&sealed));
    assert_int_equal(envelope_print(buffer_span(&sealed), &p->print, NULL), 0);
    assert_int_equal(public_key_format(&p->key, "test", &pub), 0);
    write_file(p, "quantd.pub", buffer_span(&pub));
}

/* ---- answers ------------------------------------------------------------------------------------------------- */

/* A copy of the file with one bit of its middle flipped, or a byte cut off. */
static int spoiled(const struct fake_peer *p, const char *name, bool cut)
{
    char path[160];
    path_of(p, name, path);
    CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    CLEANUP(free) uint8_t *content = malloc((size_t)st.st_size);
    assert_int_equal(pread_whole(fd, content, (size_t)st.st_size, 0), st.st_size);
    path_of(p, "spoiled", path);
    CLEANUP(fd_close) int copy = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644);
    if (!cut)
        content[st.st_size / 2] ^= 1;
    assert_int_equal(write_whole(copy, content, (size_t)st.st_size - cut), 0);
    return steal_fd(&copy);
}

static int file_for(const struct fake_peer *p, int i)
{
    static const struct {
        int lie, file;
    } spoils[] = {{PEER_BAD_SIGNATURE, 0}, {PEER_SHORT_PAYLOAD, 1}, {PEER_BAD_TABLE, 2}, {PEER_BAD_METADATA, 3}};
    char path[160];
    for (size_t k = 0; k < sizeof spoils / sizeof spoils[0]; k++)
        if (p->lie == spoils[k].lie && i == spoils[k].file)
            return spoiled(p, names[i], p->lie == PEER_SHORT_PAYLOAD);
    path_of(p, p->lie == PEER_FIFO && i == 1 ? "fifo" : names[i], path);
    return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

static void send_all(int fd, const struct buffer *wire, const int *fds, size_t n_fds)
{
    (void)conn_send(fd, buffer_span(wire), fds, n_fds, NULL); /* the client may be gone on purpose */
}

static void note_have(struct fake_peer *p, struct incoming *in)
{
    struct msg_open m;
    assert_int_equal(incoming_decode(in, INTO(open, &m), NULL), 0);
    if (m.have.n == DIGEST_BYTES && memcmp(m.have.data, p->print.bytes, DIGEST_BYTES) == 0)
        p->n_informed++;
}

static void answer_open(struct fake_peer *p, int fd, uint32_t id)
{
    CLEANUP(buffer_clear) struct buffer wire = {0};
    static const char other[] = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";
    struct msg_opened opened = {.key = p->lie == PEER_OTHER_KEY ? other : p->artifact_key, .n_files = N_FILES};
    int fds[1 + N_FILES];
    for (int i = 0; i <= N_FILES; i++)
        fds[i] = file_for(p, i);
    assert_int_equal(reply_encode(&wire, id, MESSAGE(opened, &opened), NULL), 0);
    send_all(fd, &wire, fds, p->lie == PEER_FEW_FDS ? N_FILES : 1 + N_FILES);
    for (int i = 0; i <= N_FILES; i++)
        (void)fd_close(fds[i]);
}

static void tell_progress(int fd, uint32_t id, uint64_t done)
{
    CLEANUP(buffer_clear) struct buffer wire = {0};
    struct msg_progress m = {
        .id = id, .model = "tiny", .scheme = "q8_0", .state = "running", .done_bytes = done, .total_bytes = 100};
    assert_int_equal(event_encode(&wire, "progress", MESSAGE(progress, &m), NULL), 0);
    send_all(fd, &wire, NULL, 0);
}

static void answer_hello(struct fake_peer *p, int fd, uint32_t id)
{
    CLEANUP(buffer_clear) struct buffer wire = {0};
    struct msg_welcome m = {.version = p->lie == PEER_OTHER_VERSION ? 2 : 1,
                            .daemon = "fake",
                            .public_key = {p->key.bytes, PUBLIC_KEY_BYTES}};
    assert_int_equal(reply_encode(&wire, id, MESSAGE(welcome, &m), NULL), 0);
    send_all(fd, &wire, NULL, 0);
}

static void say_no(int fd, uint32_t id)
{
    CLEANUP(buffer_clear) struct buffer wire = {0};
    struct qd_error why = {.code = QD_E_NOT_FOUND, .message = "no model 'tinny'", .hint = "did you mean 'tiny'?"};
    assert_int_equal(error_encode(&wire, id, &why, NULL), 0);
    send_all(fd, &wire, NULL, 0);
}

/* False: the connection is to be closed. */
static bool answer(struct fake_peer *p, int fd, struct incoming *in)
{
    if (strcmp(in->name, "hello") == 0) {
        answer_hello(p, fd, in->id);
        return true;
    }
    p->n_requests++;
    switch ((enum peer_lie)p->lie) {
    case PEER_VANISHES_ONCE:
        p->lie = PEER_HONEST;
        return false;
    case PEER_VANISHES:
        return false;
    case PEER_GARBAGE:
        (void)conn_send(fd, (struct bytes){(const uint8_t *)"\xdf\x08\0\0\0", 5}, NULL, 0, NULL);
        return true;
    case PEER_SAYS_NO:
        say_no(fd, in->id);
        return true;
    case PEER_TELLS_PROGRESS:
        tell_progress(fd, in->id, 40);
        tell_progress(fd, in->id + 1000, 60); /* of another request */
        tell_progress(fd, in->id, 80);
        break;
    case PEER_HONEST:
    case PEER_OTHER_VERSION:
    case PEER_BAD_SIGNATURE:
    case PEER_BAD_TABLE:
    case PEER_BAD_METADATA:
    case PEER_SHORT_PAYLOAD:
    case PEER_FIFO:
    case PEER_FEW_FDS:
    case PEER_OTHER_KEY:
        break;
    }
    if (strcmp(in->name, "open") == 0)
        note_have(p, in);
    answer_open(p, fd, in->id);
    return true;
}

static void serve_connection(struct fake_peer *p, int fd)
{
    CLEANUP(packet_clear) struct packet packet = {0};
    while (!p->stop) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, 20) <= 0)
            continue;
        CLEANUP(incoming_clear) struct incoming in = {0};
        if (conn_recv(fd, 1, &packet, NULL) != 1 || incoming_parse(packet_span(&packet), &in, NULL) < 0 ||
            !answer(p, fd, &in))
            return;
    }
}

static void *serve(void *data)
{
    struct fake_peer *p = data;
    while (!p->stop) {
        struct pollfd ready = {.fd = p->listen_fd, .events = POLLIN};
        CLEANUP(fd_close) int fd = -1;
        if (poll(&ready, 1, 20) <= 0 || conn_accept(p->listen_fd, &fd, NULL) < 0)
            continue;
        p->n_connections++;
        serve_connection(p, fd);
    }
    return NULL;
}

struct fake_peer *fake_peer_start(void)
{
    struct fake_peer *p = calloc(1, sizeof *p);
    char path[160];
    assert_non_null(p);
    (void)snprintf(p->folder, sizeof p->folder, "/tmp/quantd-peer-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    (void)snprintf(p->socket, sizeof p->socket, "%s/quantd.sock", p->folder);
    assert_int_equal(crypto_sign_keypair(p->key.bytes, p->secret), 0);
    make_artifact(p, "portable");
    path_of(p, "fifo", path);
    assert_int_equal(mkfifo(path, 0644), 0);
    assert_int_equal(conn_listen(p->socket, 0600, &p->listen_fd, NULL), 0);
    assert_int_equal(pthread_create(&p->thread, NULL, serve, p), 0);
    return p;
}

void fake_peer_stop(struct fake_peer *p)
{
    char command[128];
    p->stop = true;
    (void)pthread_join(p->thread, NULL);
    (void)fd_close(p->listen_fd);
    (void)snprintf(command, sizeof command, "rm -r %s", p->folder);
    assert_int_equal(system(command), 0);
    free(p);
}

void fake_peer_lie(struct fake_peer *p, enum peer_lie lie)
{
    p->lie = (int)lie;
}

const char *fake_peer_socket(const struct fake_peer *p)
{
    return p->socket;
}

const char *fake_peer_folder(const struct fake_peer *p)
{
    return p->folder;
}

unsigned fake_peer_requests(const struct fake_peer *p)
{
    return p->n_requests;
}

unsigned fake_peer_informed(const struct fake_peer *p)
{
    return p->n_informed;
}

unsigned fake_peer_connections(const struct fake_peer *p)
{
    return p->n_connections;
}

void fake_peer_layout(struct fake_peer *p, const char *layout)
{
    make_artifact(p, layout);
}

void fake_peer_flip_payload(struct fake_peer *p, unsigned long offset)
{
    char path[160];
    uint8_t byte;
    path_of(p, "model.gguf", path);
    CLEANUP(fd_close) int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread_whole(fd, &byte, 1, offset), 1);
    byte ^= 1;
    assert_int_equal(pwrite_whole(fd, &byte, 1, offset), 0);
}

void fake_peer_write_key(struct fake_peer *p, const char *path)
{
    CLEANUP(buffer_clear) struct buffer pub = {0};
    assert_int_equal(public_key_format(&p->key, "test", &pub), 0);
    CLEANUP(fd_close) int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    assert_int_equal(write_whole(fd, pub.data, pub.n), 0);
}

void fake_peer_replace_payload(struct fake_peer *p)
{
    char command[384];
    (void)snprintf(command, sizeof command, "cp %s/model.gguf %s/new && mv %s/new %s/model.gguf", p->folder, p->folder,
                   p->folder, p->folder);
    assert_int_equal(system(command), 0);
}
