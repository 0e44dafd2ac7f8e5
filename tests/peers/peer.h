/*
 * The peer: llama.cpp's own library, loaded at run time, as a judge of our files. Its headers come with `./dev peers`;
 * its folder is $QUANTD_PEERS, or what the build found. The programs here are the only users.
 */
#ifndef QUANTD_TESTS_PEERS_PEER_H
#define QUANTD_TESTS_PEERS_PEER_H

#include <stdbool.h>
#include <stddef.h>

#include <ggml-backend.h>
#include <llama.h>

/* Every function that a judge calls. One line here is a member of struct peer of the same name and type. */
#define PEER_GGML(F) F(ggml_backend_load_all_from_path)
#define PEER_LLAMA(F)                      \
    F(llama_backend_init)                  \
    F(llama_log_set)                       \
    F(llama_model_default_params)          \
    F(llama_model_load_from_file)          \
    F(llama_model_free)                    \
    F(llama_model_get_vocab)               \
    F(llama_model_quantize)                \
    F(llama_model_quantize_default_params) \
    F(llama_context_default_params)        \
    F(llama_init_from_model)               \
    F(llama_free)                          \
    F(llama_get_memory)                    \
    F(llama_memory_clear)                  \
    F(llama_vocab_n_tokens)                \
    F(llama_vocab_bos)                     \
    F(llama_vocab_eos)                     \
    F(llama_tokenize)                      \
    F(llama_token_to_piece)                \
    F(llama_batch_init)                    \
    F(llama_batch_free)                    \
    F(llama_decode)                        \
    F(llama_get_logits_ith)

struct peer {
#define PEER_MEMBER(name) __typeof__(&name) name;
    PEER_GGML(PEER_MEMBER)
    PEER_LLAMA(PEER_MEMBER)
#undef PEER_MEMBER
};

/* Loads the library, its CPU backend included; says why on stderr and exits with 77 (left out) where it cannot be had.
 */
void peer_load(struct peer *p);

/*
 * The path to give to the library for @path. With @by_descriptor the file is opened here, read-only, and the answer is
 * /proc/self/fd/N: what an application does with a served descriptor. Exits on failure. Static storage, one file.
 */
const char *peer_path(const char *path, bool by_descriptor);

/* Loads the model through @path; exits on failure. */
struct llama_model *peer_model(const struct peer *p, const char *path);

/* A context of @n_tokens on one thread with f32 keys and values: the same digits on every machine of one kind. */
struct llama_context *peer_context(const struct peer *p, struct llama_model *model, unsigned n_tokens);

/* All of @text in tokens, without <s>; malloc'ed. */
llama_token *peer_tokenize(const struct peer *p, const struct llama_vocab *vocab, const char *text, size_t text_bytes,
                           int *ret_n);

/* Feeds @n tokens at positions @at.. ; logits for each of them. Exits on failure. */
void peer_feed(const struct peer *p, struct llama_context *context, struct llama_batch *batch,
               const llama_token *tokens, int n, int at);

/* @argv[1] is @name: takes it out of the arguments. */
bool peer_option(int *argc, char **argv, const char *name);

double peer_seconds(void);     /* monotonic */
double peer_cpu_seconds(void); /* of this process, all threads */

void peer_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
