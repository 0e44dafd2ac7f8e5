/*
 * Prints docs/protocol.md from protocol.def. Built and run by `ninja docs-protocol`; a test compares the committed
 * page.
 */
#include <stdio.h>
#include <string.h>

#include "ipc/codec.h"
#include "ipc/packet.h"
#include "ipc/precheck.h"

static const char introduction[] =
    "# Protocol\n\n"
    "Printed from ipc/protocol.def by docs/print_protocol.c; `ninja -C build docs-protocol` renews it and a test "
    "compares.\n\n"
    "A packet of a SOCK_SEQPACKET Unix socket is one MessagePack-RPC message:\n\n"
    "    [0, id, method, {params}]         request\n"
    "    [1, id, nil, {result}]            reply\n"
    "    [1, id, {code, message, hint}, nil]   reply to a request that failed; code is a name of errors.def\n"
    "    [2, event, {params}]              event; `id` in its params, where there is one, is the request it belongs "
    "to\n\n"
    "Unknown keys are skipped by both sides, an unknown method is answered with an error, a known key that comes twice "
    "is refused; nil is as good as absent. Descriptors belong to the packet that carries them. A list that does not "
    "fit "
    "is paged: `from` asks for the items from that index on, `next` in the answer is the next such index, 0 or absent "
    "at the end.\n";

static const char *kind_name(const struct field *f)
{
    static const char *const names[] = {[FIELD_str] = "string", [FIELD_u32] = "u32", [FIELD_u64] = "u64",
                                        [FIELD_bool] = "bool",  [FIELD_f64] = "f64", [FIELD_bin] = "binary"};
    return f->kind == FIELD_list ? shape_of(f->record)->name : names[f->kind];
}

static void print_fields(enum message type)
{
    const struct message_shape *shape = shape_of(type);
    if (shape->n_fields == 0)
        return;
    printf("| key | type | | |\n|---|---|---|---|\n");
    for (size_t i = 0; i < shape->n_fields; i++) {
        const struct field *f = &shape->fields[i];
        printf("| `%s` | %s%s | %s | %s |\n", f->key, f->kind == FIELD_list ? "list of " : "", kind_name(f),
               f->required ? "required" : "", f->doc);
    }
    printf("\n");
}

static void print_part(const char *title, enum message type)
{
    if (shape_of(type)->n_fields == 0)
        printf("%s: none.\n\n", title);
    else
        printf("%s:\n\n", title);
    print_fields(type);
}

static void print_methods(const struct method *table, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        printf("### %s\n\n%s\n\n", table[i].name, table[i].doc);
        print_part("Parameters", table[i].params);
        print_part("Result", table[i].result);
    }
}

static void print_events(const struct event *table, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        printf("### %s\n\n%s\n\n", table[i].name, table[i].doc);
        print_fields(table[i].params);
    }
}

static void print_record(enum message type)
{
    printf("### %s\n\n", shape_of(type)->name);
    print_fields(type);
}

static void print_limits(void)
{
    printf("\n## Limits\n\n| what | at most |\n|---|---|\n");
    printf("| bytes of a packet | %d |\n| descriptors of a packet | %d |\n| depth of nesting | %d |\n| objects of a "
           "message | %d |\n",
           PACKET_BYTES_MAX, PACKET_FDS_MAX, PRECHECK_DEPTH_MAX, PRECHECK_OBJECTS_MAX);
    printf("| bytes of a string, which is UTF-8 without NUL | %d |\n| bytes of a method's name | %d |\n| items of a "
           "list | %d |\n",
           TEXT_BYTES_MAX, NAME_BYTES_MAX, LIST_ITEMS_MAX);
    printf("\nExtension types are refused. All of it is checked before a byte is unpacked.\n");
}

int main(void)
{
    printf("%s", introduction);
    print_limits();
    printf("\n## Methods\n\n");
    print_methods(methods, N_METHODS);
    printf(
        "The descriptors of the reply to `open`: the envelope, then the manifest's files in order, payload first.\n\n");
    printf("## Events\n\n");
    print_events(events, N_EVENTS);
    printf("## Records\n\n");
#define PRINT_RECORD(name) print_record(MSG_##name);
    RECORDS(PRINT_RECORD)
    printf("## quantd and its worker\n\nThe same envelope over the worker's control socket.\n\n");
    print_methods(worker_methods, N_WORKER_METHODS);
    print_events(worker_events, N_WORKER_EVENTS);
    WORKER_RECORDS(PRINT_RECORD)
    return fflush(stdout) != 0;
}
