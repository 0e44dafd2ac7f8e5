#include "daemon/workerproc.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/ioprio.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "ipc/conn.h"
#include "kernels/core/cleanup.h"

enum { REPLY_FDS_MAX = 2, N_HANDLES = 4, STOP_MS = 10 * 1000 /* a unit is 16 MiB */ };

struct workerproc {
    uv_process_t process;
    uv_poll_t control;
    uv_pipe_t stderr_pipe;
    uv_timer_t stall;
    unsigned n_open; /* handles not closed yet; the last one frees */
    struct workerproc_hooks hooks;
    void *data;
    int fd;               /* owned; the control socket */
    struct packet packet; /* being received */
    uint32_t request;     /* number of the request under way, 0: none */
    uint32_t n_requests;
    bool exited, stderr_done, stuck;
    int64_t exit_status;
    int signal;
    struct qd_error garbled; /* code not 0: it broke the protocol and was killed */
    char said[WORKER_STDERR_MAX + 1];
    size_t n_said;
    char read_buffer[512];
};

/* ---- the end ------------------------------------------------------------------------------ */

static void on_closed(uv_handle_t *h)
{
    struct workerproc *p = h->data;
    if (--p->n_open > 0)
        return;
    (void)fd_close(p->fd); /* a socket: nothing is lost */
    packet_clear(&p->packet);
    free(p);
}

static void close_handle(struct workerproc *p, void *handle)
{
    ((uv_handle_t *)handle)->data = p;
    uv_close(handle, on_closed);
}

static void close_all(struct workerproc *p)
{
    close_handle(p, &p->process);
    close_handle(p, &p->control);
    close_handle(p, &p->stderr_pipe);
    close_handle(p, &p->stall);
}

/* The last line it said: the reason, where there is one. */
static const char *last_words(struct workerproc *p)
{
    while (p->n_said > 0 && (p->said[p->n_said - 1] == '\n' || p->said[p->n_said - 1] == ' '))
        p->n_said--;
    p->said[p->n_said] = '\0';
    const char *line = strrchr(p->said, '\n');
    return line ? line + 1 : p->said;
}

static void describe_end(struct workerproc *p, struct qd_error *ret)
{
    const char *words = last_words(p);
    const char *colon = words[0] ? ": " : "";
    *ret = (struct qd_error){0};
    if (p->garbled.code)
        (void)err_new(ret, QD_E_WORKER_DIED, "the worker broke the protocol and was killed: %s", p->garbled.message);
    else if (p->stuck)
        (void)err_new(ret, QD_E_WORKER_DIED, "the worker was stuck and was killed%s%s", colon, words);
    else if (p->signal == SIGSYS)
        (void)err_new(ret, QD_E_WORKER_DIED, "the worker tried what its sandbox forbids and was killed%s%s", colon,
                      words);
    else if (p->signal)
        (void)err_new(ret, QD_E_WORKER_DIED, "the worker died by signal %d (%s)%s%s", p->signal, strsignal(p->signal),
                      colon, words);
    else if (p->exit_status)
        (void)err_new(ret, QD_E_WORKER_DIED, "the worker ended with code %" PRId64 "%s%s", p->exit_status, colon,
                      words);
    if (p->signal == SIGSYS || p->signal == SIGSEGV || p->signal == SIGBUS || p->signal == SIGABRT)
        (void)err_hint(ret, ret->code, "the model file may be made to attack; if it is not, report it");
}

/* Reaped, and all it said is read. */
static void maybe_ended(struct workerproc *p)
{
    if (!p->exited || !p->stderr_done)
        return;
    struct qd_error why;
    describe_end(p, &why);
    close_all(p);
    p->hooks.ended(p->data, &why);
}

static void on_process_exit(uv_process_t *h, int64_t exit_status, int term_signal)
{
    struct workerproc *p = h->data;
    p->exited = true;
    p->exit_status = exit_status;
    p->signal = term_signal;
    (void)uv_poll_stop(&p->control);
    (void)uv_timer_stop(&p->stall);
    maybe_ended(p);
}

/* ---- what it says -------------------------------------------------------------------------- */

static void on_stderr_buffer(uv_handle_t *h, size_t suggested, uv_buf_t *ret)
{
    struct workerproc *p = h->data;
    (void)suggested;
    *ret = uv_buf_init(p->read_buffer, sizeof p->read_buffer);
}

/* Keeps the newest bytes. */
static void remember(struct workerproc *p, const char *text, size_t n)
{
    size_t keep = n + p->n_said > WORKER_STDERR_MAX ? WORKER_STDERR_MAX - n : p->n_said;
    memmove(p->said, p->said + p->n_said - keep, keep);
    memcpy(p->said + keep, text, n);
    p->n_said = keep + n;
}

static void on_stderr(uv_stream_t *h, ssize_t n, const uv_buf_t *buf)
{
    struct workerproc *p = h->data;
    if (n > 0)
        remember(p, buf->base, (size_t)n);
    if (n >= 0)
        return;
    (void)uv_read_stop(h);
    p->stderr_done = true;
    maybe_ended(p);
}

static void garbled(struct workerproc *p, const struct qd_error *why)
{
    p->garbled = *why;
    (void)uv_poll_stop(&p->control);
    workerproc_kill(p);
}

static int take_message(struct workerproc *p, struct qd_error *err)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    int r = incoming_parse(packet_span(&p->packet), &in, err);
    if (r < 0)
        return r;
    if (in.kind == INCOMING_EVENT && strcmp(in.name, "w_progress") == 0) {
        struct msg_w_progress progress;
        r = incoming_decode(&in, INTO(w_progress, &progress), err);
        if (r == 0)
            (void)uv_timer_again(&p->stall);
        if (r == 0 && p->request)
            p->hooks.progress(p->data, &progress);
        return r;
    }
    if (in.kind != INCOMING_REPLY || in.id == 0 || in.id != p->request)
        return err_new(err, QD_E_PROTOCOL, "a message that nobody asked for");
    if (p->packet.cut)
        return err_new(err, QD_E_PROTOCOL, "descriptors were lost");
    p->request = 0;
    (void)uv_timer_stop(&p->stall);
    p->hooks.replied(p->data, &in, &p->packet);
    return 0;
}

/* One packet a turn: uv calls again while there is more. */
static void on_control(uv_poll_t *h, int status, int ready)
{
    struct workerproc *p = h->data;
    struct qd_error err = {0};
    (void)ready;
    if (status < 0) { /* its end closed with our message unread: it died, and how its exit says; or it gets there now */
        workerproc_kill(p);
        return;
    }
    int r = conn_recv(p->fd, REPLY_FDS_MAX, &p->packet, &err);
    if (r == QD_E_WOULD_BLOCK)
        return;
    if (r == 0 || r == QD_E_UNAVAILABLE) {
        (void)uv_poll_stop(h); /* gone: on_process_exit follows */
        return;
    }
    if (r > 0)
        r = take_message(p, &err);
    packet_reset(&p->packet);
    if (r < 0)
        garbled(p, &err);
}

static void on_stall(uv_timer_t *t)
{
    struct workerproc *p = t->data;
    p->stuck = true;
    workerproc_kill(p);
}

/* ---- start ------------------------------------------------------------------------------------ */

static int spawn(struct workerproc *p, const struct workerproc_options *o, int control_fd)
{
    char memory[32], cpu[512];
    (void)snprintf(memory, sizeof memory, "%" PRIu64, o->memory_bytes);
    const char *wanted = o->cpu ? o->cpu : getenv("QUANTD_CPU");
    (void)snprintf(cpu, sizeof cpu, "QUANTD_CPU=%s", wanted ? wanted : "");

    static char control[] = "--control", memory_option[] = "--memory", idle[] = "--idle", no_sandbox[] = "--no-sandbox";
    char *args[8] = {(char *)(uintptr_t)o->path, control, memory_option, memory};
    size_t n = 4;
    if (o->idle)
        args[n++] = idle;
    if (!o->sandbox)
        args[n++] = no_sandbox;
    char *env[] = {wanted ? cpu : NULL, NULL};
    uv_stdio_container_t stdio[] = {
        {.flags = UV_IGNORE},
        {.flags = UV_IGNORE},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&p->stderr_pipe},
        {.flags = UV_INHERIT_FD, .data.fd = control_fd},
    };
    const uv_process_options_t options = {.exit_cb = on_process_exit,
                                          .file = o->path,
                                          .args = args,
                                          .env = env,
                                          .cwd = "/",
                                          .stdio = stdio,
                                          .stdio_count = 4};
    return uv_spawn(p->process.loop, &p->process, &options);
}

static int set_handles(struct workerproc *p, uv_loop_t *loop, struct qd_error *err)
{
    int r = uv_poll_init(loop, &p->control, p->fd);
    if (r < 0)
        return err_new(err, QD_E_SYSTEM, "watch the worker's socket: %s", uv_strerror(r));
    (void)uv_timer_init(loop, &p->stall); /* these two cannot fail */
    (void)uv_pipe_init(loop, &p->stderr_pipe, 0);
    memset(&p->process, 0, sizeof p->process);
    p->process.loop = loop;
    p->n_open = N_HANDLES;
    p->control.data = p->stall.data = p->stderr_pipe.data = p->process.data = p;
    return 0;
}

int workerproc_start(uv_loop_t *loop, const struct workerproc_options *o, const struct workerproc_hooks *hooks,
                     void *data, struct workerproc **ret, struct qd_error *err)
{
    CLEANUP(free) struct workerproc *p = calloc(1, sizeof *p);
    if (!p)
        return err_new(err, QD_E_NO_MEMORY, "worker");
    int pair[2];
    int r = conn_pair(pair, err);
    if (r < 0)
        return r;
    CLEANUP(fd_close) int theirs = pair[1];
    p->fd = pair[0];
    p->hooks = *hooks;
    p->data = data;
    r = set_handles(p, loop, err);
    if (r < 0) {
        (void)fd_close(p->fd); /* unused yet */
        return r;
    }
    r = spawn(p, o, theirs);
    if (r == 0)
        r = uv_poll_start(&p->control, UV_READABLE, on_control);
    if (r == 0)
        r = uv_read_start((uv_stream_t *)&p->stderr_pipe, on_stderr_buffer, on_stderr);
    if (r < 0) {
        close_all(steal(&p)); /* frees it; a process that was started sees its socket close and ends */
        return err_new(err, r == UV_ENOENT ? QD_E_CONFIG : QD_E_SYSTEM, "start the worker '%s': %s", o->path,
                       uv_strerror(r));
    }
    *ret = steal(&p);
    return 0;
}

/* ---- what it is told ---------------------------------------------------------------------------- */

int workerproc_request(struct workerproc *p, const char *method, enum message type, const void *params, const int *fds,
                       size_t n_fds, unsigned stall_ms, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer message = {0};
    uint32_t id = ++p->n_requests;
    int r = request_encode(&message, id, method, type, params, err);
    if (r == 0)
        r = conn_send(p->fd, buffer_span(&message), fds, n_fds, err);
    if (r < 0)
        return err_in(err, r, "tell the worker to %s", method + 2);
    p->request = id;
    (void)uv_timer_start(&p->stall, on_stall, stall_ms, stall_ms); /* cannot fail with a callback */
    return 0;
}

void workerproc_stop(struct workerproc *p)
{
    if (p->exited)
        return;
    (void)shutdown(p->fd, SHUT_WR);                              /* a worker that is gone does not mind */
    (void)uv_timer_start(&p->stall, on_stall, STOP_MS, STOP_MS); /* cannot fail with a callback */
}

void workerproc_kill(struct workerproc *p)
{
    if (!p->exited)
        (void)uv_process_kill(&p->process, SIGKILL); /* ESRCH: on_process_exit is under way */
}

int workerproc_limit_file(struct workerproc *p, uint64_t bytes, struct qd_error *err)
{
    struct rlimit now;
    if (p->exited)
        return 0;
    if (prlimit(p->process.pid, RLIMIT_FSIZE, NULL, &now) < 0)
        return errno == ESRCH ? 0 : err_sys(err, errno, "read the worker's file size limit");
    rlim_t most = now.rlim_max < bytes ? now.rlim_max : (rlim_t)bytes; /* RLIM_INFINITY is the largest */
    if (prlimit(p->process.pid, RLIMIT_FSIZE, &(struct rlimit){most, most}, NULL) < 0 && errno != ESRCH)
        return err_sys(err, errno, "set the worker's file size limit");
    return 0;
}

bool workerproc_promote(struct workerproc *p)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/task", p->process.pid);
    DIR *tasks = p->exited ? NULL : opendir(path);
    bool done = tasks != NULL;
    for (struct dirent *e; tasks && (e = readdir(tasks));) {
        int tid = atoi(e->d_name);
        if (tid <= 0)
            continue;
        done = done && sched_setscheduler(tid, SCHED_OTHER, &(struct sched_param){0}) == 0;
        done = done && syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, tid, 0) == 0;
    }
    if (tasks)
        (void)closedir(tasks);
    return done;
}

pid_t workerproc_pid(const struct workerproc *p)
{
    return p->process.pid;
}
